//! Does an AuthorizationPolicy keep the rules of its kind? (Istio ValidateAuthorizationPolicy)

use super::faults::{At, Faults};
use super::names::check_subnet;
use super::selection::{Attachment, check_attachment};
use crate::resource::security::{Action, AuthorizationPolicy, Condition, Operation, Rule, Source};

const MAX_RULES: usize = 512;
const MAX_SERVICE_ACCOUNTS: usize = 16;
const MAX_SERVICE_ACCOUNT: usize = 320;

/// Checks the whole object.
pub(super) fn check(policy: &AuthorizationPolicy, faults: &mut Faults) {
    let spec = At::root("spec");
    let attachment = Attachment {
        selector: policy.selector.as_ref(),
        target_ref: policy.target_ref.as_ref(),
        target_refs: &policy.target_refs,
    };
    check_attachment(&attachment, spec, faults);
    check_action(policy, spec, faults);
    faults.require(policy.rules.len() <= MAX_RULES, spec.field("rules"), "a policy has at most 512 rules");
    for (index, rule) in policy.rules.iter().enumerate() {
        let at = spec.item("rules", index);
        check_rule(rule, at, faults);
        if policy.action == Action::Custom {
            check_custom_rule(rule, at, faults);
        }
        if policy.action == Action::Deny && denies_all_tcp(rule) {
            let message = "the rule names only attributes of HTTP, so it denies every TCP connection; name the ports";
            faults.warn(at, message);
        }
    }
}

fn check_action(policy: &AuthorizationPolicy, spec: At<'_>, faults: &mut Faults) {
    if matches!(policy.action, Action::Deny | Action::Custom) && policy.rules.is_empty() {
        let message = format!("{} without rules never acts; write `rules: [{{}}]` for all", policy.action.word());
        faults.error(spec.field("rules"), message);
    }
    let named = policy.provider.as_ref().is_some_and(|provider| !provider.name.is_empty());
    if policy.action == Action::Custom {
        faults.require(named, spec.field("provider").field("name"), "CUSTOM needs the name of a provider");
    } else {
        faults.require(policy.provider.is_none(), spec.field("provider"), "only CUSTOM has a provider");
    }
}

/// A provider is asked before tokens are looked at.
fn check_custom_rule(rule: &Rule, at: At<'_>, faults: &mut Faults) {
    let message = "CUSTOM is decided before tokens are verified; nothing of them can be named";
    for (index, from) in rule.from.iter().flatten().enumerate() {
        let at = at.item("from", index);
        let Some(source) = &from.source else { continue };
        let names_token = !source.request_principals.is_empty() || !source.not_request_principals.is_empty();
        faults.require(!names_token, at.field("source"), message);
    }
    for (index, condition) in rule.when.iter().enumerate() {
        let names_token = condition.key.starts_with("request.auth.");
        faults.require(!names_token, at.item("when", index).field("key"), message);
    }
}

/// On TCP the attributes of HTTP are dropped, which makes a rule that denies wider.
fn denies_all_tcp(rule: &Rule) -> bool {
    let on_http = |operation: &Operation| {
        [&operation.hosts, &operation.methods, &operation.paths].into_iter().any(|list| !list.is_empty())
            || [&operation.not_hosts, &operation.not_methods, &operation.not_paths]
                .into_iter()
                .any(|list| !list.is_empty())
    };
    let with_port = |operation: &Operation| !operation.ports.is_empty() || !operation.not_ports.is_empty();
    let operations = || rule.to.iter().flatten().filter_map(|to| to.operation.as_ref());
    let of_token = |source: &Source| !source.request_principals.is_empty() || !source.not_request_principals.is_empty();
    let by_token = rule.from.iter().flatten().filter_map(|from| from.source.as_ref()).any(of_token);
    operations().any(|operation| on_http(operation) && !with_port(operation))
        || by_token && !operations().any(with_port)
}

fn check_rule(rule: &Rule, at: At<'_>, faults: &mut Faults) {
    let from = rule.from.as_deref().unwrap_or_default();
    faults.require(from.len() <= MAX_RULES, at.field("from"), "a rule has at most 512 sources");
    if rule.from.as_ref().is_some_and(Vec::is_empty) {
        faults.warn(at.field("from"), "an empty list counts as absent: the rule is for every source");
    }
    if rule.to.as_ref().is_some_and(Vec::is_empty) {
        faults.warn(at.field("to"), "an empty list counts as absent: the rule is for every operation");
    }
    for (index, from) in from.iter().enumerate() {
        let at = at.item("from", index);
        match &from.source {
            None => faults.error(at.field("source"), "the source has to be given"),
            Some(source) => check_source(source, at.field("source"), faults),
        }
    }
    for (index, to) in rule.to.iter().flatten().enumerate() {
        let at = at.item("to", index);
        match &to.operation {
            None => faults.error(at.field("operation"), "the operation has to be given"),
            Some(operation) => check_operation(operation, at.field("operation"), faults),
        }
    }
    for (index, condition) in rule.when.iter().enumerate() {
        check_condition(condition, at.item("when", index), faults);
    }
}

