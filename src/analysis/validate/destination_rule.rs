//! Does a DestinationRule keep the rules of its kind? (Istio ValidateDestinationRule)

use std::collections::HashSet;

use super::balancing;
use super::faults::{At, Faults};
use super::names::{
    check_duration, check_export_to, check_fqdn, check_labels_of, check_port, check_selector, check_wildcard_domain,
    is_address, is_dns_label,
};
use crate::resource::networking::{
    ClientTls, ClientTlsMode, ConnectionPoolSettings, DestinationRule, GoDuration, H2UpgradePolicy, HttpPool,
    LoadBalancerSettings, OutlierDetection, TcpPool, TrafficPolicy, TunnelSettings,
};

/// Checks the whole object.
pub(super) fn check(namespace: &str, rule: &DestinationRule, faults: &mut Faults) {
    let spec = At::root("spec");
    faults.check(spec.field("host"), check_wildcard_domain(&rule.host));
    if let Some(policy) = &rule.traffic_policy {
        check_policy(policy, spec.field("trafficPolicy"), faults);
    }
    let mut names = HashSet::new();
    for (index, subset) in rule.subsets.iter().enumerate() {
        let at = spec.item("subsets", index);
        if !is_dns_label(&subset.name) {
            faults.error(at.field("name"), format!("`{}` is no name of a subset", subset.name));
        } else if !names.insert(&subset.name) {
            faults.error(at.field("name"), format!("the subset `{}` stands here twice", subset.name));
        }
        faults.check(at.field("labels"), check_labels_of(&subset.labels));
        if let Some(policy) = &subset.traffic_policy {
            check_policy(policy, at.field("trafficPolicy"), faults);
        }
    }
    let export_at = spec.field("exportTo");
    faults.check(export_at, check_export_to(&rule.export_to, namespace, false));
    if let Some(selector) = &rule.workload_selector {
        let at = spec.field("workloadSelector");
        faults.check(at, check_selector(&selector.match_labels));
        if selector.match_labels.is_empty() {
            faults.warn(at, "the selector names no labels; the rule is for every workload of its namespace");
        }
        let own = rule.export_to.iter().all(|name| name == "." || name == namespace);
        faults.require(own, export_at, "a rule with workloadSelector is private to its namespace");
    }
}

/// The blocks that a policy and a port's policy share.
struct Blocks<'a> {
    load_balancer: Option<&'a LoadBalancerSettings>,
    connection_pool: Option<&'a ConnectionPoolSettings>,
    outlier_detection: Option<&'a OutlierDetection>,
    tls: Option<&'a ClientTls>,
}

impl Blocks<'_> {
    fn is_empty(&self) -> bool {
        self.load_balancer.is_none()
            && self.connection_pool.is_none()
            && self.outlier_detection.is_none()
            && self.tls.is_none()
    }

    fn check(&self, at: At<'_>, faults: &mut Faults) {
        if let Some(outlier) = self.outlier_detection {
            check_outlier(outlier, at.field("outlierDetection"), faults);
        }
        if let Some(pool) = self.connection_pool {
            check_pool(pool, at.field("connectionPool"), faults);
        }
        if let Some(balancer) = self.load_balancer {
            balancing::check(balancer, self.outlier_detection.is_some(), at.field("loadBalancer"), faults);
        }
        if let Some(tls) = self.tls {
            check_tls(tls, at.field("tls"), faults);
        }
    }
}

fn check_policy(policy: &TrafficPolicy, at: At<'_>, faults: &mut Faults) {
    let blocks = Blocks {
        load_balancer: policy.load_balancer.as_ref(),
        connection_pool: policy.connection_pool.as_ref(),
        outlier_detection: policy.outlier_detection.as_ref(),
        tls: policy.tls.as_ref(),
    };
    let rest = !policy.port_level_settings.is_empty()
        || policy.tunnel.is_some()
        || policy.proxy_protocol.is_some()
        || policy.retry_budget.is_some();
    faults.require(!blocks.is_empty() || rest, at, "a traffic policy has to say something");
    let both = policy.tunnel.is_some() && policy.proxy_protocol.is_some();
    faults.require(!both, at, "tunnel and proxyProtocol exclude each other");
    blocks.check(at, faults);
    if let Some(tunnel) = &policy.tunnel {
        check_tunnel(tunnel, at.field("tunnel"), faults);
    }
    if let Some(budget) = &policy.retry_budget {
        let good = budget.percent.is_none_or(|percent| (0.0..=100.0).contains(&percent));
        faults.require(good, at.field("retryBudget").field("percent"), "a percentage is between 0 and 100");
    }
    for (index, settings) in policy.port_level_settings.iter().enumerate() {
        let at = at.item("portLevelSettings", index);
        match settings.port {
            None => faults.error(at.field("port"), "the port has to be named"),
            Some(port) => faults.check(at.field("port").field("number"), check_port(port.number)),
        }
        let blocks = Blocks {
            load_balancer: settings.load_balancer.as_ref(),
            connection_pool: settings.connection_pool.as_ref(),
            outlier_detection: settings.outlier_detection.as_ref(),
            tls: settings.tls.as_ref(),
        };
        faults.require(!blocks.is_empty(), at, "the settings of a port have to say something");
        blocks.check(at, faults);
    }
}

