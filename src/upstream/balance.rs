//! Which of several endpoints comes next? Pure: loads, turns and random numbers are arguments.

/// The weights of a cluster's endpoints, prepared once for many choices.
#[derive(Debug, Default)]
pub(crate) struct Weights {
    each: Vec<u32>,
    total: u64,
    equal: bool,
    /// Indices in the order of round robin: one cycle in which every endpoint comes as often as its weight says.
    turns: Vec<usize>,
}

/// Cycles of round robin are not longer than this; weights are scaled down to fit.
const LONGEST_CYCLE: u64 = 4096;

/// What a weight of 1 becomes where shares of it count.
const FINENESS: f64 = 100.0;

impl Weights {
    /// `shares` say how much of its weight each endpoint has for now, 0 to 1.
    pub(crate) fn scaled(each: &[u32], shares: &[f64]) -> Self {
        let scaled = each.iter().zip(shares).map(|(weight, share)| f64::from((*weight).max(1)) * share * FINENESS);
        Weights::new(scaled.map(|weight| weight as u32).collect())
    }

    /// Weights of 0 count as 1.
    pub(crate) fn new(each: Vec<u32>) -> Self {
        let each: Vec<u32> = each.into_iter().map(|weight| weight.max(1)).collect();
        let total = each.iter().copied().map(u64::from).sum();
        let equal = each.windows(2).all(|pair| matches!(pair, [a, b] if a == b));
        let turns = if equal { (0..each.len()).collect() } else { cycle(&each) };
        Weights { each, total, equal, turns }
    }

    pub(crate) fn len(&self) -> usize {
        self.each.len()
    }

    /// By chance, whatever the weights (Envoy's RANDOM), without the endpoint `skip`.
    pub(crate) fn uniform(&self, skip: Option<usize>, random: u32) -> Option<usize> {
        let skip = self.allowed_skip(skip);
        let choices = self.len() - usize::from(skip.is_some());
        let place = scale(random, choices as u64) as usize;
        let place = place + usize::from(skip.is_some_and(|skip| place >= skip));
        (place < self.len()).then_some(place)
    }

    /// By chance, in proportion to the weights, without the endpoint `skip`.
    fn weighted(&self, skip: Option<usize>, random: u32) -> Option<usize> {
        if self.equal {
            return self.uniform(skip, random);
        }
        let skip = self.allowed_skip(skip);
        let skipped = skip.and_then(|skip| self.each.get(skip)).copied().unwrap_or(0);
        let mut point = scale(random, self.total - u64::from(skipped));
        self.each.iter().enumerate().filter(|(index, _)| Some(*index) != skip).find_map(|(index, weight)| {
            let weight = u64::from(*weight);
            let hit = point < weight;
            point = point.saturating_sub(weight);
            hit.then_some(index)
        })
    }

    /// In exact turns: the cycle's place number `turn`, and the next one if that is `skip`.
    pub(crate) fn round_robin(&self, skip: Option<usize>, turn: usize) -> Option<usize> {
        let skip = self.allowed_skip(skip);
        let first = turn.checked_rem(self.turns.len())?;
        let (before, after) = self.turns.split_at(first);
        after.iter().chain(before).copied().find(|index| Some(*index) != skip)
    }

    /// The less loaded of two that chance proposes in proportion to the weights; it may propose the same one twice, as
    /// in Envoy, so that a busy endpoint keeps a share. Load is active requests for each unit of weight.
    pub(crate) fn least_request(
        &self,
        skip: Option<usize>,
        active: impl Fn(usize) -> usize,
        random: (u32, u32),
    ) -> Option<usize> {
        let first = self.weighted(skip, random.0)?;
        let second = self.weighted(skip, random.1)?;
        // active(a) / weight(a) against active(b) / weight(b), without dividing.
        let load =
            |index: usize, other: usize| active(index) as u64 * u64::from(self.each.get(other).copied().unwrap_or(1));
        Some(if load(second, first) < load(first, second) { second } else { first })
    }

    /// The only endpoint is never skipped.
    fn allowed_skip(&self, skip: Option<usize>) -> Option<usize> {
        skip.filter(|skip| self.len() > 1 && *skip < self.len())
    }
}

/// A random number scaled to `0..limit`; 0 if the limit is 0.
fn scale(random: u32, limit: u64) -> u64 {
    (u64::from(random) * limit) >> 32
}

