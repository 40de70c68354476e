//! Which access logs does this gateway write? MeshConfig and the Telemetry objects that are for it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::problems::Problems;
use crate::resource::ResourceSet;
use crate::resource::codes::{self, Code};
use crate::resource::finding::{Finding, Location};
use crate::resource::meta::Object;
use crate::resource::settings::{
    AccessLogFormat, AccessLogSettings, ExtensionProvider, FileLog, FileLogFormat, ProviderService, Settings,
};
use crate::resource::telemetry::{Telemetry, WorkloadMode};
use crate::telemetry::filter::Filter;
use crate::telemetry::format::LogFormat;
use crate::telemetry::logs::{AccessLogs, Log};

/// Istio's own provider, which follows accessLogFormat and accessLogEncoding.
const BUILT_IN: &str = "envoy";

/// Makes the logs. What is wrong with a format or a filter is told; Istio's default format, or no filter, is in force.
pub(super) fn build(resources: &ResourceSet, settings: &Settings, problems: &mut Problems) -> AccessLogs {
    let telemetries = ours(resources, settings);
    let written = &settings.access_log;
    let mut logs = Vec::new();
    let chosen = choose(&telemetries, &written.default_providers);
    let mut served = false;
    for (name, choice) in &chosen {
        let Some(provider) = provider(name, written) else {
            problems.provider(choice, format!("the provider `{name}` does not exist in the mesh"));
            continue;
        };
        let file = match &provider {
            Known::BuiltIn => None,
            Known::Named(ExtensionProvider { service: ProviderService::File(file), .. }) => Some(file),
            Known::Named(ExtensionProvider { service: ProviderService::Other(kind), .. }) => {
                // Istio, too, knows this provider, so its own accessLogFile is no fallback.
                served = true;
                problems.provider(choice, format!("the provider `{name}` is of kind {kind}, which is not served"));
                continue;
            }
        };
        served = true;
        if choice.disabled {
            continue;
        }
        let (path, format) = match file {
            Some(file) if !is_plain_built_in(name, file) => (&*file.path, file_format(file, problems)),
            Some(file) => (&*file.path, default_format(written, problems)),
            None => ("", default_format(written, problems)),
        };
        logs.push(Log { path: target(path, written), format, filter: filter(choice, problems) });
    }
    // As Istio: where no Telemetry names a provider that it has, accessLogFile is what counts.
    if !served && let Some(path) = &written.path {
        let format = default_format(written, problems);
        logs.push(Log { path: resolved(path, written), format, filter: None });
    }
    AccessLogs::new(logs, written.listeners)
}

/// The Telemetry objects that are for this gateway, the widest first.
fn ours<'a>(resources: &'a ResourceSet, settings: &Settings) -> Vec<&'a Object<Telemetry>> {
    let gateway = &settings.gateway;
    let mut all: Vec<&Object<Telemetry>> = resources.telemetries.iter().map(|object| &**object).collect();
    all.sort_by(|a, b| Object::by_age(a, b));
    let is_wide = |object: &Object<Telemetry>| {
        let spec = &object.spec;
        let selects = spec.selector.as_ref().is_some_and(|selector| !selector.match_labels.is_empty());
        !selects && spec.target_ref.is_none() && spec.target_refs.is_empty()
    };
    let wide = |namespace: &str| all.iter().find(|object| object.meta.namespace == namespace && is_wide(object));
    let mut ours: Vec<&Object<Telemetry>> = wide(&gateway.root_namespace).into_iter().copied().collect();
    if gateway.namespace != gateway.root_namespace {
        ours.extend(wide(&gateway.namespace));
    }
    ours.extend(all.iter().filter(|object| {
        let selector = object.spec.selector.as_ref().map(|selector| &selector.match_labels);
        object.meta.namespace == gateway.namespace
            && selector.is_some_and(|labels| {
                !labels.is_empty() && labels.iter().all(|(name, value)| gateway.labels.get(name) == Some(value))
            })
    }));
    ours.retain(|object| !object.spec.access_logging.is_empty());
    ours
}

