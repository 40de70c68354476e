//! Which rules of a long list need to be asked for a path?

use std::collections::HashMap;

use super::matcher::PathMatch;

/// Hosts with fewer rules are walked, by their hints.
const WORTH_IT: usize = 12;
/// Lists that one path can touch at once; a path that touches more is answered by walking all rules.
const MOST_LISTS: usize = 32;

/// Finds the rules whose path condition may hold, without walking them all, or without touching most of them.
#[derive(Debug)]
pub(crate) enum PathIndex {
    /// One for each rule, side by side: most rules are passed over without being read from memory.
    Few(Box<[Hint]>),
    Many(Box<Texts>),
}

/// The rules of a long list by the texts of their conditions.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    exact: HashMap<Box<[u8]>, Vec<u32>>,
    /// By lower-case text.
    exact_any_case: HashMap<Box<[u8]>, Vec<u32>>,
    prefixes: PrefixTree,
    /// By lower-case text.
    prefixes_any_case: PrefixTree,
}

impl Default for PathIndex {
    fn default() -> Self {
        PathIndex::Few(Box::default())
    }
}

impl PathIndex {
    /// For rules in the order of precedence.
    pub(crate) fn new<'a>(paths: impl ExactSizeIterator<Item = &'a PathMatch>) -> PathIndex {
        match paths.len() < WORTH_IT {
            true => PathIndex::Few(paths.map(Hint::new).collect()),
            false => PathIndex::Many(Box::new(Texts::new(paths))),
        }
    }

    /// The first rule, in order, for which `holds` is true. `holds` is asked for a superset of the rules whose path
    /// condition holds; `count` is the number of all rules.
    pub(crate) fn first(&self, path: &str, count: usize, mut holds: impl FnMut(usize) -> bool) -> Option<usize> {
        match self {
            PathIndex::Few(hints) => {
                let beginning = beginning(path.as_bytes());
                let mut hints = hints.iter().enumerate();
                hints.find(|(number, hint)| hint.may_hold(beginning, path.len()) && holds(*number)).map(|(n, _)| n)
            }
            PathIndex::Many(texts) => texts.first(path, count, holds),
        }
    }
}

/// What a path has at least to be for a condition to hold: its first bytes and its length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hint {
    beginning: u64,
    /// The bytes of `beginning` that count.
    mask: u64,
    length: u32,
    /// Whether the path has to be as long, or at least as long.
    exact: bool,
}

impl Hint {
    fn new(path: &PathMatch) -> Hint {
        let (text, counts, exact) = match path {
            PathMatch::Any => (&b""[..], true, false),
            PathMatch::Regex(pattern) => (pattern.literal_prefix(), true, false),
            PathMatch::Exact { text, ignore_case } => (text.as_bytes(), !ignore_case, true),
            PathMatch::Prefix { text, ignore_case } => (text.as_bytes(), !ignore_case, false),
        };
        let known = if counts { text.len().min(8) } else { 0 };
        let mask = u64::MAX.checked_shr(64 - 8 * known as u32).unwrap_or(0);
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        Hint { beginning: beginning(text) & mask, mask, length, exact }
    }

    fn may_hold(&self, beginning: u64, length: usize) -> bool {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        beginning & self.mask == self.beginning
            && if self.exact { length == self.length } else { length >= self.length }
    }
}

/// The first eight bytes, those that are missing as 0.
fn beginning(text: &[u8]) -> u64 {
    match text.first_chunk::<8>() {
        Some(bytes) => u64::from_le_bytes(*bytes),
        None => text.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
    }
}

impl Texts {
    fn new<'a>(paths: impl Iterator<Item = &'a PathMatch>) -> Texts {
        let mut index = Texts::default();
        let mut prefixes: HashMap<&[u8], Vec<u32>> = HashMap::new();
        let mut prefixes_any_case: HashMap<&[u8], Vec<u32>> = HashMap::new();
        for (number, path) in (0u32..).zip(paths) {
            match path {
                PathMatch::Any => prefixes.entry(b"").or_default().push(number),
                PathMatch::Regex(pattern) => prefixes.entry(pattern.literal_prefix()).or_default().push(number),
                PathMatch::Exact { text, ignore_case: false } => {
                    index.exact.entry(text.as_bytes().into()).or_default().push(number)
                }
                PathMatch::Exact { text, ignore_case: true } => {
                    index.exact_any_case.entry(text.as_bytes().into()).or_default().push(number)
                }
                PathMatch::Prefix { text, ignore_case: false } => {
                    prefixes.entry(text.as_bytes()).or_default().push(number)
                }
                PathMatch::Prefix { text, ignore_case: true } => {
                    prefixes_any_case.entry(text.as_bytes()).or_default().push(number)
                }
            }
        }
        index.prefixes = PrefixTree::new(prefixes);
        index.prefixes_any_case = PrefixTree::new(prefixes_any_case);
        index
    }

    fn first(&self, path: &str, count: usize, mut holds: impl FnMut(usize) -> bool) -> Option<usize> {
        let mut lists = Lists::default();
        lists.gather(self.exact.get(path.as_bytes()));
        self.prefixes.gather(path.as_bytes(), &mut lists);
        if !self.exact_any_case.is_empty() || !self.prefixes_any_case.is_empty() {
            let lower = path.to_ascii_lowercase();
            lists.gather(self.exact_any_case.get(lower.as_bytes()));
            self.prefixes_any_case.gather(lower.as_bytes(), &mut lists);
        }
        match lists.overflow {
            true => (0..count).find(|number| holds(*number)),
            false => lists.first(holds),
        }
    }
}

