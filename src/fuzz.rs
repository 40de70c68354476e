//! What may the fuzzer call? The ways in for bytes from outside; built only with `--cfg fuzzing`, see fuzz/.

use std::io::Read;

use rustls::server::Acceptor;

use crate::analysis;
use crate::compile;
use crate::net::{hello, proxy_protocol};
use crate::resource::settings::Settings;
use crate::snapshot::{PathNormalization, path};
use crate::source;

/// A file of manifests, all the way to a snapshot.
pub fn manifests(bytes: &[u8]) {
    let file = std::env::temp_dir().join(format!("limani-fuzz-{}.yaml", std::process::id()));
    if std::fs::write(&file, bytes).is_err() {
        return;
    }
    let mut settings = Settings::default();
    settings.source.manifests = vec![file];
    let gathered = source::gather_manifests(settings, &mut source::Cache::default());
    let (accepted, _) = analysis::analyze(
        &gathered.resources,
        &gathered.settings,
        analysis::Look::default(),
        &mut analysis::Memory::default(),
    );
    let _ = compile::compile(&accepted, &gathered.settings, 1, 0, &mut compile::Memory::default());
}

/// The first bytes of a connection: PROXY header, HTTP/2 preface, ClientHello.
pub fn first_bytes(bytes: &[u8]) {
    let _ = hello::preface(bytes);
    if let proxy_protocol::Header::Complete { length, .. } = proxy_protocol::parse(bytes) {
        assert!(length <= bytes.len(), "a header is no longer than what was read");
    }
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    while acceptor.read_tls(&mut rest.by_ref()).is_ok_and(|count| count > 0) {
        if !matches!(acceptor.accept(), Ok(None)) {
            break;
        }
    }
}

/// The path and query of a request: a normal form is its own normal form.
pub fn paths(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for level in [
        PathNormalization::None,
        PathNormalization::Base,
        PathNormalization::MergeSlashes,
        PathNormalization::DecodeAndMergeSlashes,
    ] {
        let Ok(normal) = path::normalize(text, level) else { continue };
        if matches!(level, PathNormalization::Base | PathNormalization::MergeSlashes) {
            let again = path::normalize(&normal, level).ok();
            assert_eq!(again.as_deref(), Some(&*normal), "of {text:?} at {level:?}");
        }
    }
}
