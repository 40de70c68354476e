//! Which fields did the user write that do nothing yet? Each is told once for an object, at its first place.
//!
//! Servers whose TLS mode or protocol is not in force are told by `compile`, which closes them.

use crate::resource::codes;
use crate::resource::finding::Finding;
use crate::resource::meta::{Kind, Object};
use crate::resource::networking::{
    ClientTls, DestinationRule, Gateway, HttpMatchRequest, HttpRoute, LoadBalancerSettings, ServiceEntry, SimpleLb,
    TrafficPolicy, VirtualService,
};
use crate::resource::telemetry::Telemetry;

/// The fields of one object that do nothing, with the first place of each.
#[derive(Debug, Default)]
pub(super) struct Unused {
    fields: Vec<Field>,
}

#[derive(Debug)]
struct Field {
    name: &'static str,
    first: String,
    more: usize,
}

impl Unused {
    /// Notes a field unless it is absent; `place` is written out for the first one only.
    fn note(&mut self, used: bool, name: &'static str, place: impl FnOnce() -> String) {
        if !used {
            return;
        }
        match self.fields.iter_mut().find(|field| field.name == name) {
            Some(field) => field.more += 1,
            None => self.fields.push(Field { name, first: place(), more: 0 }),
        }
    }

    fn findings<T: Kind>(self, object: &Object<T>) -> Vec<Finding> {
        let finding = |field: Field| {
            let more = match field.more {
                0 => String::new(),
                1 => " (here and at one more place)".to_owned(),
                more => format!(" (here and at {more} more places)"),
            };
            let message = format!("{} is not in force yet{more}", field.name);
            object.finding(&codes::FIELD_NOT_IN_FORCE, &field.first, message)
        };
        self.fields.into_iter().map(finding).collect()
    }
}

/// Fields of a Gateway.
pub(super) fn of_gateway(object: &Object<Gateway>) -> Vec<Finding> {
    let mut unused = Unused::default();
    for (index, server) in object.spec.servers.iter().enumerate() {
        let place = |field: &str| format!("spec.servers[{index}].{field}");
        unused.note(!server.default_endpoint.is_empty(), "defaultEndpoint", || place("defaultEndpoint"));
        unused.note(server.bind.starts_with("unix://"), "a unix socket as bind", || place("bind"));
        let Some(tls) = &server.tls else { continue };
        let curve = tls.ecdh_curves.iter().any(|curve| curve == "P-521" || curve == "P-224");
        unused.note(curve, "the curves P-224 and P-521", || place("tls.ecdhCurves"));
        let cipher = tls.cipher_suites.iter().any(|cipher| !cipher.starts_with("ECDHE-") || cipher.ends_with("-SHA"));
        unused.note(cipher, "a cipher without forward secrecy or AEAD", || place("tls.cipherSuites"));
        let of_secret = !tls.credential_name.is_empty() || !tls.credential_names.is_empty();
        unused.note(
            of_secret && !tls.ca_crl.is_empty(),
            "caCrl beside credentialName (`ca.crl` of the Secret is)",
            || place("tls.caCrl"),
        );
    }
    unused.findings(object)
}

/// Fields of a VirtualService.
pub(super) fn of_virtual_service(object: &Object<VirtualService>) -> Vec<Finding> {
    let mut unused = Unused::default();
    for (index, route) in object.spec.http.iter().enumerate() {
        note_route(route, index, &mut unused);
    }
    unused.findings(object)
}

fn note_route(route: &HttpRoute, index: usize, unused: &mut Unused) {
    let place = |field: &str| format!("spec.http[{index}].{field}");
    let localities = route.retries.as_ref().and_then(|retries| retries.retry_remote_localities);
    unused.note(localities == Some(true), "retryRemoteLocalities", || place("retries.retryRemoteLocalities"));
    for (entry, position) in route.matches.iter().zip(0usize..) {
        unused.note(has_claim(entry), "matching JWT claims", || place(&format!("match[{position}].headers")));
        unused.note(!entry.stat_prefix.is_empty(), "statPrefix", || place(&format!("match[{position}].statPrefix")));
    }
}

fn has_claim(entry: &HttpMatchRequest) -> bool {
    entry.headers.keys().chain(entry.without_headers.keys()).any(|name| name.starts_with("@request.auth.claims"))
}