/// Texts in order, each with the longest other text that it begins with.
#[derive(Debug, Default)]
struct PrefixTree {
    nodes: Vec<PrefixNode>,
}

#[derive(Debug)]
struct PrefixNode {
    text: Box<[u8]>,
    parent: Option<usize>,
    rules: Vec<u32>,
}

impl PrefixTree {
    fn new(prefixes: HashMap<&[u8], Vec<u32>>) -> PrefixTree {
        let mut sorted: Vec<_> = prefixes.into_iter().collect();
        sorted.sort_unstable();
        let mut nodes: Vec<PrefixNode> = Vec::with_capacity(sorted.len());
        for (text, rules) in sorted {
            let parent = nodes.len().checked_sub(1).and_then(|last| closest(&nodes, last, text));
            nodes.push(PrefixNode { text: text.into(), parent, rules });
        }
        PrefixTree { nodes }
    }

    fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Adds the lists of every text that `path` begins with. The longest of them is the last text not above `path`,
    /// or one that this begins with.
    fn gather<'a>(&'a self, path: &[u8], lists: &mut Lists<'a>) {
        let above = self.nodes.partition_point(|node| *node.text <= *path);
        let mut found = above.checked_sub(1).and_then(|last| closest(&self.nodes, last, path));
        while let Some(node) = found.and_then(|number| self.nodes.get(number)) {
            lists.gather(Some(&node.rules));
            found = node.parent;
        }
    }
}

/// `from` or the nearest of its parents that `text` begins with.
fn closest(nodes: &[PrefixNode], from: usize, text: &[u8]) -> Option<usize> {
    let mut number = from;
    loop {
        let node = nodes.get(number)?;
        if text.starts_with(&node.text) {
            return Some(number);
        }
        number = node.parent?;
    }
}

/// Lists of rule numbers, each in rising order.
#[derive(Default)]
struct Lists<'a> {
    lists: [&'a [u32]; MOST_LISTS],
    count: usize,
    overflow: bool,
}

impl<'a> Lists<'a> {
    fn gather(&mut self, list: Option<&'a Vec<u32>>) {
        let Some(list) = list else { return };
        match self.lists.get_mut(self.count) {
            Some(place) => {
                *place = list;
                self.count += 1;
            }
            None => self.overflow = true,
        }
    }

    /// The lowest number of all lists for which `holds` is true.
    fn first(mut self, mut holds: impl FnMut(usize) -> bool) -> Option<usize> {
        let lists = self.lists.get_mut(..self.count)?;
        loop {
            let lowest = lists.iter_mut().filter(|list| !list.is_empty()).min_by_key(|list| list.first().copied())?;
            let (number, rest) = lowest.split_first()?;
            let number = usize::try_from(*number).ok()?;
            *lowest = rest;
            if holds(number) {
                return Some(number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::pattern::Pattern;
    use super::*;

    fn path_match() -> impl Strategy<Value = PathMatch> {
        let text = "/[abAB/]{0,10}";
        prop_oneof![
            Just(PathMatch::Any),
            Just(PathMatch::Prefix { text: "".into(), ignore_case: false }),
            (text, any::<bool>())
                .prop_map(|(text, ignore_case)| PathMatch::Exact { text: fold(text, ignore_case), ignore_case }),
            (text, any::<bool>())
                .prop_map(|(text, ignore_case)| PathMatch::Prefix { text: fold(text, ignore_case), ignore_case }),
            (text, "[ab]").prop_map(|(text, tail)| {
                PathMatch::Regex(Arc::new(Pattern::whole(&format!("{text}(x|{tail}.*)")).unwrap()))
            }),
        ]
    }

    fn fold(text: String, ignore_case: bool) -> Box<str> {
        if ignore_case { text.to_ascii_lowercase().into() } else { text.into() }
    }

    proptest! {
        #[test]
        fn the_index_agrees_with_a_walk(
            rules in prop_oneof![
                prop::collection::vec((path_match(), any::<bool>()), 0..WORTH_IT),
                prop::collection::vec((path_match(), any::<bool>()), 0..60),
            ],
            paths in prop::collection::vec("/[abAB/x]{0,12}", 8),
        ) {
            let index = PathIndex::new(rules.iter().map(|(path, _)| path));
            for path in paths {
                let holds = |number: usize| rules[number].1 && rules[number].0.holds(&path);
                let walked = (0..rules.len()).find(|number| holds(*number));
                prop_assert_eq!(index.first(&path, rules.len(), holds), walked, "{}", path);
            }
        }
    }

    #[test]
    fn few_of_many_rules_are_asked() {
        let rules: Vec<_> = (0..10_000)
            .map(|n| PathMatch::Prefix { text: format!("/service-{n:05}/").into(), ignore_case: false })
            .chain([PathMatch::Any])
            .collect();
        let index = PathIndex::new(rules.iter());
        let mut asked = Vec::new();
        let found = index.first("/service-04711/x", rules.len(), |number| {
            asked.push(number);
            number == 10_000
        });
        assert_eq!((found, asked), (Some(10_000), vec![4711, 10_000]));
    }
}
