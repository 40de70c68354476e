//! Limani: an ingress and egress gateway that reads Istio's manifests.
//!
//! Configuration becomes a snapshot; the snapshot rules the traffic:
//! `source -> resource -> analysis -> compile -> SNAPSHOT -> proxy -> upstream`.
//!
//! # Floor plan
//!
//! A part imports only the parts listed behind its arrow. `tests/architecture.rs` reads this table and enforces it.
//!
//! ```text
//! base      <-
//! telemetry <- base
//! resource  <- base
//! snapshot  <- base telemetry
//! source    <- base resource
//! analysis  <- base resource
//! compile   <- base telemetry resource snapshot
//! net       <-
//! upstream  <- base telemetry snapshot net
//! certs     <- base telemetry snapshot
//! explain   <- snapshot
//! proxy     <- base telemetry snapshot net upstream certs
//! control   <- base telemetry resource snapshot source analysis compile certs
//! admin     <- base telemetry snapshot explain certs control
//! demo      <- base
//! app       <- base telemetry resource snapshot source upstream certs proxy control admin
//! cli       <- base resource snapshot source analysis compile explain certs app demo
//! bench     <- snapshot control
//! fuzz      <- resource snapshot source analysis compile net
//! conformance <-
//! agreement <-
//! ```
//!
//! # Homes of heavy libraries
//!
//! A library named here is imported in the listed places alone.
//!
//! ```text
//! pingora_core    <- net upstream/connect.rs proxy/http
//! pingora_http    <- proxy/http
//! webpki          <- compile/authorities.rs compile/client_verifier.rs compile/peer_roots.rs
//! arc_swap        <- snapshot/store.rs upstream/dns.rs
//! hickory_resolver <- upstream/dns.rs certs/acme/dns
//! prometheus      <- telemetry/metrics.rs
//! cel             <- telemetry/filter.rs analysis/validate/telemetry.rs
//! saphyr_parser   <- source/yaml
//! toml            <- source/limani_toml
//! notify          <- control/watch.rs
//! hyper           <- admin demo upstream/tunnel.rs
//! reqwest         <- cli demo certs
//! rcgen           <- certs
//! instant_acme    <- certs/acme
//! hickory_net     <- certs/acme
//! tonic           <- certs/identity
//! tonic_prost     <- certs/identity
//! prost           <- certs/identity
//! prost_types     <- certs/identity
//! anyhow          <- cli app demo
//! clap            <- cli
//! ```

#![deny(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::todo,
    clippy::unimplemented,
    clippy::dbg_macro
)]
#![deny(clippy::indexing_slicing, clippy::string_slice)]

mod admin;
#[cfg(test)]
mod agreement;
mod analysis;
mod app;
mod base;
#[doc(hidden)]
pub mod bench;
mod certs;
mod cli;
mod compile;
#[cfg(test)]
mod conformance;
mod control;
mod demo;
mod explain;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzz;
mod net;
mod proxy;
mod resource;
mod snapshot;
mod source;
mod telemetry;
mod upstream;

pub use cli::main;