/// Fields of a DestinationRule.
pub(super) fn of_destination_rule(object: &Object<DestinationRule>) -> Vec<Finding> {
    let mut unused = Unused::default();
    if let Some(policy) = &object.spec.traffic_policy {
        note_policy(policy, "spec.trafficPolicy", &mut unused);
    }
    for (index, subset) in object.spec.subsets.iter().enumerate() {
        if let Some(policy) = &subset.traffic_policy {
            note_policy(policy, &format!("spec.subsets[{index}].trafficPolicy"), &mut unused);
        }
    }
    unused.findings(object)
}

fn note_policy(policy: &TrafficPolicy, path: &str, unused: &mut Unused) {
    let post = policy.tunnel.as_ref().is_some_and(|tunnel| tunnel.protocol == "POST");
    unused.note(post, "a tunnel by POST", || format!("{path}.tunnel.protocol"));
    note_blocks(policy.load_balancer.as_ref(), policy.tls.as_ref(), path, unused);
    for (index, port) in policy.port_level_settings.iter().enumerate() {
        note_blocks(
            port.load_balancer.as_ref(),
            port.tls.as_ref(),
            &format!("{path}.portLevelSettings[{index}]"),
            unused,
        );
    }
}

fn note_blocks(balancer: Option<&LoadBalancerSettings>, tls: Option<&ClientTls>, path: &str, unused: &mut Unused) {
    if let Some(balancer) = balancer {
        let place = |field: &str| format!("{path}.loadBalancer.{field}");
        unused.note(balancer.zone_aware_lb_setting.is_some(), "zoneAwareLbSetting", || place("zoneAwareLbSetting"));
        let passthrough = balancer.simple == Some(SimpleLb::Passthrough);
        unused.note(passthrough, "the load balancer PASSTHROUGH", || place("simple"));
    }
    if let Some(tls) = tls {
        let ignored = !tls.ca_crl.is_empty() && !tls.credential_name.is_empty();
        unused.note(ignored, "caCrl beside credentialName (`ca.crl` of the Secret is)", || format!("{path}.tls.caCrl"));
    }
}

/// Fields of a ServiceEntry.
pub(super) fn of_service_entry(object: &Object<ServiceEntry>) -> Vec<Finding> {
    let mut unused = Unused::default();
    let unix = object.spec.endpoints.iter().position(|endpoint| endpoint.address.starts_with("unix://"));
    let index = unix.unwrap_or(0);
    unused.note(unix.is_some(), "an endpoint with a unix socket", || format!("spec.endpoints[{index}].address"));
    unused.findings(object)
}

/// Fields of a Telemetry.
pub(super) fn of_telemetry(object: &Object<Telemetry>) -> Vec<Finding> {
    let mut unused = Unused::default();
    let spec = &object.spec;
    unused.note(!spec.tracing.is_empty(), "tracing", || "spec.tracing".into());
    unused.note(!spec.metrics.is_empty(), "metrics", || "spec.metrics".into());
    unused.note(spec.target_ref.is_some(), "targetRef", || "spec.targetRef".into());
    unused.note(!spec.target_refs.is_empty(), "targetRefs", || "spec.targetRefs".into());
    unused.findings(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::meta::{Meta, Origin};
    use crate::source::decode::decode;

    #[test]
    fn defaults_are_no_findings_and_repetition_is_counted() {
        let text = r#"{"http": [{"retries": {"attempts": 0}}, {"retries": {"retryRemoteLocalities": true}},
                       {"retries": {"retryRemoteLocalities": true}, "match": [{"statPrefix": "a"}]}]}"#;
        let spec = decode::<VirtualService>(&serde_json::from_str(text).unwrap(), "spec").unwrap().value;
        let object = Object { meta: Meta::default(), spec, origin: Origin::default() };
        let told: Vec<_> = of_virtual_service(&object).into_iter().map(|finding| finding.message).collect();
        let twice = "retryRemoteLocalities is not in force yet (here and at one more place)";
        assert_eq!(told, [twice, "statPrefix is not in force yet"]);
        let text = r#"{"trafficPolicy": {"tls": {"mode": "DISABLE"}, "connectionPool": {"http": {"maxRetries": 0}}}}"#;
        let spec = decode::<DestinationRule>(&serde_json::from_str(text).unwrap(), "spec").unwrap().value;
        let object = Object { meta: Meta::default(), spec, origin: Origin::default() };
        assert_eq!(of_destination_rule(&object), []);
    }
}
