//! The front door of the end-to-end tests: a running gateway, backends behind it, clients before it.
//!
//! Every gateway and every group of backends gets a loopback address of its own, so that ports never clash. Nothing
//! waits for time to pass: readiness is read from the log, gates are opened by the test, reloads answer when in force.

#![allow(dead_code)] // each test binary uses its own part of it

pub mod address;
pub mod backend;
pub mod ca;
pub mod caddy;
pub mod certificate;
pub mod curl;
pub mod gateway;
pub mod grpc;
pub mod issued;
pub mod istiod;
pub mod knot;
pub mod manifests;
pub mod openssl;
pub mod pebble;
pub mod raw;
pub mod relay;
pub mod server;
pub mod svid;
pub mod tool;
pub mod websocket;
pub mod workload_api;