/// What is to become of a provider.
#[derive(Debug, Default)]
struct Choice<'a> {
    disabled: bool,
    /// The entry that says so; `None` for a default provider.
    from: Option<(&'a Object<Telemetry>, usize)>,
    /// The expression, and the entry that it stands in.
    filter: Option<(&'a str, &'a Object<Telemetry>, usize)>,
}

/// The providers that are used or turned off, by name (Istio's `mergeLogs`).
fn choose<'a>(telemetries: &[&'a Object<Telemetry>], defaults: &'a [String]) -> Vec<(&'a str, Choice<'a>)> {
    let mut chosen: Vec<(&str, Choice)> = Vec::new();
    let mut set = |name: &'a str, choice: Choice<'a>| match chosen.iter_mut().find(|(known, _)| *known == name) {
        Some((_, known)) => *known = choice,
        None => chosen.push((name, choice)),
    };
    if telemetries.is_empty() {
        defaults.iter().for_each(|name| set(name, Choice::default()));
    }
    let defaults: Vec<&str> = defaults.iter().map(String::as_str).collect();
    let names = |object: &'a Object<Telemetry>, entry: usize| -> Vec<&'a str> {
        let entry = object.spec.access_logging.get(entry);
        entry.into_iter().flat_map(|entry| &entry.providers).map(|provider| provider.name.as_str()).collect()
    };
    // A gateway is a client.
    let applies = |entry: &crate::resource::telemetry::AccessLogging| {
        entry.matches.is_none_or(|selector| selector.mode != WorkloadMode::Server)
    };
    // Which providers are in scope is said by the narrowest object that names any; a filter by the last that names it.
    let (mut in_scope, mut filters) = (defaults.clone(), Vec::new());
    for object in telemetries {
        let mut named = Vec::new();
        for (index, entry) in object.spec.access_logging.iter().enumerate().filter(|(_, entry)| applies(entry)) {
            for name in names(object, index) {
                named.push(name);
                filters.retain(|(known, _)| *known != name);
                let filter = entry.filter.as_ref().map(|filter| (filter.expression.as_str(), *object, index));
                filters.push((name, filter));
            }
        }
        if !named.is_empty() {
            in_scope = named;
        }
    }
    let mut inherited = defaults;
    for object in telemetries {
        for (index, entry) in object.spec.access_logging.iter().enumerate() {
            let named = names(object, index);
            if !named.is_empty() {
                inherited = named;
            }
            if !applies(entry) {
                continue;
            }
            for name in inherited.iter().filter(|name| in_scope.contains(name)) {
                let filter = filters.iter().find(|(known, _)| known == name).and_then(|(_, filter)| *filter);
                set(name, Choice { disabled: entry.disabled == Some(true), from: Some((object, index)), filter });
            }
        }
    }
    chosen.sort_by_key(|(name, _)| *name);
    chosen
}

enum Known<'a> {
    BuiltIn,
    Named(&'a ExtensionProvider),
}

fn provider<'a>(name: &str, written: &'a AccessLogSettings) -> Option<Known<'a>> {
    let named = written.providers.iter().find(|provider| provider.name == name).map(Known::Named);
    named.or_else(|| (name == BUILT_IN).then_some(Known::BuiltIn))
}

/// Whether the mesh names Istio's own provider again without saying how it writes.
fn is_plain_built_in(name: &str, file: &FileLog) -> bool {
    name == BUILT_IN && file.format == FileLogFormat::Default && !file.omit_empty_values
}

fn file_format(file: &FileLog, problems: &mut Problems) -> LogFormat {
    let omit = file.omit_empty_values;
    let format = match &file.format {
        FileLogFormat::Default => LogFormat::text("", omit),
        FileLogFormat::Text(text) => LogFormat::text(text, omit),
        FileLogFormat::Labels(labels) => LogFormat::json(labels, omit),
    };
    format.unwrap_or_else(|fault| {
        problems.format(&file.place, &fault);
        usual(matches!(file.format, FileLogFormat::Labels(_)))
    })
}