/// What the values of a list are.
#[derive(Clone, Copy)]
enum Values {
    Text,
    Addresses,
    Ports,
    Paths,
    ServiceAccounts,
    TrustDomains,
}

fn check_lists(lists: &[(&str, &[String], Values)], at: At<'_>, faults: &mut Faults) {
    let some = lists.iter().any(|(_, values, _)| !values.is_empty());
    faults.require(some, at, "it has to name something");
    for (field, values, kind) in lists {
        for (index, value) in values.iter().enumerate() {
            faults.check(at.item(field, index), check_value(value, *kind));
        }
    }
}

fn check_value(value: &str, kind: Values) -> Result<(), String> {
    if value.is_empty() {
        return Err("a value cannot be empty".into());
    }
    match kind {
        Values::Text => Ok(()),
        Values::Addresses => check_subnet(value),
        Values::Ports => value.parse::<u16>().map(|_| ()).map_err(|_| format!("`{value}` is no port")),
        Values::Paths => check_path(value),
        Values::ServiceAccounts => check_service_account(value),
        Values::TrustDomains => check_trust_domain(value),
    }
}

fn check_source(source: &Source, at: At<'_>, faults: &mut Faults) {
    let lists: [(&str, &[String], Values); 14] = [
        ("principals", &source.principals, Values::Text),
        ("notPrincipals", &source.not_principals, Values::Text),
        ("requestPrincipals", &source.request_principals, Values::Text),
        ("notRequestPrincipals", &source.not_request_principals, Values::Text),
        ("namespaces", &source.namespaces, Values::Text),
        ("notNamespaces", &source.not_namespaces, Values::Text),
        ("serviceAccounts", &source.service_accounts, Values::ServiceAccounts),
        ("notServiceAccounts", &source.not_service_accounts, Values::ServiceAccounts),
        ("trustDomains", &source.trust_domains, Values::TrustDomains),
        ("notTrustDomains", &source.not_trust_domains, Values::TrustDomains),
        ("ipBlocks", &source.ip_blocks, Values::Addresses),
        ("notIpBlocks", &source.not_ip_blocks, Values::Addresses),
        ("remoteIpBlocks", &source.remote_ip_blocks, Values::Addresses),
        ("notRemoteIpBlocks", &source.not_remote_ip_blocks, Values::Addresses),
    ];
    check_lists(&lists, at, faults);
    for (field, accounts) in
        [("serviceAccounts", &source.service_accounts), ("notServiceAccounts", &source.not_service_accounts)]
    {
        let few = accounts.len() <= MAX_SERVICE_ACCOUNTS;
        faults.require(few, at.field(field), "at most 16 service accounts can be named");
    }
    let by_account = !source.service_accounts.is_empty() || !source.not_service_accounts.is_empty();
    let by_name = [&source.principals, &source.not_principals, &source.namespaces, &source.not_namespaces];
    let both = by_account && by_name.into_iter().any(|list| !list.is_empty());
    faults.require(!both, at, "serviceAccounts excludes principals and namespaces");
}

/// `name` or `namespace/name`, without wildcards.
fn check_service_account(account: &str) -> Result<(), String> {
    let mut parts = account.split('/');
    let few = parts.by_ref().take(2).all(|part| !part.is_empty()) && parts.next().is_none();
    if !few || account.contains('*') || account.len() > MAX_SERVICE_ACCOUNT {
        return Err(format!("`{account}`: write name or namespace/name of a service account"));
    }
    Ok(())
}

/// A name that begins or ends with `*`, or has none.
fn check_trust_domain(domain: &str) -> Result<(), String> {
    let inner = domain.strip_prefix('*').unwrap_or(domain);
    let inner = if inner.len() == domain.len() { inner.strip_suffix('*').unwrap_or(inner) } else { inner };
    if inner.contains(['*', '/']) { Err(format!("`{domain}` is no trust domain")) } else { Ok(()) }
}

