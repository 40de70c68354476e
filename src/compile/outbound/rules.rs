//! Which rule has a service that no VirtualService has rules for, and which have hosts that are no services?

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use super::super::clusters::{self, Place};
use super::super::hashing;
use super::super::retries;
use super::super::services::ServiceSource;
use super::super::work::Work;
use super::scope::{Imported, Strangers};
use crate::resource::networking::{Destination as Written, PortSelector};
use crate::snapshot::cluster::{Balancing, Cluster, EndpointSource, Limits, ServiceFacts, UpstreamProtocol};
use crate::snapshot::hash_policy::HashPolicy;
use crate::snapshot::matcher::{PathMatch, RequestMatch};
use crate::snapshot::retry::RetryPolicy;
use crate::snapshot::route::{Action, ClusterReference, Destination, DirectResponse, Forward, RouteRule, VirtualHost};

/// Envoy's default for connections that no rule says anything of.
const IDLE: Duration = Duration::from_secs(3600);

/// Everything goes to the service's own port.
pub(super) fn of_service(work: &mut Work<'_>, service: &Imported<'_>, port: u16) -> RouteRule {
    let host = service.host();
    let origin = match &service.view.source {
        ServiceSource::Kubernetes(service) => format!("Service {}", service.key()),
        ServiceSource::Entries(entries) => {
            entries.first().map(|entry| format!("ServiceEntry {}", entry.key())).unwrap_or_default()
        }
        ServiceSource::Named(_) => format!("[hosts] {host}"),
    };
    let cluster = clusters::named(work, format!("outbound|{port}||{host}").into());
    let destination =
        Written { host: host.to_string(), port: Some(PortSelector { number: port.into() }), subset: String::new() };
    let hash =
        hashing::of_destination(work, &destination, Place { namespace: service.view.namespace, server_port: port });
    let retry = retries::policy(None, work.index.settings.mesh.http_retry.as_ref(), hash.is_some());
    rule("default", &origin, forward(cluster, &format!("{host}:{port}/*"), retry, hash))
}

/// The host of everything that is no service.
pub(super) fn for_strangers(work: &mut Work<'_>, strangers: Strangers<'_>) -> VirtualHost {
    let (name, action) = match strangers {
        Strangers::Refuse => {
            let response = DirectResponse { status: StatusCode::BAD_GATEWAY, body: Bytes::new() };
            ("block_all", Action::Respond(response))
        }
        Strangers::Pass | Strangers::Send(..) => {
            ("allow_any", forward(cluster_for_strangers(work, strangers), "*", None, None))
        }
    };
    VirtualHost::new("*", false, vec![Arc::new(rule(name, "outboundTrafficPolicy", action))])
}

/// Where connections go that nothing is known of.
pub(super) fn cluster_for_strangers(work: &mut Work<'_>, strangers: Strangers<'_>) -> ClusterReference {
    match strangers {
        Strangers::Pass => special(work, "PassthroughCluster", EndpointSource::Original),
        Strangers::Refuse => black_hole(work),
        Strangers::Send(proxy, namespace) => clusters::reference(work, proxy, Place { namespace, server_port: 0 }),
    }
}

/// Where nothing comes out.
pub(super) fn black_hole(work: &mut Work<'_>) -> ClusterReference {
    special(work, "BlackHoleCluster", EndpointSource::Static(Vec::new()))
}

fn special(work: &mut Work<'_>, name: &str, endpoints: EndpointSource) -> ClusterReference {
    let name: Arc<str> = name.into();
    if let Some(Some(known)) = work.clusters.get(&name) {
        return ClusterReference::Known(known.clone());
    }
    let made = Arc::new(Cluster {
        name: name.clone(),
        service: ServiceFacts::default(),
        protocol: UpstreamProtocol::AsClient,
        endpoints,
        balancing: Balancing::LeastRequest,
        warmup: None,
        tls: None,
        proxy_header: None,
        tunnel: None,
        connect_timeout: work.index.settings.http.connect_timeout,
        idle_timeout: Some(IDLE),
        max_requests_per_connection: 0,
        identity: 0,
        limits: Limits::default(),
        outlier: None,
        places: None,
    });
    work.clusters.insert(name, Some(made.clone()));
    ClusterReference::Known(made)
}

fn rule(name: &str, origin: &str, action: Action) -> RouteRule {
    RouteRule {
        name: name.into(),
        origin: origin.into(),
        matches: RequestMatch {
            path: PathMatch::Prefix { text: "/".into(), ignore_case: false },
            conditions: Vec::new(),
        },
        action,
        cors: None,
        fault: None,
        request_headers: Default::default(),
        response_headers: Default::default(),
    }
}

fn forward(
    cluster: ClusterReference,
    operation: &str,
    retry: Option<Arc<RetryPolicy>>,
    hash: Option<HashPolicy>,
) -> Action {
    let destination = Destination {
        cluster,
        weight: 1,
        request_headers: Default::default(),
        response_headers: Default::default(),
        authority_rewrite: None,
    };
    Action::Forward(Forward {
        destinations: vec![destination],
        total_weight: 1,
        timeout: None,
        retry,
        hash: hash.map(|hash| [hash].into()),
        mirrors: Vec::new(),
        path_rewrite: None,
        authority_rewrite: None,
        decorator: HeaderValue::from_str(operation).unwrap_or_else(|_| HeaderValue::from_static("*")),
    })
}
