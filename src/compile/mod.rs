//! From the user's words to the snapshot: pure, the only part that knows both sides.

mod access_logs;
mod authorities;
mod auto_mtls;
mod certificate_fault;
mod certificates;
mod chain;
mod client_verifier;
mod clusters;
#[cfg(test)]
pub(crate) mod conformance;
mod cors;
mod delegate;
mod destination_rules;
mod endpoints;
mod faults;
mod gateways;
mod hashing;
mod header_operations;
mod identity;
#[cfg(test)]
mod incremental;
mod index;
mod issuance;
mod layer4;
mod limits;
mod listeners;
mod locality;
mod matches;
mod memory;
mod mirrors;
pub(crate) mod outbound;
mod peer_policies;
mod peer_roots;
mod pods;
mod problems;
mod protocol;
mod retries;
mod routes;
mod services;
mod sessions;
mod spiffe;
mod tls_client;
mod tls_parameters;
mod tls_server;
mod trail;
mod virtual_service;
mod work;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use http::HeaderValue;

pub(crate) use self::issuance::acme_issuer;
pub(crate) use self::memory::Memory;

use self::index::Index;
use self::problems::Problems;
use self::work::Work;
use crate::resource::ResourceSet;
use crate::resource::codes;
use crate::resource::finding::{Finding, Location};
use crate::resource::settings::{self, Settings};
use crate::snapshot::{ForwardClientCert, OwnHeaders, PathNormalization, ProxyPolicy, Snapshot};
use crate::telemetry::logs::AccessLogs;

/// Makes the snapshot of one generation. What cannot be compiled is left out and reported; it never blocks the rest.
/// `now`, in seconds since 1970, is what certificates are judged by.
pub(crate) fn compile(
    resources: &ResourceSet,
    settings: &Settings,
    generation: u64,
    now: i64,
    memory: &mut Memory,
) -> (Snapshot, Vec<Finding>) {
    memory.follow(settings);
    let index = Index::new(resources, settings);
    let mut problems = Problems::default();
    let servers = gateways::merge(resources, settings, &mut problems);
    let sessions = sessions::of(&index, memory, &mut problems);
    let issued = issuance::plan(settings, &servers, &mut problems);
    let mut work = Work {
        index: &index,
        memory,
        problems,
        issued: &issued,
        clusters: HashMap::new(),
        sessions,
        lone_certificates: BTreeMap::new(),
        now,
    };
    let mut listeners = listeners::build(&mut work, servers);
    tell_lone(&mut work);
    if issued.needs_http {
        listeners::open_for_challenges(&mut listeners, gateways::address_of(80, resources, settings), settings);
    }
    let clusters = work.clusters.into_iter().filter_map(|(name, cluster)| Some((name, cluster?))).collect();
    let mut proxy = policy(settings);
    proxy.access_logs = access_logs::build(resources, settings, &mut work.problems);
    let findings = work.problems.into_findings();
    memory.finish(resources);
    let identity = identity::source(settings).map(Arc::new);
    let issuance = Arc::new(issued.issuance);
    (Snapshot { generation, listeners, clusters, proxy: Arc::new(proxy), issuance, identity }, findings)
}

/// Tells once for each issuer whose certificate is not sent.
fn tell_lone(work: &mut Work<'_>) {
    for (issuer, (first, count)) in std::mem::take(&mut work.lone_certificates) {
        let others = if count > 1 { format!(" and {} others", count - 1) } else { String::new() };
        let message = format!("{first}{others}: clients have to know the issuer `{issuer}`, as it is not sent");
        let finding = Finding::new(&codes::LONE_CERTIFICATE, Location::default(), message);
        work.problems.add(finding.hint(codes::LONE_CERTIFICATE.help));
    }
}

fn policy(settings: &Settings) -> ProxyPolicy {
    let http = &settings.http;
    ProxyPolicy {
        max_head_bytes: http.max_head_bytes,
        max_headers: http.max_headers,
        head_timeout: http.head_timeout,
        handshake_timeout: http.handshake_timeout,
        idle_timeout: http.idle_timeout,
        trusted_proxies: http.trusted_proxies.clone(),
        num_trusted_proxies: http.num_trusted_proxies,
        path_normalization: match http.path_normalization {
            settings::PathNormalization::None => PathNormalization::None,
            settings::PathNormalization::Base => PathNormalization::Base,
            settings::PathNormalization::MergeSlashes => PathNormalization::MergeSlashes,
            settings::PathNormalization::DecodeAndMergeSlashes => PathNormalization::DecodeAndMergeSlashes,
            settings::PathNormalization::RedirectEscapedSlashes => PathNormalization::RedirectEscapedSlashes,
        },
        forward_client_cert: match settings.mesh.forward_client_cert {
            settings::ForwardClientCert::Sanitize => ForwardClientCert::Sanitize,
            settings::ForwardClientCert::ForwardOnly => ForwardClientCert::ForwardOnly,
            settings::ForwardClientCert::AppendForward => ForwardClientCert::AppendForward,
            settings::ForwardClientCert::Undefined | settings::ForwardClientCert::SanitizeSet => {
                ForwardClientCert::SanitizeSet
            }
            settings::ForwardClientCert::AlwaysForwardOnly => ForwardClientCert::AlwaysForwardOnly,
        },
        max_concurrent_streams: http.max_concurrent_streams,
        rejects_underscores: http.rejects_underscores,
        own_headers: own_headers(&http.own_headers),
        access_logs: AccessLogs::default(),
    }
}

fn own_headers(written: &settings::OwnHeaderSettings) -> OwnHeaders {
    OwnHeaders {
        // A text that can be no header value leaves the usual one.
        server: written
            .server
            .as_ref()
            .and_then(|server| HeaderValue::from_str(server).ok().or_else(|| OwnHeaders::default().server)),
        request_id: written.request_id,
        attempt_count: written.attempt_count,
        debug: written.debug,
        forwarded_host: written.forwarded_host,
        forwarded_port: written.forwarded_port,
    }
}

#[cfg(test)]
mod tests;