/// Smooth weighted round robin (as nginx does it), written down for one whole cycle.
fn cycle(weights: &[u32]) -> Vec<usize> {
    let divisor = weights.iter().copied().fold(0, greatest_common_divisor).max(1);
    let sum: u64 = weights.iter().map(|weight| u64::from(weight / divisor)).sum();
    let scaled: Vec<i64> = weights
        .iter()
        .map(|weight| {
            let weight = u64::from(weight / divisor);
            (if sum > LONGEST_CYCLE { (weight * LONGEST_CYCLE / sum).max(1) } else { weight }) as i64
        })
        .collect();
    let length: i64 = scaled.iter().sum();
    let mut credit = vec![0_i64; scaled.len()];
    let mut turns = Vec::with_capacity(length as usize);
    for _ in 0..length {
        for (credit, weight) in credit.iter_mut().zip(&scaled) {
            *credit += weight;
        }
        // The first of the greatest.
        let Some((index, best)) = credit.iter_mut().enumerate().rev().max_by_key(|(_, credit)| **credit) else { break };
        *best -= length;
        turns.push(index);
    }
    turns
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(weights: &Weights, skip: Option<usize>) -> Vec<usize> {
        let mut counts = vec![0; weights.len()];
        for step in 0..1000_u32 {
            counts[weights.weighted(skip, step * (u32::MAX / 1000)).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn chance_follows_the_weights() {
        let even = shares(&Weights::new(vec![1, 1]), None);
        assert!((499..=501).contains(&even[0]), "{even:?}");
        assert_eq!(shares(&Weights::new(vec![1, 1, 1]), Some(1))[1], 0);
        let weighted = shares(&Weights::new(vec![1, 3]), None);
        assert!((248..=252).contains(&weighted[0]), "{weighted:?}");
        assert_eq!(shares(&Weights::new(vec![1, 3, 4]), Some(0))[0], 0);
        assert_eq!(Weights::new(vec![1, 999]).uniform(None, u32::MAX / 3), Some(0), "weights do not count");
        assert_eq!(shares(&Weights::new(vec![7]), Some(0)), [1000], "the only one is never skipped");
        assert_eq!(Weights::new(vec![]).weighted(None, 5), None);
    }

    #[test]
    fn turns_are_exact() {
        let cases: [(&[u32], Option<usize>, &[usize]); 5] = [
            (&[1, 1, 1], None, &[0, 1, 2, 0, 1, 2]),
            (&[5, 1, 1], None, &[0, 0, 1, 0, 2, 0, 0]),
            (&[100, 300], None, &[1, 0, 1, 1, 1, 0]),
            (&[1, 1], Some(0), &[1, 1, 1]),
            (&[9], Some(0), &[0, 0]),
        ];
        for (weights, skip, expected) in cases {
            let weights = Weights::new(weights.to_vec());
            let got: Vec<_> = (0..expected.len()).filter_map(|turn| weights.round_robin(skip, turn)).collect();
            assert_eq!(got, expected, "{weights:?}");
        }
        assert_eq!(Weights::new(vec![]).round_robin(None, 3), None);
        assert!(Weights::new(vec![1, u32::MAX]).turns.len() <= LONGEST_CYCLE as usize + 1);
    }

    #[test]
    fn shares_of_weights_count_in_turns_and_by_chance() {
        let weights = Weights::scaled(&[2, 1, 0], &[0.1, 0.2, 1.0]);
        assert_eq!(weights.each, [20, 20, 100]);
        assert_eq!(weights.turns.iter().filter(|turn| **turn == 2).count() * 7, weights.turns.len() * 5);
        assert_eq!(Weights::scaled(&[1], &[0.0]).each, [1], "nobody has nothing");
    }

    #[test]
    fn the_less_loaded_of_two_is_chosen() {
        let load = |active: &'static [usize]| move |index: usize| active[index];
        let equal = Weights::new(vec![1, 1]);
        let (low, high) = (0, u32::MAX);
        for random in [(low, high), (high, low)] {
            assert_eq!(equal.least_request(None, load(&[3, 1]), random), Some(1));
            assert_eq!(equal.least_request(None, load(&[0, 1]), random), Some(0));
            assert_eq!(equal.least_request(Some(1), load(&[9, 1]), random), Some(0));
        }
        assert_eq!(equal.least_request(None, load(&[3, 1]), (low, low)), Some(0), "proposed twice");
        let weighted = Weights::new(vec![1, 4]);
        assert_eq!(weighted.least_request(None, load(&[1, 3]), (low, high)), Some(1), "3/4 is less than 1/1");
        assert_eq!(Weights::new(vec![]).least_request(None, |_| 0, (0, 0)), None);
    }
}
