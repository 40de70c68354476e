//! What is answered to a CA that looks whether a name is ours? Asked by the proxy, for http-01 and tls-alpn-01.
//!
//! Answers are also files below the storage, so that every process that shares it can answer.

mod proof;
mod shared;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::sign::CertifiedKey;

use crate::snapshot::issuance::Identifier;

/// The protocol of a handshake that asks for a proof (RFC 8737 section 3).
pub(crate) const ACME_TLS: &[u8] = b"acme-tls/1";

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
    /// Says which storage is shared with others, at every change of the configuration.
    pub(crate) fn share(&self, storage: Option<&Path>) {
        self.state().storage = storage.map(Path::to_owned);
    }

    /// The body that answers `/.well-known/acme-challenge/TOKEN`, if this process ordered.
    pub(crate) fn http(&self, token: &str) -> Option<Arc<str>> {
        self.state().http.get(token).cloned()
    }

    /// The same body, if another process that shares the storage ordered.
    pub(crate) async fn http_shared(&self, token: &str) -> Option<Arc<str>> {
        let file = shared::http_file(&self.storage()?, token)?;
        let answer = shared::read(file).await?;
        // A key authorization begins with its token: nothing else is ever shown.
        answer.strip_prefix(token)?.starts_with('.').then(|| answer.into())
    }

    /// The certificate for a handshake with [`ACME_TLS`] and this server name, if this process ordered.
    pub(crate) fn tls(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        self.state().tls.get(&name).cloned()
    }

    /// The same certificate, if another process that shares the storage ordered. It is made here, out of the digest.
    pub(crate) async fn tls_shared(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        let file = shared::tls_file(&self.storage()?, &name)?;
        let (identifier, digest) = proof::read(&shared::read(file).await?)?;
        if proof::server_name(&identifier) != name {
            return None;
        }
        proof::certificate(&identifier, &digest).ok().map(Arc::new)
    }

    /// Answers http-01 from now on, until the guard is dropped.
    ///
    /// # Errors
    ///
    /// The token is none (RFC 8555 section 8.1), or the shared file cannot be written.
    pub(crate) async fn answer_http(self: &Arc<Self>, token: &str, authorization: &str) -> io::Result<Answered> {
        let storage = self.storage();
        let file = match &storage {
            Some(storage) => shared::http_file(storage, token),
            None => shared::http_file(Path::new(""), token),
        }
        .ok_or_else(|| io::Error::other("the CA's token has characters that no token has"))?;
        self.state().http.insert(token.to_owned(), authorization.into());
        let file = storage.is_some().then_some(file);
        let answered = Answered { challenges: self.clone(), key: Key::Http(token.to_owned()), file };
        answered.share(authorization.to_owned()).await?;
        Ok(answered)
    }

    /// Answers tls-alpn-01 from now on, until the guard is dropped. `digest` is SHA-256 of the key authorization.
    ///
    /// # Errors
    ///
    /// The certificate cannot be made, or the shared file cannot be written.
    pub(crate) async fn answer_tls(
        self: &Arc<Self>,
        identifier: &Identifier,
        digest: &[u8; 32],
    ) -> io::Result<Answered> {
        let certificate = proof::certificate(identifier, digest).map_err(io::Error::other)?;
        let name = proof::server_name(identifier);
        let file = self.storage().and_then(|storage| shared::tls_file(&storage, &name));
        self.state().tls.insert(name.clone(), Arc::new(certificate));
        let answered = Answered { challenges: self.clone(), key: Key::Tls(name), file };
        answered.share(proof::write(identifier, digest)).await?;
        Ok(answered)
    }

    fn storage(&self) -> Option<PathBuf> {
        self.state().storage.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer that is given as long as this lives.
pub(crate) struct Answered {
    challenges: Arc<Challenges>,
    key: Key,
    file: Option<PathBuf>,
}

enum Key {
    Http(String),
    Tls(String),
}

impl Answered {
    async fn share(&self, content: String) -> io::Result<()> {
        match &self.file {
            Some(file) => shared::write(file.clone(), content).await,
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answered")
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        match &self.key {
            Key::Http(token) => drop(self.challenges.state().http.remove(token)),
            Key::Tls(name) => drop(self.challenges.state().tls.remove(name)),
        }
        if let Some(file) = &self.file {
            // A file that stays is swept later, and its answer helps nobody: the CA made the token for one order.
            let _ = std::fs::remove_file(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA";

    fn sharing(folder: &Path) -> Arc<Challenges> {
        let challenges = Arc::new(Challenges::default());
        challenges.share(Some(folder));
        challenges
    }

    #[tokio::test]
    async fn an_answer_is_given_by_every_process_until_it_is_withdrawn() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, other) = (sharing(folder.path()), sharing(folder.path()));
        let authorization = format!("{TOKEN}.thumb");
        let answered = ours.answer_http(TOKEN, &authorization).await.unwrap();
        assert_eq!(ours.http(TOKEN).as_deref(), Some(authorization.as_str()));
        assert_eq!(other.http(TOKEN), None);
        assert_eq!(other.http_shared(TOKEN).await.as_deref(), Some(authorization.as_str()));
        drop(answered);
        assert_eq!((ours.http(TOKEN), other.http_shared(TOKEN).await), (None, None));

        for identifier in [Identifier::Dns("web.example.com".into()), Identifier::Ip("192.0.2.7".parse().unwrap())] {
            let name = proof::server_name(&identifier);
            let answered = ours.answer_tls(&identifier, &[7; 32]).await.unwrap();
            assert!(ours.tls(&name.to_uppercase()).is_some() && other.tls(&name).is_none(), "{name}");
            let made = other.tls_shared(&name).await.unwrap();
            assert_eq!(made.cert.len(), 1, "{name}");
            drop(answered);
            assert!(ours.tls(&name).is_none() && other.tls_shared(&name).await.is_none(), "{name}");
        }
    }

    #[tokio::test]
    async fn no_path_comes_from_outside() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), "../secret.x").unwrap();
        let challenges = sharing(folder.path());
        std::fs::create_dir_all(folder.path().join("challenges/http")).unwrap();
        std::fs::create_dir_all(folder.path().join("challenges/tls")).unwrap();
        for name in ["../secret", "../../secret", "..", ".", "", "a/b", "a%2fb", "a\0b", "é", &"a".repeat(300)] {
            assert_eq!(challenges.http_shared(name).await, None, "{name}");
            assert!(challenges.tls_shared(name).await.is_none(), "{name}");
            assert!(challenges.answer_http(name, "x.y").await.is_err(), "{name}");
        }
        // A file that holds something else than an answer for its token is not shown.
        std::fs::write(folder.path().join("challenges/http").join(TOKEN), "password").unwrap();
        assert_eq!(challenges.http_shared(TOKEN).await, None);
    }
}
