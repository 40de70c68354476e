//! How are the scalars of the API read? Durations as Go writes them.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

/// A duration as Go writes it: `1.5s`, `100ms`, `1h30m`; also a bare `0`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GoDuration(pub Duration);

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_duration(&text).map(GoDuration).ok_or_else(|| {
            de::Error::custom(format_args!(
                "`{text}` is no duration; write a number with a unit, such as 1.5s, 100ms or 1h"
            ))
        })
    }
}

/// Go's time.ParseDuration for durations that are not negative; `None` if the text is not one.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let of_number = |c: char| c.is_ascii_digit() || c == '.';
        let (number, after) = rest.split_at_checked(rest.find(|c| !of_number(c))?)?;
        let (unit, after) = after.split_at_checked(after.find(of_number).unwrap_or(after.len()))?;
        let value: f64 = number.parse().ok()?;
        seconds += value
            * match unit {
                "ns" => 1e-9,
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = after;
    }
    if text.is_empty() {
        return None;
    }
    // Rounded to nanoseconds, so that 0.1s is 100 ms exactly.
    Duration::try_from_secs_f64(seconds).ok().map(|d| Duration::from_nanos((d.as_secs_f64() * 1e9).round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        assert_eq!(parse_duration("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(parse_duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(parse_duration("100ms"), Some(Duration::from_millis(100)));
        assert_eq!(parse_duration("0s"), Some(Duration::ZERO));
        for bad in ["", "5", "s", "-1s", "1 s", "1d", "1.2.3s"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }
}
