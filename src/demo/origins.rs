//! Where do the embedded services run? Each on a free loopback port of its own, all in one thread.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use super::answer::{self, Answer};
use super::bookinfo::{self, Version};
use super::dashboards::{self, Dashboard};
use super::inside::Inside;
use super::product_page;
use crate::base::task;

/// The largest request body; only the sign-in form has one.
const BODY_LIMIT: usize = 8 * 1024;

/// What one origin is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    ProductPage,
    Details,
    Reviews(Version),
    Ratings,
    Dashboard(Dashboard),
}

/// Every origin of the demo.
const ROLES: [Role; 9] = [
    Role::ProductPage,
    Role::Details,
    Role::Reviews(Version::V1),
    Role::Reviews(Version::V2),
    Role::Reviews(Version::V3),
    Role::Ratings,
    Role::Dashboard(Dashboard::Grafana),
    Role::Dashboard(Dashboard::Kiali),
    Role::Dashboard(Dashboard::Tracing),
];

impl Role {
    /// The cluster name of its Service.
    pub(super) fn host(self) -> String {
        match self {
            Role::ProductPage => "productpage.default.svc.cluster.local".into(),
            Role::Details => "details.default.svc.cluster.local".into(),
            Role::Reviews(_) => "reviews.default.svc.cluster.local".into(),
            Role::Ratings => "ratings.default.svc.cluster.local".into(),
            Role::Dashboard(dashboard) => format!("{}.istio-system.svc.cluster.local", dashboard.service()),
        }
    }

    /// Its label `version`.
    pub(super) fn version(self) -> &'static str {
        match self {
            Role::Reviews(version) => version.label(),
            _ => "v1",
        }
    }
}

/// The bound origins. Nothing is served before [`Origins::start`].
#[derive(Debug)]
pub(crate) struct Origins {
    listeners: Vec<(Role, TcpListener)>,
    inside: Inside,
}

impl Origins {
    /// Binds every origin to a free port of `address`; they call each other through `gateway`.
    ///
    /// # Errors
    /// No port is free, or the HTTP client cannot be made.
    pub(super) fn bind(address: IpAddr, gateway: SocketAddr) -> anyhow::Result<Origins> {
        let mut listeners = Vec::with_capacity(ROLES.len());
        for role in ROLES {
            let listener = TcpListener::bind((address, 0))?;
            listener.set_nonblocking(true)?;
            listeners.push((role, listener));
        }
        Ok(Origins { listeners, inside: Inside::new(gateway)? })
    }

    /// Which origin listens where.
    pub(super) fn addresses(&self) -> io::Result<Vec<(Role, SocketAddr)>> {
        self.listeners.iter().map(|(role, listener)| Ok((*role, listener.local_addr()?))).collect()
    }

    /// Serves all origins in a thread of their own for as long as the process lives.
    ///
    /// # Errors
    /// The thread or its runtime cannot be made.
    pub(crate) fn start(self) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("demo-origins".into()).spawn(move || runtime.block_on(self.serve()))?;
        Ok(())
    }

    async fn serve(self) {
        for (role, listener) in self.listeners {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => drop(task::spawn("demo-origin", accept(role, listener, self.inside.clone()))),
                Err(error) => tracing::error!(?role, %error, "an origin of the demo cannot be served"),
            }
        }
        std::future::pending().await
    }
}

async fn accept(role: Role, listener: tokio::net::TcpListener, inside: Inside) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(task::spawn("demo-connection", connection(role, stream, inside.clone()))),
            Err(error) => {
                tracing::debug!(?role, %error, "an origin of the demo could not accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(role: Role, stream: tokio::net::TcpStream, inside: Inside) {
    let service = service_fn(|request| async { Ok::<_, Infallible>(answer_to(role, request, &inside).await) });
    let served = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
    if let Err(error) = served {
        tracing::debug!(?role, %error, "a connection to an origin of the demo ended early");
    }
}

async fn answer_to(role: Role, request: Request<Incoming>, inside: &Inside) -> Answer {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, BODY_LIMIT).collect().await else {
        return answer::text(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large\n");
    };
    let (request, body): (_, Bytes) = (Request::from_parts(head, ()), body.to_bytes());
    let path = request.uri().path();
    match role {
        Role::ProductPage => product_page::serve(&request, &body, inside).await,
        Role::Details => bookinfo::details(path),
        Role::Reviews(version) => bookinfo::reviews(version, path, request.headers(), inside).await,
        Role::Ratings => bookinfo::ratings(path),
        Role::Dashboard(dashboard) => dashboards::serve(dashboard, path),
    }
}
