//! Which endpoint does a number mean, so that few numbers move when endpoints come and go? Envoy's ring and Maglev.

use crate::snapshot::cluster::Balancing;
use crate::snapshot::hash_policy::hash;

/// The largest ring that is made, whatever the weights ask for.
const LARGEST_RING: f64 = 8_388_608.0;

/// Prepared once for many look-ups.
#[derive(Debug)]
pub(super) enum Table {
    /// Points and the endpoints that they belong to, in order.
    Ring(Vec<(u64, u32)>),
    Maglev(Vec<u32>),
}

impl Table {
    /// The table of endpoints with these names and weights; `None` if the rule hashes nothing or there is no endpoint.
    pub(super) fn new(balancing: Balancing, endpoints: &[(String, f64)]) -> Option<Table> {
        let total: f64 = endpoints.iter().map(|(_, weight)| weight).sum();
        let shares: Vec<(&str, f64)> = endpoints.iter().map(|(name, weight)| (name.as_str(), weight / total)).collect();
        match balancing {
            _ if endpoints.is_empty() => None,
            Balancing::Ring { minimum } => Some(Table::Ring(ring(&shares, minimum))),
            Balancing::Maglev { size } => Some(Table::Maglev(maglev(&shares, size))),
            _ => None,
        }
    }

    /// The endpoint of a number, by index; another one, maybe, for each further `attempt`.
    pub(super) fn find(&self, key: u64, attempt: u32) -> Option<usize> {
        let index = match self {
            Table::Ring(points) => {
                let next = points.partition_point(|(point, _)| *point < key);
                let place = (next + attempt as usize).checked_rem(points.len())?;
                points.get(place)?.1
            }
            Table::Maglev(slots) => {
                let key = if attempt == 0 { key } else { key ^ (!u64::from(attempt)).wrapping_add(1) };
                *slots.get(usize::try_from(key.checked_rem(slots.len() as u64)?).ok()?)?
            }
        };
        Some(index as usize)
    }
}

/// Each endpoint has as many points as its share says, and the smallest a whole number of them.
fn ring(shares: &[(&str, f64)], minimum: u64) -> Vec<(u64, u32)> {
    let smallest = shares.iter().map(|(_, share)| *share).fold(1.0, f64::min);
    let scale = ((smallest * minimum as f64).ceil() / smallest).min(LARGEST_RING);
    let mut points = Vec::with_capacity(scale.ceil() as usize);
    let mut target = 0.0;
    for ((name, share), index) in shares.iter().zip(0..) {
        target += scale * share;
        let mut number = 0_u64;
        while (points.len() as f64) < target {
            points.push((hash(format!("{name}_{number}").as_bytes(), 0), index));
            number += 1;
        }
    }
    points.sort_unstable();
    points
}

/// Endpoints choose slots in turns, each in an order of its own; one of less weight is passed over now and then.
fn maglev(shares: &[(&str, f64)], size: u64) -> Vec<u32> {
    const FREE: u32 = u32::MAX;
    let size = size.max(2);
    let largest = shares.iter().map(|(_, share)| *share).fold(0.0, f64::max);
    struct Chooser {
        index: u32,
        place: u64,
        skip: u64,
        share: f64,
        target: f64,
    }
    let chooser = |((name, share), index): (&(&str, f64), u32)| Chooser {
        index,
        place: hash(name.as_bytes(), 0) % size,
        skip: hash(name.as_bytes(), 1) % (size - 1) + 1,
        share: *share,
        target: 0.0,
    };
    let mut choosers: Vec<Chooser> = shares.iter().zip(0..).map(chooser).collect();
    let mut slots = vec![FREE; usize::try_from(size).unwrap_or_default()];
    let mut left = slots.len();
    let mut turn = 1.0;
    // The endpoint with the largest share chooses in every turn.
    while left > 0 && turn <= size as f64 {
        for chooser in &mut choosers {
            if left == 0 || turn * chooser.share < chooser.target {
                continue;
            }
            chooser.target += largest;
            // Sizes are prime, so every slot is met; one that is not could leave some out.
            for _ in 0..size {
                let place = chooser.place;
                chooser.place = (place + chooser.skip) % size;
                let slot = usize::try_from(place).ok().and_then(|place| slots.get_mut(place));
                if let Some(slot) = slot.filter(|slot| **slot == FREE) {
                    *slot = chooser.index;
                    left -= 1;
                    break;
                }
            }
        }
        turn += 1.0;
    }
    slots.iter().map(|slot| if *slot == FREE { 0 } else { *slot }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RING: Balancing = Balancing::Ring { minimum: 1024 };
    const MAGLEV: Balancing = Balancing::Maglev { size: 65537 };

    fn endpoints(weights: &[f64]) -> Vec<(String, f64)> {
        weights.iter().zip(1..).map(|(weight, number)| (format!("10.0.0.{number}:80"), *weight)).collect()
    }

    fn key(number: u32) -> u64 {
        hash(number.to_string().as_bytes(), 0)
    }

    fn shares(table: &Table, count: usize) -> Vec<u32> {
        let mut counts = vec![0; count];
        (0..10_000).for_each(|number| counts[table.find(key(number), 0).unwrap()] += 1);
        counts
    }

    #[test]
    fn shares_follow_the_weights() {
        for balancing in [RING, MAGLEV] {
            let even = shares(&Table::new(balancing, &endpoints(&[1.0; 4])).unwrap(), 4);
            assert!(even.iter().all(|count| (1900..3200).contains(count)), "{even:?}");
            let uneven = shares(&Table::new(balancing, &endpoints(&[1.0, 3.0])).unwrap(), 2);
            assert!((2000..3000).contains(&uneven[0]), "{uneven:?}");
            assert!(Table::new(balancing, &[]).is_none());
        }
        assert!(Table::new(Balancing::Random, &endpoints(&[1.0])).is_none());
        let Some(Table::Ring(points)) = Table::new(Balancing::Ring { minimum: 10 }, &endpoints(&[1.0, 2.0])) else {
            panic!("a ring");
        };
        assert_eq!(points.len(), 12, "four points for the smallest share");
    }

    #[test]
    fn few_numbers_move_when_an_endpoint_goes() {
        for balancing in [RING, MAGLEV] {
            let five = endpoints(&[1.0; 5]);
            let before = Table::new(balancing, &five).unwrap();
            let after = Table::new(balancing, &five[..4]).unwrap();
            let stays = |number: &u32| {
                let old = before.find(key(*number), 0).unwrap();
                old == 4 || after.find(key(*number), 0) == Some(old)
            };
            let stayed = (0..10_000).filter(stays).count();
            // The ring has more points for each endpoint then, which takes some numbers from their neighbours.
            assert!(stayed > 8_800, "{balancing}: {stayed}");
            assert!((1..9).any(|attempt| before.find(key(1), attempt) != before.find(key(1), 0)), "{balancing}");
        }
    }
}
