//! How many of all requests? (Istio Percent)

/// A share of all requests, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share(u32);

impl Share {
    const WHOLE: u32 = 1_000_000;
    /// Every request.
    pub(crate) const ALL: Share = Share(Share::WHOLE);

    /// Of a percentage; what is finer than 0.0001 is cut off.
    pub(crate) fn from_percent(percent: f64) -> Share {
        // A conversion from floating point saturates, so that nothing is outside 0 and the whole.
        Share(((percent * 10_000.0) as u32).min(Share::WHOLE))
    }

    /// In percent, for people.
    pub(crate) fn percent(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }

    /// How many of a million requests.
    pub(crate) fn millionths(self) -> u32 {
        self.0
    }

    /// Whether a random number falls into the share.
    pub(crate) fn takes(self, random: u32) -> bool {
        random % Share::WHOLE < self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_millionths() {
        for (percent, taken) in [(0.0, 0), (0.0001, 1), (0.00019, 1), (50.0, 500_000), (100.0, 1_000_000)] {
            assert_eq!(Share::from_percent(percent), Share(taken), "{percent}");
        }
        assert!(Share::from_percent(0.0001).takes(0) && !Share::from_percent(0.0001).takes(1));
        assert!(Share::from_percent(100.0).takes(u32::MAX) && !Share::from_percent(0.0).takes(0));
    }
}
