//! How do two host names of a configuration relate? Istio's host algebra (pkg/config/host).
//!
//! A wildcard is a name whose first byte is `*`. Comparison is by bytes and case-sensitive; callers lower-case.

use std::cmp::Ordering;

/// Whether the name begins with `*`.
pub(crate) fn is_wildcard(name: &str) -> bool {
    name.starts_with('*')
}

/// Whether some concrete name could be meant by both (symmetric).
pub(crate) fn matches(a: &str, b: &str) -> bool {
    match (a.strip_prefix('*'), b.strip_prefix('*')) {
        (None, None) => a == b,
        (Some(tail), None) => b.ends_with(tail),
        (None, Some(tail)) => a.ends_with(tail),
        (Some(x), Some(y)) => x.ends_with(y) || y.ends_with(x),
    }
}

/// Whether every name meant by `a` is meant by `b`.
pub(crate) fn is_subset_of(a: &str, b: &str) -> bool {
    match (a.strip_prefix('*'), b.strip_prefix('*')) {
        (_, None) => a == b,
        (None, Some(tail)) => a.ends_with(tail),
        (Some(x), Some(tail)) => x.ends_with(tail),
    }
}

/// Most specific first: names before wildcards, longer before shorter, then alphabetic.
pub(crate) fn by_specificity(a: &str, b: &str) -> Ordering {
    is_wildcard(a).cmp(&is_wildcard(b)).then_with(|| b.len().cmp(&a.len())).then_with(|| a.cmp(b))
}

/// The narrower name of every pair that meets, in first-seen order, without repetition.
pub(crate) fn intersection<'a>(left: &[&'a str], right: &[&'a str]) -> Vec<&'a str> {
    let mut common = Vec::new();
    for a in left {
        for b in right {
            let narrower = if is_subset_of(a, b) {
                a
            } else if is_subset_of(b, a) {
                b
            } else {
                continue;
            };
            if !common.contains(narrower) {
                common.push(*narrower);
            }
        }
    }
    common
}

/// A short name completed by the namespace of the object that contains it (`reviews` in `default` becomes
/// `reviews.default.svc.cluster.local`); names with a dot, wildcards and IPv6 addresses stay as they are.
pub(crate) fn fully_qualified(name: &str, namespace: &str, cluster_domain: &str) -> String {
    if name.contains(['.', ':']) || is_wildcard(name) {
        name.to_owned()
    } else {
        format!("{name}.{namespace}.svc.{cluster_domain}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAME: &str = "\\*?([.-]?[ab]{1,2}){0,3}";

    proptest! {
        #[test]
        fn subsets_meet_and_the_order_is_total(a in NAME, b in NAME, c in NAME) {
            prop_assert_eq!(matches(&a, &b), matches(&b, &a));
            prop_assert!(!is_subset_of(&a, &b) || matches(&a, &b));
            prop_assert!(!(is_subset_of(&a, &b) && is_subset_of(&b, &c)) || is_subset_of(&a, &c));
            // A narrower name never comes behind a wider one.
            prop_assert!(a == b || !is_subset_of(&a, &b) || by_specificity(&a, &b) == Ordering::Less);
            for common in intersection(&[&a, &b], &[&c]) {
                prop_assert!(is_subset_of(common, &c) && (is_subset_of(common, &a) || is_subset_of(common, &b)));
            }
        }
    }

    #[test]
    fn the_tail_of_a_wildcard_is_plain_text() {
        assert!(matches("*foo.com", "barfoo.com"));
        assert!(!matches("*.foo.com", "foo.com"));
        assert!(matches("*.foo.com", "*.bar.foo.com"));
        assert!(is_subset_of("*.bar.foo.com", "*.foo.com"));
        assert!(!is_subset_of("*.foo.com", "a.foo.com"));
    }

    #[test]
    fn an_intersection_keeps_the_narrower_names() {
        assert_eq!(intersection(&["*", "a.com"], &["*.b.com", "a.com"]), ["*.b.com", "a.com"]);
    }

    #[test]
    fn names_sort_from_the_most_specific() {
        let mut names = ["*", "*.foo.com", "b.com", "long.foo.com", "a.com"];
        names.sort_by(|a, b| by_specificity(a, b));
        assert_eq!(names, ["long.foo.com", "a.com", "b.com", "*.foo.com", "*"]);
    }

    #[test]
    fn only_bare_names_are_completed() {
        assert_eq!(fully_qualified("reviews", "default", "cluster.local"), "reviews.default.svc.cluster.local");
        assert_eq!(fully_qualified("reviews.prod", "default", "cluster.local"), "reviews.prod");
    }
}
