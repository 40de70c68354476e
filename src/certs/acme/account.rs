//! Who are we to a CA? One account for each issuer and storage, registered once by whoever comes first.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use instant_acme::{Account, Error, ExternalAccountKey, Key, NewAccount};
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde::{Deserialize, Serialize};

use super::client::Client;
use super::failure;
use super::nonce::patiently;
use crate::certs::issue::{FailureKind, IssueError};
use crate::certs::lock::Lock;
use crate::certs::store::{ACCOUNTS, Store};
use crate::snapshot::issuance::{AcmeIssuer, ExternalAccount};

/// Another process registers in less.
const LOCKED_AT_MOST: Duration = Duration::from_secs(90);
const LOCK_STEP: Duration = Duration::from_millis(200);

/// The accounts of one issuer.
pub(super) struct Accounts<'a> {
    pub name: &'a str,
    pub issuer: &'a AcmeIssuer,
    pub store: &'a Store,
    pub client: &'a Client,
}

/// What is kept of an account.
#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    /// The directory of the CA that knows it.
    directory: String,
    /// Its URL.
    id: String,
    /// PKCS#8 in base64url.
    key: String,
    #[serde(default)]
    email: String,
}

impl Accounts<'_> {
    /// The account, registered if there is none yet, with the contact that is configured now.
    pub(super) async fn get(&self) -> Result<Account, IssueError> {
        if let Some(kept) = self.read().await?
            && kept.email == self.issuer.email
        {
            return self.open(&kept).await;
        }
        let _lock = self.lock().await?;
        match self.read().await? {
            Some(kept) => self.with_contact(kept).await,
            None => self.register().await,
        }
    }

    /// Another account in place of one that the CA does not know any more.
    pub(super) async fn replace(&self, lost: &str) -> Result<Account, IssueError> {
        let _lock = self.lock().await?;
        match self.read().await? {
            // Another process was faster.
            Some(kept) if kept.id != lost => self.with_contact(kept).await,
            _ => {
                tracing::warn!(
                    issuer = self.name,
                    account = lost,
                    "the CA does not know the account; a new one is registered"
                );
                self.register().await
            }
        }
    }

    /// Whether the CA refuses everything from this account: it is unknown or deactivated.
    pub(super) async fn is_lost(&self, account: &Account, error: &Error) -> bool {
        let Error::Api(problem) = error else { return false };
        match failure::type_of(problem) {
            "accountDoesNotExist" => true,
            // Said of a deactivated account and of much else: a request that any account may make tells.
            "unauthorized" => {
                let asked = self.tell_contact(account).await;
                let kind = |problem| matches!(failure::type_of(problem), "unauthorized" | "accountDoesNotExist");
                matches!(asked, Err(Error::Api(problem)) if kind(&problem))
            }
            _ => false,
        }
    }

    async fn register(&self) -> Result<Account, IssueError> {
        let external = match &self.issuer.external_account {
            Some(external) => Some(external_key(external).await?),
            None => None,
        };
        let contact = contact(&self.issuer.email);
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        let account = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let made = patiently!(async {
            let builder = Account::builder_with_http(self.client.boxed());
            builder.create(&account, self.client.directory().to_owned(), external.as_ref()).await
        });
        let (account, credentials) =
            made.map_err(|error| failure::explain(self.client, "to register an account", error))?;
        let kept = Kept {
            directory: self.client.directory().to_owned(),
            id: account.id().to_owned(),
            key: BASE64_URL_SAFE_NO_PAD.encode(credentials.private_key().secret_pkcs8_der()),
            email: self.issuer.email.clone(),
        };
        self.write(kept).await?;
        tracing::info!(issuer = self.name, account = account.id(), "registered an account");
        Ok(account)
    }

    /// Opens an account, and tells the CA the contact if it changed. Called by whoever holds the lock.
    async fn with_contact(&self, kept: Kept) -> Result<Account, IssueError> {
        let account = self.open(&kept).await?;
        if kept.email == self.issuer.email {
            return Ok(account);
        }
        match self.tell_contact(&account).await {
            Ok(()) => self.write(Kept { email: self.issuer.email.clone(), ..kept }).await?,
            // The account serves as before; whether it is lost is found out by the order.
            Err(error) => {
                let error = failure::explain(self.client, "the new contact", error);
                tracing::warn!(issuer = self.name, %error, "the contact of the account stays as it was");
            }
        }
        Ok(account)
    }

    async fn tell_contact(&self, account: &Account) -> Result<(), Error> {
        let contact = contact(&self.issuer.email);
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        patiently!(account.update_contacts(&contact))
    }

    async fn open(&self, kept: &Kept) -> Result<Account, IssueError> {
        let key = BASE64_URL_SAFE_NO_PAD.decode(&kept.key).unwrap_or_default();
        Account::builder_with_http(self.client.boxed())
            .from_parts(kept.id.clone(), PrivatePkcs8KeyDer::from(key), self.client.directory().to_owned())
            .await
            .map_err(|error| failure::explain(self.client, "its directory", error))
    }

    /// What is kept, if it is an account at this CA. What cannot be read as one is put aside.
    async fn read(&self) -> Result<Option<Kept>, IssueError> {
        let (store, file) = (self.store.clone(), self.file());
        let text = on_disk(move || store.read_text(&file)).await?;
        let kept = text.as_deref().map(serde_json::from_str::<Kept>);
        match kept {
            Some(Ok(kept)) if is_key(&kept.key) => {
                Ok(Some(kept).filter(|kept| kept.directory == self.client.directory()))
            }
            Some(_) => {
                tracing::warn!(issuer = self.name, file = self.file(), "no account can be read from this file");
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// Keeps an account. Another one, of another CA or unreadable, is kept beside it.
    async fn write(&self, kept: Kept) -> Result<(), IssueError> {
        let (store, file) = (self.store.clone(), self.file());
        on_disk(move || {
            let text = serde_json::to_string_pretty(&kept)?;
            if let Some(old) = store.read_text(&file)? {
                let is_same = serde_json::from_str::<Kept>(&old).is_ok_and(|old| old.id == kept.id);
                if !is_same {
                    store.write_text(&format!("{file}.old"), &old)?;
                }
            }
            store.write_text(&file, &text)
        })
        .await
    }

    async fn lock(&self) -> Result<Lock, IssueError> {
        let give_up = tokio::time::Instant::now() + LOCKED_AT_MOST;
        loop {
            let (store, name) = (self.store.clone(), format!("{ACCOUNTS}/{}", self.name));
            if let Some(lock) = on_disk(move || store.try_lock(&name, SystemTime::now())).await? {
                return Ok(lock);
            }
            if tokio::time::Instant::now() > give_up {
                return Err(local(format!("another process holds the account of issuer {} for too long", self.name)));
            }
            tokio::time::sleep(LOCK_STEP).await;
        }
    }

    fn file(&self) -> String {
        format!("{ACCOUNTS}/{}/account.json", self.name)
    }
}

/// An account that signs nothing, for what everybody may ask.
pub(super) async fn nobody(client: &Client) -> Result<Account, IssueError> {
    let explain = |error| failure::explain(client, "its directory", error);
    let (_, key) = Key::generate_pkcs8().map_err(explain)?;
    let builder = Account::builder_with_http(client.boxed());
    builder.from_parts(String::new(), key, client.directory().to_owned()).await.map_err(explain)
}

fn is_key(text: &str) -> bool {
    let key = BASE64_URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
    Key::from_pkcs8_der(PrivatePkcs8KeyDer::from(key)).is_ok()
}

/// Contacts are URLs (RFC 8555 section 7.3).
fn contact(email: &str) -> Vec<String> {
    let email = email.trim();
    if email.is_empty() { Vec::new() } else { vec![format!("mailto:{email}")] }
}

async fn external_key(external: &ExternalAccount) -> Result<ExternalAccountKey, IssueError> {
    let file = external.hmac_file.clone();
    let text = on_disk(move || std::fs::read_to_string(file)).await.map_err(|error| {
        local(format!("the HMAC key {} of the external account: {error}", external.hmac_file.display()))
    })?;
    let key = hmac_key(&text).ok_or_else(|| {
        local(format!("the HMAC key {} of the external account is no base64url", external.hmac_file.display()))
    })?;
    Ok(ExternalAccountKey::new(external.key_id.clone(), &key))
}

/// CAs hand the key out in base64url; some with padding, some in the other alphabet.
fn hmac_key(text: &str) -> Option<Vec<u8>> {
    let text = text.trim().trim_end_matches('=').replace('+', "-").replace('/', "_");
    BASE64_URL_SAFE_NO_PAD.decode(text).ok().filter(|key| !key.is_empty())
}

/// Runs what may block away from the runtime's thread.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, IssueError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| local(format!("the account cannot be kept: {error}"))),
        Err(error) => Err(local(error.to_string())),
    }
}

fn local(message: String) -> IssueError {
    IssueError { kind: FailureKind::Local, message, retry_after: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hmac_keys_are_read_as_cas_write_them() {
        for text in ["-_8", "-_8=", "+/8=", " -_8 \n"] {
            assert_eq!(hmac_key(text).as_deref(), Some(&[0xfb, 0xff][..]), "{text}");
        }
        for text in ["", "=", "no key!"] {
            assert_eq!(hmac_key(text), None, "{text}");
        }
    }
}
