//! What is answered to a CA that looks whether a name is ours? Asked by the proxy, for http-01 and tls-alpn-01.
//!
//! Answers are also files below the storage, so that every process that shares it can answer.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::sign::CertifiedKey;

/// The answers that are awaited now. Shared by the proxy, which gives them, and the issuers, who put them here.
#[derive(Default)]
pub(crate) struct Challenges {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Where other processes put theirs.
    storage: Option<PathBuf>,
    /// Key authorizations by their token (RFC 8555 section 8.3).
    http: HashMap<String, Arc<str>>,
    /// Certificates by the server name that the CA asks for (RFC 8737 section 3).
    tls: HashMap<String, Arc<CertifiedKey>>,
}

impl Challenges {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
