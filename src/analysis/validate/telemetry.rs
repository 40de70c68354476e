//! Does a Telemetry keep the rules of its kind? (Istio ValidateTelemetry)

use cel::Program;

use super::faults::{At, Faults};
use super::names::check_duration;
use super::selection::{Attachment, check_attachment};
use crate::resource::telemetry::{CustomTag, Metrics, MetricsOverride, ProviderRef, TagOperation, Telemetry, Tracing};

/// Checks the whole object.
pub(super) fn check(telemetry: &Telemetry, faults: &mut Faults) {
    let spec = At::root("spec");
    let attachment = Attachment {
        selector: telemetry.selector.as_ref(),
        target_ref: telemetry.target_ref.as_ref(),
        target_refs: &telemetry.target_refs,
    };
    check_attachment(&attachment, spec, faults);
    if telemetry.tracing.len() > 1 {
        faults.warn(spec.field("tracing"), "of several entries the first alone is used");
    }
    for (index, tracing) in telemetry.tracing.iter().enumerate() {
        check_tracing(tracing, spec.item("tracing", index), faults);
    }
    for (index, metrics) in telemetry.metrics.iter().enumerate() {
        check_metrics(metrics, spec.item("metrics", index), faults);
    }
    for (index, logging) in telemetry.access_logging.iter().enumerate() {
        let at = spec.item("accessLogging", index);
        check_providers(&logging.providers, at, faults);
        if let Some(filter) = &logging.filter {
            let at = at.field("filter");
            faults.check(at.field("expression"), check_expression(&filter.expression));
        }
    }
}

/// The syntax of CEL; whether its attributes exist shows when it is evaluated.
fn check_expression(text: &str) -> Result<(), String> {
    Program::compile(text).map(|_| ()).map_err(|error| format!("`{text}` is no expression of CEL: {error}"))
}

fn check_providers(providers: &[ProviderRef], at: At<'_>, faults: &mut Faults) {
    for (index, provider) in providers.iter().enumerate() {
        let at = at.item("providers", index);
        faults.require(!provider.name.is_empty(), at.field("name"), "the provider has to be named");
    }
}

fn check_tracing(tracing: &Tracing, at: At<'_>, faults: &mut Faults) {
    check_providers(&tracing.providers, at, faults);
    if tracing.providers.len() > 1 {
        faults.warn(at.field("providers"), "of several providers the first alone is used");
    }
    let percent = tracing.random_sampling_percentage.is_none_or(|percent| (0.0..=100.0).contains(&percent));
    faults.require(percent, at.field("randomSamplingPercentage"), "a percentage is between 0 and 100");
    for (name, tag) in &tracing.custom_tags {
        let at = at.key("customTags", name);
        faults.require(!name.is_empty(), at, "a tag needs a name");
        check_tag(tag, at, faults);
    }
}

fn check_tag(tag: &CustomTag, at: At<'_>, faults: &mut Faults) {
    let ways = [tag.literal.is_some(), tag.environment.is_some(), tag.header.is_some(), tag.formatter.is_some()];
    let one = ways.iter().filter(|given| **given).count() <= 1;
    faults.require(one, at, "literal, environment, header and formatter exclude each other");
    for (field, literal) in [("literal", &tag.literal), ("formatter", &tag.formatter)] {
        let good = literal.as_ref().is_none_or(|literal| !literal.value.is_empty());
        faults.require(good, at.field(field), "the value cannot be empty");
    }
    for (field, named) in [("environment", &tag.environment), ("header", &tag.header)] {
        let good = named.as_ref().is_none_or(|named| !named.name.is_empty());
        faults.require(good, at.field(field), "the name cannot be empty");
    }
}

fn check_metrics(metrics: &Metrics, at: At<'_>, faults: &mut Faults) {
    check_providers(&metrics.providers, at, faults);
    if let Some(interval) = metrics.reporting_interval {
        faults.check(at.field("reportingInterval"), check_duration(interval));
    }
    for (index, entry) in metrics.overrides.iter().enumerate() {
        check_override(entry, at.item("overrides", index), faults);
    }
}

fn check_override(entry: &MetricsOverride, at: At<'_>, faults: &mut Faults) {
    if let Some(matches) = &entry.matches {
        let at = at.field("match");
        let both = matches.metric.is_some() && matches.custom_metric.is_some();
        faults.require(!both, at, "metric and customMetric exclude each other");
        let named = matches.custom_metric.as_ref().is_none_or(|name| !name.is_empty());
        faults.require(named, at.field("customMetric"), "the metric has to be named");
    }
    for (name, tag) in &entry.tag_overrides {
        let at = at.key("tagOverrides", name);
        faults.require(!name.is_empty(), at, "a tag needs a name");
        let at = at.field("value");
        match tag.operation {
            TagOperation::Upsert => faults.require(!tag.value.is_empty(), at, "UPSERT needs a value"),
            TagOperation::Remove => faults.require(tag.value.is_empty(), at, "REMOVE has no value"),
        }
    }
}
