//! Is a configuration right? Every finding, and one word on the whole.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::files::Files;
use super::{failed, issuance, sarif, say};
use crate::analysis::View;
use crate::resource::finding::{Finding, Severity};

/// How the findings are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    #[default]
    Text,
    Json,
    /// SARIF 2.1.0, for code scanning.
    Sarif,
}

#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    files: Files,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Warnings, too, make a difference to the exit code.
    #[arg(long)]
    strict: bool,
    /// Take the manifests for a whole cluster of Istio: what is not there does not exist, and what concerns sidecars
    /// alone is told, too.
    #[arg(long)]
    cluster: bool,
}

impl Check {
    pub(super) fn run(self) -> ExitCode {
        let view = if self.cluster { View::Cluster } else { View::Gateway };
        let (findings, issuance) = match self.files.load(view) {
            Ok(loaded) => (loaded.findings, loaded.snapshot.map(|snapshot| snapshot.issuance).unwrap_or_default()),
            Err(error) => return failed(&error, ExitCode::from(2)),
        };
        let (errors, warnings) = (count(&findings, Severity::Error), count(&findings, Severity::Warning));
        match self.format {
            Format::Text => {
                let lines: String = findings.iter().map(|finding| format!("{finding}\n")).collect();
                let certificates = issuance::text(&issuance);
                say(&format!("{lines}{certificates}{}\n", verdict(errors, warnings, count(&findings, Severity::Info))));
            }
            Format::Json => {
                let notes = count(&findings, Severity::Info);
                let mut report =
                    json!({ "errors": errors, "warnings": warnings, "notes": notes, "findings": findings });
                if let Some(report) = report.as_object_mut().filter(|_| issuance.orders_any()) {
                    report.insert("certificates".to_owned(), issuance::json(&issuance));
                }
                say(&format!("{report:#}\n"));
            }
            Format::Sarif => say(&format!("{:#}\n", sarif::report(&findings))),
        }
        exit_code(errors, warnings, self.strict)
    }
}

/// How many of the findings are this severe.
pub(super) fn count(findings: &[Finding], severity: Severity) -> usize {
    findings.iter().filter(|finding| finding.severity == severity).count()
}

fn verdict(errors: usize, warnings: usize, notes: usize) -> String {
    let several = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    let counts = [several(errors, "error"), several(warnings, "warning"), several(notes, "note")].join(", ");
    match (errors, warnings) {
        (0, 0) => format!("all of it can come into force ({counts})"),
        _ => counts,
    }
}

fn exit_code(errors: usize, warnings: usize, strict: bool) -> ExitCode {
    match (errors, warnings) {
        (1.., _) => ExitCode::from(2),
        (0, 1..) if strict => ExitCode::from(1),
        _ => ExitCode::SUCCESS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_follow_the_worst_finding() {
        for (errors, warnings, strict, expected) in [
            (0, 0, true, ExitCode::SUCCESS),
            (0, 3, false, ExitCode::SUCCESS),
            (0, 3, true, ExitCode::from(1)),
            (1, 0, false, ExitCode::from(2)),
            (1, 3, true, ExitCode::from(2)),
        ] {
            assert_eq!(exit_code(errors, warnings, strict), expected, "{errors} {warnings} {strict}");
        }
    }

    #[test]
    fn the_last_line_counts() {
        assert_eq!(verdict(1, 2, 0), "1 error, 2 warnings, 0 notes");
        assert_eq!(verdict(0, 0, 1), "all of it can come into force (0 errors, 0 warnings, 1 note)");
    }
}
