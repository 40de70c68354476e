//! Do we agree with the case files of `../shared/cases`, and would we notice if we did not?
//!
//! A part of the house that answers for cases has one [`Set`]. Everything else is here: counting, reasons, the negative
//! mode, the report. `CASES` names another folder of that format, `NEGATIVE=1` makes one expectation after the other
//! false and wants each to be noticed.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::conformance::{Case, Falsified, Set, Verdict};

/// The sets in the order of the report, by the name of their folder.
const SETS: [Set; 3] = [
    crate::analysis::conformance::VALIDATION,
    crate::compile::conformance::ROUTING,
    crate::analysis::analyze_conformance::ANALYZE,
];

/// Where the cases are: `CASES`, else `cases` in `SHARED`, else `../shared/cases`.
fn cases() -> PathBuf {
    let named = std::env::var_os("CASES").map(PathBuf::from);
    let shared = || std::env::var_os("SHARED").map(|shared| PathBuf::from(shared).join("cases"));
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    // A relative folder is meant from the project's.
    project.join(named.or_else(shared).unwrap_or_else(|| PathBuf::from("../shared/cases")))
}

/// What came out for one kind of one set.
#[derive(Default)]
struct Count {
    passed: usize,
    failed: Vec<(String, String)>,
    skipped: Vec<(String, String)>,
}

impl Count {
    fn add(&mut self, name: &str, verdict: Verdict) {
        match verdict {
            Verdict::Passed => self.passed += 1,
            Verdict::Failed(why) => self.failed.push((name.to_owned(), why)),
            Verdict::Skipped(why) => self.skipped.push((name.to_owned(), why)),
        }
    }
}

/// `None` if judging ended in a panic, which says nothing of the case and must not stop the others.
fn judged(set: &Set, case: &Case) -> Option<Verdict> {
    catch_unwind(AssertUnwindSafe(|| (set.judge)(case))).ok()
}

fn positive(set: &Set, case: &Case, count: &mut Count) {
    let panicked = || Verdict::Failed("judging it ended in a panic".to_owned());
    count.add(&case.name, judged(set, case).unwrap_or_else(panicked));
}

/// A false expectation passes if it is noticed; a case that fails as it is, or is skipped, cannot be made false.
fn negative(set: &Set, case: &Case, count: &mut Count) {
    if judged(set, case) != Some(Verdict::Passed) {
        return positive(set, case, count);
    }
    let falsified = (set.falsify)(case);
    if falsified.is_empty() {
        count.add(&case.name, Verdict::Failed("the case expects nothing that could be made false".to_owned()));
    }
    for Falsified { what, case } in falsified {
        let verdict = match judged(set, &case) {
            Some(Verdict::Failed(_)) => Verdict::Passed,
            _ => Verdict::Failed("a false expectation was not noticed".to_owned()),
        };
        count.add(&format!("{} {what}", case.name), verdict);
    }
}

fn report(counts: &BTreeMap<(&str, String), Count>) -> Value {
    let list = |list: &[(String, String)]| -> Vec<Value> {
        list.iter().map(|(case, why)| json!({ "case": case, "why": why })).collect()
    };
    let rows = counts.iter().map(|((set, kind), count)| {
        json!({
            "set": set,
            "kind": kind,
            "passed": count.passed,
            "failed": count.failed.len(),
            "skipped": count.skipped.len(),
            "failures": list(&count.failed),
            "skips": list(&count.skipped),
        })
    });
    Value::Array(rows.collect())
}

fn print(counts: &BTreeMap<(&str, String), Count>) -> (usize, usize, usize) {
    for ((set, kind), count) in counts {
        for (case, why) in &count.skipped {
            println!("skipped  {set}/{kind} {case}: {why}");
        }
    }
    for ((set, kind), count) in counts {
        for (case, why) in &count.failed {
            println!("FAILED   {set}/{kind} {case}: {why}");
        }
    }
    println!("{:<12} {:<45} {:>7} {:>7} {:>7}", "set", "kind", "passed", "failed", "skipped");
    let mut sum = (0, 0, 0);
    for ((set, kind), count) in counts {
        let (passed, failed, skipped) = (count.passed, count.failed.len(), count.skipped.len());
        println!("{set:<12} {kind:<45} {passed:>7} {failed:>7} {skipped:>7}");
        sum = (sum.0 + passed, sum.1 + failed, sum.2 + skipped);
    }
    println!("conformance: {} passed, {} failed, {} skipped", sum.0, sum.1, sum.2);
    sum
}

#[test]
fn cases_agree() {
    let (cases, is_negative) = (cases(), std::env::var_os("NEGATIVE").is_some_and(|value| value == "1"));
    let mut counts: BTreeMap<(&str, String), Count> = BTreeMap::new();
    for set in &SETS {
        let folder = cases.join(set.folder);
        if !folder.is_dir() {
            println!("{} is absent: nothing is judged", folder.display());
            continue;
        }
        for case in (set.read)(&folder) {
            let count = counts.entry((set.folder, case.kind.clone())).or_default();
            match is_negative {
                true => negative(set, &case, count),
                false => positive(set, &case, count),
            }
        }
    }
    let (_, failed, _) = print(&counts);
    let file = if is_negative { "conformance-negative.json" } else { "conformance.json" };
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    fs::create_dir_all(&target).unwrap();
    fs::write(target.join(file), serde_json::to_string_pretty(&report(&counts)).unwrap()).unwrap();
    assert_eq!(failed, 0, "cases differ");
}
