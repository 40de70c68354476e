//! Where does our own identity in the mesh come from? Said by the settings, obeyed by certs.
//!
//! Files are not named here: they are Secrets like all other certificate files.

use std::path::PathBuf;
use std::time::Duration;

/// Who gives us an identity that stays in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum IdentitySource {
    WorkloadApi(WorkloadApi),
    Istiod(Box<Istiod>),
    LocalCa(LocalIdentity),
}

impl IdentitySource {
    /// What the settings, metrics and pages call it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            IdentitySource::WorkloadApi(_) => "workload-api",
            IdentitySource::Istiod(_) => "istiod",
            IdentitySource::LocalCa(_) => "local-ca",
        }
    }
}

/// The SPIFFE Workload API, as SPIRE's agent serves it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WorkloadApi {
    /// `unix:///path`, `tcp://address:port` or a path; `None`: as SPIFFE_ENDPOINT_SOCKET says.
    pub socket: Option<String>,
    /// Which of several identities is ours; `None`: the first.
    pub spiffe_id: Option<String>,
}

/// Istio's CA protocol, as istiod and istio-csr serve it (`IstioCertificateService/CreateCertificate`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Istiod {
    /// `host:port`
    pub address: String,
    /// The name in the CA's own certificate; `None`: the host of `address`.
    pub server_name: Option<String>,
    /// PEM: whom we believe about the CA, and the roots of the mesh. Read again as it changes.
    pub root: PathBuf,
    /// The token that shows who asks; read for each call. Where it does not exist, our certificate shows it.
    pub token: PathBuf,
    /// A first certificate with its key, for machines that have no token.
    pub first: Option<(PathBuf, PathBuf)>,
    pub workload: Workload,
    /// Of the cluster, as the CA knows it.
    pub cluster: String,
    /// Which signer of several the CA should take (Istio's ISTIO_META_CERT_SIGNER).
    pub signer: Option<String>,
    /// How long the certificate should be valid; the CA may make it shorter.
    pub ttl: Duration,
}

/// An identity from our own authority, for development.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LocalIdentity {
    /// The authority's folder.
    pub folder: PathBuf,
    pub workload: Workload,
    pub ttl: Duration,
}

/// Who we want to be: `spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Workload {
    pub trust_domain: String,
    pub namespace: String,
    pub service_account: String,
}