fn check_operation(operation: &Operation, at: At<'_>, faults: &mut Faults) {
    let lists: [(&str, &[String], Values); 8] = [
        ("hosts", &operation.hosts, Values::Text),
        ("notHosts", &operation.not_hosts, Values::Text),
        ("ports", &operation.ports, Values::Ports),
        ("notPorts", &operation.not_ports, Values::Ports),
        ("methods", &operation.methods, Values::Text),
        ("notMethods", &operation.not_methods, Values::Text),
        ("paths", &operation.paths, Values::Paths),
        ("notPaths", &operation.not_paths, Values::Paths),
    ];
    check_lists(&lists, at, faults);
}

/// `{*}` stands for one segment, `{**}` for the rest; each is a whole segment and `{**}` is the last of them.
fn check_path(path: &str) -> Result<(), String> {
    let is_template = path.contains("{*}") || path.contains("{**}");
    let mut rest_matched = false;
    for segment in path.trim_matches('/').split('/') {
        match segment {
            "{*}" | "{**}" if rest_matched => return Err(format!("`{path}`: {{**}} has to be the last template")),
            "{*}" => {}
            "{**}" => rest_matched = true,
            segment if segment.contains(['{', '}']) => {
                return Err(format!("`{path}`: only {{*}} and {{**}} are templates, each as a whole segment"));
            }
            segment if is_template && !segment.bytes().all(is_path_byte) => {
                return Err(format!("`{path}`: `{segment}` cannot stand beside a template"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// RFC 3986 pchar, without `*`.
fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&byte)
}

fn check_condition(condition: &Condition, at: At<'_>, faults: &mut Faults) {
    if condition.key.is_empty() {
        return faults.error(at.field("key"), "a condition needs a key");
    }
    let some = !condition.values.is_empty() || !condition.not_values.is_empty();
    faults.require(some, at, "a condition needs values or notValues");
    let kind = match attribute(&condition.key) {
        Ok(kind) => kind,
        Err(message) => return faults.error(at.field("key"), message),
    };
    for (field, values) in [("values", &condition.values), ("notValues", &condition.not_values)] {
        for (index, value) in values.iter().enumerate() {
            faults.check(at.item(field, index), check_value(value, kind));
        }
    }
}

/// What the values of a `when` key are.
fn attribute(key: &str) -> Result<Values, String> {
    match key {
        "source.ip" | "remote.ip" | "destination.ip" => Ok(Values::Addresses),
        "destination.port" => Ok(Values::Ports),
        "source.serviceAccount" => Ok(Values::ServiceAccounts),
        "source.trustDomain" => Ok(Values::TrustDomains),
        "source.namespace"
        | "source.principal"
        | "request.auth.principal"
        | "request.auth.audiences"
        | "request.auth.presenter"
        | "connection.sni" => Ok(Values::Text),
        "destination.name" => Err("`destination.name` is an old form; write metadata.name".into()),
        "destination.namespace" => Err("`destination.namespace` is an old form; write metadata.namespace".into()),
        "destination.user" => Err("`destination.user` is an old form and does nothing".into()),
        key if key.starts_with("destination.labels") => {
            Err("`destination.labels` is an old form; write a selector".into())
        }
        key if ["request.headers", "request.auth.claims", "experimental."].iter().any(|of| key.starts_with(of)) => {
            let keyed = key.contains('[') && key.ends_with(']');
            if keyed { Ok(Values::Text) } else { Err(format!("`{key}`: write it as attribute[name]")) }
        }
        key => Err(format!("`{key}` is no attribute")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_templates_are_whole_segments() {
        for good in ["/a/{*}/b", "/{**}", "/{*}/x/{**}/end", "/a*", "*", "/a/*/b", "/x y"] {
            assert_eq!(check_path(good), Ok(()), "{good}");
        }
        for bad in ["/{**}/{*}", "/{**}/a/{**}", "/a{*}", "/{a}", "/{*}/a*", "/{*}/x y", "/}"] {
            assert!(check_path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn trust_domains_and_accounts_have_their_form() {
        for (good, bad) in [("*.local", "a*b"), ("cluster*", "*a*"), ("*", "a/b")] {
            assert!(check_trust_domain(good).is_ok() && check_trust_domain(bad).is_err(), "{good} {bad}");
        }
        for (good, bad) in [("sa", "a/b/c"), ("ns/sa", "ns/*"), ("a.b/c", "/sa")] {
            assert!(check_service_account(good).is_ok() && check_service_account(bad).is_err(), "{good} {bad}");
        }
    }
}