/// What accessLogEncoding and accessLogFormat say.
fn default_format(written: &AccessLogSettings, problems: &mut Problems) -> LogFormat {
    let json = written.format == AccessLogFormat::Json;
    if written.template.is_empty() {
        return usual(json);
    }
    let format = match json {
        false => LogFormat::text(&written.template, false),
        true => match serde_json::from_str::<Map<String, Value>>(&written.template) {
            Ok(fields) => LogFormat::json(&fields, false),
            Err(error) => Err(format!("it is no JSON object: {error}")),
        },
    };
    format.unwrap_or_else(|fault| {
        problems.format(&written.template_place, &fault);
        usual(json)
    })
}

/// Istio's default, which can always be read.
fn usual(json: bool) -> LogFormat {
    if json { LogFormat::default_json() } else { LogFormat::default_text() }
}

fn filter(choice: &Choice<'_>, problems: &mut Problems) -> Option<Filter> {
    let (expression, object, index) = choice.filter?;
    match Filter::parse(expression) {
        Ok(filter) => Some(filter),
        Err(fault) => {
            let path = format!("spec.accessLogging[{index}].filter.expression");
            let message = format!("the filter cannot be read, so every line is written: {fault}");
            problems.report(object, &codes::LOG_FILTER, &path, message);
            None
        }
    }
}

/// Where a provider writes; the empty path is `/dev/stdout`.
fn target(path: &str, written: &AccessLogSettings) -> Arc<Path> {
    resolved(&PathBuf::from(if path.is_empty() { "/dev/stdout" } else { path }), written)
}

fn resolved(path: &Path, written: &AccessLogSettings) -> Arc<Path> {
    if path == Path::new("/dev/stdout") { Arc::from(&*written.stdout) } else { Arc::from(path) }
}

impl Problems {
    fn provider(&mut self, choice: &Choice<'_>, message: String) {
        match choice.from {
            Some((object, index)) => {
                let path = format!("spec.accessLogging[{index}].providers");
                self.report(object, &codes::LOG_PROVIDER, &path, message);
            }
            None => self.report_place(&codes::LOG_PROVIDER, &Location::default(), message),
        }
    }

    fn format(&mut self, place: &Location, fault: &str) {
        self.report_place(
            &codes::LOG_FORMAT,
            place,
            format!("the format of an access log cannot be read, so Istio's default is written: {fault}"),
        );
    }

