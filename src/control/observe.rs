//! What do log, metrics and access log learn of a reload?

use std::collections::{BTreeMap, BTreeSet};

use super::status::{Outcome, Status, Verdict};
use crate::resource::finding::{Finding, Location, Severity};
use crate::resource::settings::{GatewaySettings, Settings};
use crate::telemetry::Telemetry;
use crate::telemetry::logs::AccessLogs;
use crate::telemetry::metrics::{Metrics, ReloadResult};
use crate::telemetry::requests::SourceLabels;

/// Error findings of one run that are logged; all of them stand in the status.
const LOGGED_FINDINGS: usize = 20;

/// Counts a run.
pub(crate) fn count(metrics: &Metrics, outcome: &Outcome) {
    metrics.reloaded(match outcome.verdict {
        Verdict::Success => ReloadResult::Success,
        Verdict::Partial => ReloadResult::Partial,
        Verdict::Failed => ReloadResult::Failure,
    });
    if outcome.verdict != Verdict::Failed {
        metrics.published(outcome.generation, outcome.began + outcome.duration);
    }
    for severity in [Severity::Info, Severity::Warning, Severity::Error] {
        metrics.found(&severity.to_string(), outcome.count(severity));
    }
    metrics.rejected(&rejected(outcome));
    metrics.certificate_problems(&certificate_problems(outcome));
}

/// What is wrong with certificates, each counted once, however many servers show it.
fn certificate_problems(outcome: &Outcome) -> BTreeMap<&str, usize> {
    let about = outcome.findings.iter().filter(|finding| !finding.kind.is_empty());
    // Messages name the Secret or file; those that do not stand at a file of their own.
    let told: BTreeSet<_> = about.map(|one| (one.kind, one.message.as_str(), place(one))).collect();
    let mut by_kind = BTreeMap::new();
    for (kind, ..) in told {
        *by_kind.entry(kind).or_default() += 1;
    }
    by_kind
}

/// Where a finding stands, if it is about a file.
fn place(finding: &Finding) -> Option<&Location> {
    Some(&finding.location).filter(|_| finding.object.is_empty())
}

/// The number of objects with error findings, by kind.
fn rejected(outcome: &Outcome) -> BTreeMap<&str, usize> {
    let errors = outcome.findings.iter().filter(|finding| finding.severity == Severity::Error);
    let objects: BTreeSet<&str> = errors.map(|finding| finding.object.as_str()).collect();
    let mut by_kind = BTreeMap::new();
    for (kind, _) in objects.iter().filter_map(|object| object.split_once(' ')) {
        *by_kind.entry(kind).or_default() += 1;
    }
    by_kind
}

/// Writes a run to the log.
pub(crate) fn log(outcome: &Outcome, status: &Status) {
    for finding in outcome.findings.iter().filter(|finding| finding.severity == Severity::Error).take(LOGGED_FINDINGS) {
        tracing::warn!(
            code = finding.code,
            object = finding.object,
            location = %finding.location,
            hint = finding.hint,
            "{}", finding.message
        );
    }
    let (errors, warnings) = (outcome.errors(), outcome.warnings());
    let (generation, cause, duration) = (outcome.generation, outcome.cause.as_str(), outcome.duration);
    let result = outcome.verdict.as_str();
    match outcome.verdict {
        Verdict::Failed => {
            tracing::error!(generation, cause, result, ?duration, errors, "reload failed; nothing changed");
        }
        _ if !outcome.changed => {
            tracing::info!(generation, cause, result, ?duration, errors, warnings, "configuration unchanged");
        }
        _ => tracing::info!(
            generation,
            cause,
            result,
            ?duration,
            errors,
            warnings,
            listeners = status.listeners.len(),
            clusters = status.clusters,
            "configuration in force"
        ),
    }
}

/// Turns telemetry to what the settings say, as far as they differ from those before.
pub(crate) fn follow_settings(telemetry: &Telemetry, before: &Settings, now: &Settings) {
    if before.gateway != now.gateway {
        telemetry.metrics.identify(source_labels(&now.gateway));
    }
}

/// Opens the files of the access logs, again if they are open: a rotated file is let go.
pub(crate) fn open_access_logs(telemetry: &Telemetry, logs: &AccessLogs) {
    for (path, error) in telemetry.access_log.open(&logs.paths()) {
        let path = path.display();
        tracing::error!(%path, %error, "an access log cannot be opened; its lines are dropped unless it is open already");
    }
}

/// Who we are in Istio's metrics, by our labels.
pub(crate) fn source_labels(gateway: &GatewaySettings) -> SourceLabels {
    let label = |names: &[&str]| names.iter().find_map(|name| gateway.labels.get(*name)).cloned().unwrap_or_default();
    let canonical = label(&["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]);
    SourceLabels {
        workload: gateway.workload.clone(),
        namespace: gateway.namespace.clone(),
        cluster: gateway.cluster.clone(),
        canonical_service: if canonical.is_empty() { gateway.workload.clone() } else { canonical },
        canonical_revision: label(&["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"]),
        app: label(&["app"]),
        version: label(&["version"]),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::control::status::Cause;
    use crate::resource::codes;

    #[test]
    fn objects_with_errors_are_counted_once() {
        let finding = |code, object: &str| Finding::new(code, Location::default(), "").about(object);
        let findings: Arc<[Finding]> = Arc::new([
            finding(&codes::SCHEMA, "Gateway a/b"),
            finding(&codes::SCHEMA, "Gateway a/b"),
            finding(&codes::SCHEMA, "Gateway a/c"),
            finding(&codes::SCHEMA, ""),
            finding(&codes::UNKNOWN_FIELD, "Service a/s"),
        ]);
        let outcome = Outcome {
            verdict: Verdict::of(&findings),
            changed: true,
            generation: 1,
            cause: Cause::Start,
            began: SystemTime::UNIX_EPOCH,
            duration: Duration::ZERO,
            findings,
        };
        assert_eq!(outcome.verdict, Verdict::Partial);
        assert_eq!(rejected(&outcome), BTreeMap::from([("Gateway", 2)]));
    }

    #[test]
    fn labels_say_who_we_are() {
        let mut gateway = Settings::default().gateway;
        assert_eq!(source_labels(&gateway).canonical_service, "istio-ingressgateway");
        gateway.labels.insert("app".into(), "edge".into());
        gateway.labels.insert("version".into(), "v2".into());
        let labels = source_labels(&gateway);
        assert_eq!((labels.canonical_service.as_str(), labels.canonical_revision.as_str()), ("edge", "v2"));
    }
}
