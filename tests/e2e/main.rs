//! Does the running gateway do it? One module for each point that users were promised.

#[path = "../support/mod.rs"]
mod support;

mod access_logs;
mod acme;
mod acme_dns;
mod admin;
mod bad_input;
mod ca_faults;
mod certificate_sources;
mod challenges;
mod cli;
mod client_certificates;
mod cors_and_faults;
mod demo;
mod drain;
mod explain;
mod grpc;
mod http1;
mod http2;
mod identity;
mod mesh;
mod mirrors;
mod on_demand;
mod reload;
mod renewal;
mod retries;
mod routing;
mod sessions;
mod shipped;
mod tcp;
mod tls;
mod tls_clients;
mod upstream;
mod websocket;
