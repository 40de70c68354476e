//! What do sources say on the wire? The messages of the SPIFFE Workload API (workloadapi.proto) and of Istio's CA
//! (istio.v1.auth, ca.proto), as far as they matter here.

use std::collections::HashMap;
use std::fmt;

use prost_types::Struct;

/// X509SVIDRequest
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SvidRequest {}

/// X509SVIDResponse: the full state.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SvidResponse {
    #[prost(message, repeated, tag = "1")]
    pub svids: Vec<Svid>,
    /// DER.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub crl: Vec<Vec<u8>>,
    /// Concatenated DER, by the SPIFFE ID of the trust domain.
    #[prost(map = "string, bytes", tag = "3")]
    pub federated_bundles: HashMap<String, Vec<u8>>,
}

/// X509SVID
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(super) struct Svid {
    #[prost(string, tag = "1")]
    pub spiffe_id: String,
    /// Concatenated DER, the leaf first.
    #[prost(bytes = "vec", tag = "2")]
    pub chain: Vec<u8>,
    /// PKCS#8 in DER.
    #[prost(bytes = "vec", tag = "3")]
    pub key: Vec<u8>,
    /// Concatenated DER.
    #[prost(bytes = "vec", tag = "4")]
    pub bundle: Vec<u8>,
    #[prost(string, tag = "5")]
    pub hint: String,
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid").field("spiffe_id", &self.spiffe_id).finish_non_exhaustive()
    }
}

/// IstioCertificateRequest
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CertificateRequest {
    /// PEM.
    #[prost(string, tag = "1")]
    pub csr: String,
    /// Seconds.
    #[prost(int64, tag = "3")]
    pub validity_duration: i64,
    /// `CertSigner` names a signer.
    #[prost(message, optional, tag = "4")]
    pub metadata: Option<Struct>,
}

/// IstioCertificateResponse
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CertificateResponse {
    /// PEM, from the leaf to the root.
    #[prost(string, repeated, tag = "1")]
    pub cert_chain: Vec<String>,
}