fn check_tunnel(tunnel: &TunnelSettings, at: At<'_>, faults: &mut Faults) {
    let known = matches!(tunnel.protocol.as_str(), "" | "CONNECT" | "POST");
    faults.require(known, at.field("protocol"), "a tunnel is opened by CONNECT or POST");
    if !is_address(&tunnel.target_host) {
        faults.check(at.field("targetHost"), check_fqdn(&tunnel.target_host));
    }
    faults.check(at.field("targetPort"), check_port(tunnel.target_port));
}

fn check_outlier(outlier: &OutlierDetection, at: At<'_>, faults: &mut Faults) {
    let durations = [("interval", outlier.interval), ("baseEjectionTime", outlier.base_ejection_time)];
    check_durations(&durations, at, faults);
    let percents =
        [("maxEjectionPercent", outlier.max_ejection_percent), ("minHealthPercent", outlier.min_health_percent)];
    for (field, percent) in percents {
        faults.require((0..=100).contains(&percent), at.field(field), "a percentage is between 0 and 100");
    }
    if outlier.consecutive_errors != 0 {
        faults.warn(at.field("consecutiveErrors"), "an old form; write consecutive5xxErrors");
    }
    let split =
        outlier.split_external_local_origin_errors || outlier.consecutive_local_origin_failures.unwrap_or(0) == 0;
    faults.require(
        split,
        at.field("consecutiveLocalOriginFailures"),
        "consecutiveLocalOriginFailures needs splitExternalLocalOriginErrors",
    );
}

fn check_durations(durations: &[(&str, Option<GoDuration>)], at: At<'_>, faults: &mut Faults) {
    for (field, duration) in durations {
        if let Some(duration) = duration {
            faults.check(at.field(field), check_duration(*duration));
        }
    }
}

pub(super) fn check_pool(pool: &ConnectionPoolSettings, at: At<'_>, faults: &mut Faults) {
    faults.require(pool.tcp.is_some() || pool.http.is_some(), at, "a connection pool needs tcp or http");
    if let Some(http) = &pool.http {
        check_http_pool(http, at.field("http"), faults);
    }
    if let Some(tcp) = &pool.tcp {
        check_tcp_pool(tcp, at.field("tcp"), faults);
    }
}

fn check_http_pool(http: &HttpPool, at: At<'_>, faults: &mut Faults) {
    let numbers = [
        ("http1MaxPendingRequests", http.http1_max_pending_requests),
        ("http2MaxRequests", http.http2_max_requests),
        ("maxRequestsPerConnection", http.max_requests_per_connection),
        ("maxRetries", http.max_retries),
        ("maxConcurrentStreams", http.max_concurrent_streams),
    ];
    for (field, number) in numbers {
        faults.require(number >= 0, at.field(field), "the number cannot be negative");
    }
    check_durations(&[("idleTimeout", http.idle_timeout)], at, faults);
    let both = http.h2_upgrade_policy == H2UpgradePolicy::Upgrade && http.use_client_protocol;
    faults.require(
        !both,
        at.field("useClientProtocol"),
        "useClientProtocol and h2UpgradePolicy UPGRADE exclude each other",
    );
    if let Some(keep_alive) = &http.http2_keep_alive {
        let at = at.field("http2KeepAlive");
        for (name, duration) in [("interval", keep_alive.interval), ("timeout", keep_alive.timeout)] {
            match duration {
                None => faults.error(at.field(name), format!("http2KeepAlive needs {name}")),
                Some(duration) => faults.check(at.field(name), check_duration(duration)),
            }
        }
    }
}

fn check_tcp_pool(tcp: &TcpPool, at: At<'_>, faults: &mut Faults) {
    faults.require(tcp.max_connections >= 0, at.field("maxConnections"), "the number cannot be negative");
    let durations = [("connectTimeout", tcp.connect_timeout), ("maxConnectionDuration", tcp.max_connection_duration)];
    check_durations(&durations, at, faults);
    if let Some(idle) = tcp.idle_timeout
        && !idle.0.is_zero()
    {
        faults.check(at.field("idleTimeout"), check_duration(idle));
    }
}

fn check_tls(tls: &ClientTls, at: At<'_>, faults: &mut Faults) {
    let verified = !tls.ca_certificates.is_empty() || !tls.subject_alt_names.is_empty();
    if tls.insecure_skip_verify == Some(true) {
        let contradicts = match tls.mode {
            ClientTlsMode::Simple => verified || !tls.credential_name.is_empty(),
            ClientTlsMode::Mutual => verified,
            _ => false,
        };
        faults.require(!contradicts, at.field("insecureSkipVerify"), "insecureSkipVerify excludes what is verified by");
    }
    let files = !tls.client_certificate.is_empty()
        || !tls.private_key.is_empty()
        || !tls.ca_certificates.is_empty()
        || !tls.ca_crl.is_empty();
    match tls.mode {
        ClientTlsMode::Simple | ClientTlsMode::Mutual if !tls.credential_name.is_empty() => {
            faults.require(!files, at.field("credentialName"), "credentialName and files exclude each other");
        }
        ClientTlsMode::Mutual => {
            let message = "MUTUAL needs clientCertificate and privateKey, or credentialName";
            faults.require(!tls.client_certificate.is_empty(), at.field("clientCertificate"), message);
            faults.require(!tls.private_key.is_empty(), at.field("privateKey"), message);
        }
        _ => {}
    }
}