    fn report_place(&mut self, code: &Code, place: &Location, message: String) {
        self.add(Finding::new(code, place.clone(), message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::meta::Meta;

    fn telemetry(namespace: &str, name: &str, spec: &str) -> Arc<Object<Telemetry>> {
        let meta = Meta { name: name.into(), namespace: namespace.into(), ..Meta::default() };
        Arc::new(Object { meta, spec: serde_json::from_str(spec).unwrap(), origin: Default::default() })
    }

    /// The files of the logs, and the findings.
    fn logs(telemetries: &[(&str, &str, &str)], change: impl FnOnce(&mut Settings)) -> (String, Vec<String>) {
        let mut settings = Settings::default();
        settings.gateway.namespace = "edge".into();
        settings.access_log.path = Some("/main".into());
        let file = |name: &str| ExtensionProvider {
            name: name.into(),
            service: ProviderService::File(FileLog { path: format!("/{name}"), ..FileLog::default() }),
        };
        settings.access_log.providers = vec![file("a"), file("b")];
        settings
            .access_log
            .providers
            .push(ExtensionProvider { name: "other".into(), service: ProviderService::Other("envoyOtelAls") });
        change(&mut settings);
        let resources = ResourceSet {
            telemetries: telemetries.iter().map(|(namespace, name, spec)| telemetry(namespace, name, spec)).collect(),
            ..ResourceSet::default()
        };
        let mut problems = Problems::default();
        let logs = build(&resources, &settings, &mut problems);
        let paths: Vec<String> = logs.paths().iter().map(|path| path.display().to_string()).collect();
        (paths.join(" "), problems.into_findings().iter().map(|finding| finding.code.to_owned()).collect())
    }

    #[test]
    fn the_narrowest_telemetry_chooses() {
        const A: &str = r#"{"accessLogging": [{"providers": [{"name": "a"}]}]}"#;
        const B: &str = r#"{"accessLogging": [{"providers": [{"name": "b"}]}]}"#;
        const OFF: &str = r#"{"accessLogging": [{"disabled": true}]}"#;
        const SERVER: &str = r#"{"accessLogging": [{"match": {"mode": "SERVER"}, "providers": [{"name": "a"}]}]}"#;
        const SELECTED: &str = r#"{"selector": {"matchLabels": {"istio": "ingressgateway"}}, "accessLogging": [{"providers": [{"name": "b"}]}]}"#;
        const ELSEWHERE: &str =
            r#"{"selector": {"matchLabels": {"x": "y"}}, "accessLogging": [{"providers": [{"name": "b"}]}]}"#;
        const A_OFF: &str = r#"{"accessLogging": [{"providers": [{"name": "a"}], "disabled": true}]}"#;
        const STRANGE: &str = r#"{"accessLogging": [{"providers": [{"name": "none"}]}]}"#;
        const OTHER: &str = r#"{"accessLogging": [{"providers": [{"name": "other"}]}]}"#;
        let root = "istio-system";
        for (telemetries, expected) in [
            (&[][..], "/main"),
            (&[(root, "t", A)], "/a"),
            (&[(root, "t", A), (root, "u", B)], "/a"),
            (&[(root, "t", A), ("edge", "t", B)], "/b"),
            (&[(root, "t", A), ("edge", "t", OFF)], ""),
            (&[("edge", "t", A), ("edge", "u", SELECTED)], "/b"),
            (&[("edge", "t", A), ("edge", "u", ELSEWHERE)], "/a"),
            (&[(root, "t", SELECTED)], "/main"),
            (&[("default", "t", A)], "/main"),
            (&[(root, "t", OFF)], "/main"),
            (&[(root, "t", SERVER)], "/main"),
            (&[(root, "t", A_OFF)], ""),
            (&[(root, "t", STRANGE)], "/main"),
            (&[(root, "t", OTHER)], ""),
        ] {
            assert_eq!(logs(telemetries, |_| ()).0, expected, "{telemetries:?}");
        }
        let defaults = |settings: &mut Settings| settings.access_log.default_providers = vec!["b".into()];
        assert_eq!(logs(&[], defaults).0, "/b");
        assert_eq!(logs(&[(root, "t", OFF)], defaults).0, "");
        assert_eq!(logs(&[(root, "t", STRANGE)], |_| ()).1, [codes::LOG_PROVIDER.id]);
    }

    #[test]
    fn faults_leave_a_log_that_works() {
        let bad = r#"{"accessLogging": [{"providers": [{"name": "a"}], "filter": {"expression": "response.code >"}}]}"#;
        assert_eq!(logs(&[("istio-system", "t", bad)], |_| ()), ("/a".into(), vec![codes::LOG_FILTER.id.into()]));
        for (format, template) in [(AccessLogFormat::Json, "no json"), (AccessLogFormat::Text, "%NOPE%")] {
            let change = |settings: &mut Settings| {
                settings.access_log.format = format;
                settings.access_log.template = template.into();
            };
            assert_eq!(logs(&[], change), ("/main".into(), vec![codes::LOG_FORMAT.id.into()]));
        }
        let moved = |settings: &mut Settings| {
            settings.access_log.path = Some("/dev/stdout".into());
            settings.access_log.stdout = "/here".into();
        };
        assert_eq!(logs(&[], moved).0, "/here");
    }
}
