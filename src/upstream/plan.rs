//! Which endpoints share the requests now, and how? By health, and by how near and how favoured their places are (Envoy's
//! priorities and locality weights). Pure.

use std::collections::BTreeMap;

/// A level of which this share is healthy (100 / 140) still takes everything.
const OVERPROVISIONING: u64 = 140;
/// What the shares of a level are counted in.
const SCALE: f64 = 10_000.0;

/// What is known of one endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    /// Less is nearer.
    pub level: u32,
    /// Its index among the shares of places.
    pub place: usize,
    pub healthy: bool,
}

/// Endpoints that one choice is made among.
#[derive(Debug, PartialEq)]
pub(super) struct Planned {
    /// How many of all requests they get, in proportion to others.
    pub share: u64,
    /// Indices.
    pub members: Vec<usize>,
}

/// The endpoints that are used, in groups. `shares` are the weights of places, none if all are alike; under `panic`
/// percent of health the ill ones are used as well.
pub(super) fn plan(members: &[Member], shares: &[u64], panic: u32) -> Vec<Planned> {
    let mut levels: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (index, member) in members.iter().enumerate() {
        if shares.is_empty() || shares.get(member.place).is_some_and(|share| *share > 0) {
            levels.entry(member.level).or_default().push(index);
        }
    }
    let is_healthy = |index: &usize| members.get(*index).is_some_and(|member| member.healthy);
    let healths: Vec<u64> = levels
        .values()
        .map(|level| {
            (OVERPROVISIONING * level.iter().filter(|index| is_healthy(index)).count() as u64 / level.len() as u64)
                .min(100)
        })
        .collect();
    let total = healths.iter().sum::<u64>().min(100);
    if total == 0 {
        let all: Vec<usize> = levels.into_values().flatten().filter(|_| panic > 0).collect();
        return if all.is_empty() { Vec::new() } else { vec![Planned { share: 1, members: all }] };
    }
    let mut left = 100;
    let mut planned = Vec::new();
    for (level, health) in levels.into_values().zip(healths) {
        let load = (health * 100).div_ceil(total).min(left);
        left -= load;
        if load == 0 {
            continue;
        }
        let healthy = level.iter().filter(|index| is_healthy(index)).count();
        let panics = total < 100 && healthy * 100 < level.len() * panic as usize;
        let used = |index: &usize| panics || is_healthy(index);
        match shares {
            [] => planned.push(Planned { share: load, members: level.into_iter().filter(used).collect() }),
            shares => by_place(members, &level, shares, load, used, &mut planned),
        }
    }
    planned
}

/// The members of one level by place: a place of which much is ill has less than its share.
fn by_place(
    members: &[Member],
    level: &[usize],
    shares: &[u64],
    load: u64,
    used: impl Fn(&usize) -> bool,
    planned: &mut Vec<Planned>,
) {
    let mut places: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for index in level {
        places.entry(members.get(*index).map_or(0, |member| member.place)).or_default().push(*index);
    }
    let effective = |place: usize, all: &[usize]| {
        let able = all.iter().filter(|index| used(index)).count() as f64 / all.len() as f64;
        let share = shares.get(place).copied().unwrap_or_default() as f64;
        share * (able * OVERPROVISIONING as f64 / 100.0).min(1.0)
    };
    let sum: f64 = places.iter().map(|(place, all)| effective(*place, all)).sum();
    for (place, all) in places {
        let share = (load as f64 * SCALE * effective(place, &all) / sum) as u64;
        let members: Vec<usize> = all.into_iter().filter(&used).collect();
        if share > 0 && !members.is_empty() {
            planned.push(Planned { share, members });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `level place healthy`
    fn shown(members: &[(u32, usize, bool)], shares: &[u64], panic: u32) -> Vec<(u64, Vec<usize>)> {
        let member =
            |(level, place, healthy): &(u32, usize, bool)| Member { level: *level, place: *place, healthy: *healthy };
        let members: Vec<Member> = members.iter().map(member).collect();
        plan(&members, shares, panic).into_iter().map(|one| (one.share, one.members)).collect()
    }

    #[test]
    fn health_decides_who_is_used() {
        let (up, down) = ((0, 0, true), (0, 0, false));
        assert_eq!(shown(&[], &[], 0), []);
        assert_eq!(shown(&[up, up], &[], 0), [(100, vec![0, 1])]);
        assert_eq!(shown(&[up, down], &[], 0), [(100, vec![0])]);
        assert_eq!(shown(&[down, down], &[], 0), []);
        assert_eq!(shown(&[down, down], &[], 50), [(1, vec![0, 1])]);
        assert_eq!(shown(&[up, down, down], &[], 50), [(100, vec![0, 1, 2])]);
        assert_eq!(shown(&[up, down], &[], 50), [(100, vec![0])]);
    }

    #[test]
    fn the_nearest_level_is_used_while_it_is_healthy() {
        let near = |healthy| (0, 0, healthy);
        let far = (2, 0, true);
        assert_eq!(shown(&[far, near(true)], &[], 0), [(100, vec![1])]);
        assert_eq!(shown(&[far, near(false)], &[], 0), [(100, vec![0])]);
        assert_eq!(shown(&[far, near(true), near(false)], &[], 0), [(70, vec![1]), (30, vec![0])]);
    }

    #[test]
    fn places_have_their_shares() {
        let at = |place, healthy| (0, place, healthy);
        assert_eq!(shown(&[at(0, true), at(1, true)], &[30, 70], 0), [(300_000, vec![0]), (700_000, vec![1])]);
        assert_eq!(shown(&[at(0, true), at(1, true)], &[0, 70], 0), [(1_000_000, vec![1])]);
        assert_eq!(shown(&[at(0, false), at(1, true)], &[30, 70], 0), [(1_000_000, vec![1])]);
        assert_eq!(shown(&[at(0, true), at(1, true)], &[0, 0], 0), []);
    }
}
