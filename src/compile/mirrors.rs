//! Who gets a copy of a route's requests? (Istio VirtualService.http.mirror, mirrors.)

use super::clusters::{self, Place};
use super::work::Work;
use crate::resource::networking::{Destination, HttpRoute, Percent};
use crate::snapshot::route::{ClusterReference, Mirror};
use crate::snapshot::share::Share;

/// The mirrors that can get a request at all: a cluster that does not exist, or a share of 0, gets none.
pub(super) fn mirrors(work: &mut Work<'_>, route: &HttpRoute, place: Place<'_>) -> Vec<Mirror> {
    let mut mirrors = Vec::new();
    if let Some(destination) = &route.mirror {
        mirrors.extend(mirror(work, destination, share(route.mirror_percentage, route.mirror_percent), place));
    }
    for policy in &route.mirrors {
        if let Some(destination) = &policy.destination {
            mirrors.extend(mirror(work, destination, share(policy.percentage, None), place));
        }
    }
    mirrors
}

/// `mirrorPercentage` comes before the older `mirrorPercent`; all without either.
pub(super) fn share(percentage: Option<Percent>, percent: Option<u32>) -> Share {
    let written = percentage.map(|percentage| percentage.value).or(percent.map(f64::from));
    written.map_or(Share::ALL, Share::from_percent)
}

fn mirror(work: &mut Work<'_>, destination: &Destination, share: Share, place: Place<'_>) -> Option<Mirror> {
    if share.millionths() == 0 {
        return None;
    }
    match clusters::reference(work, destination, place) {
        ClusterReference::Known(cluster) => Some(Mirror { cluster, share }),
        ClusterReference::Missing(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_cut_to_millionths() {
        for (percentage, expected) in
            [(None, 1_000_000), (Some(100.0), 1_000_000), (Some(0.00019), 1), (Some(0.0), 0), (Some(-1.0), 0)]
        {
            assert_eq!(share(percentage.map(|value| Percent { value }), None).millionths(), expected, "{percentage:?}");
        }
    }
}
