//! How does a web service write a record? A POST of `{"action": .., "name": .., "value": ..}`; 2xx is yes.

use http::header::CONTENT_TYPE;

use super::{Action, HOOK_WITHIN};
use crate::certs::acme::client::innermost;
use crate::certs::acme::quote::quoted;

/// No more of an answer is read.
const LONGEST: usize = 4096;

pub(super) async fn post(url: &str, action: Action, name: &str, value: &str) -> Result<(), String> {
    send(url, action, name, value)
        .await
        .map_err(|error| format!("{} at {}: {error}", action.name(), without_secrets(url)))
}

async fn send(url: &str, action: Action, name: &str, value: &str) -> Result<(), String> {
    let client = reqwest::Client::builder()
        .user_agent(concat!("limani/", env!("CARGO_PKG_VERSION")))
        .timeout(HOOK_WITHIN)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| innermost(&error))?;
    let body = serde_json::json!({"action": action.name(), "name": name, "value": value}).to_string();
    let sent = client.post(url).header(CONTENT_TYPE, "application/json").body(body).send().await;
    let mut response = sent.map_err(|error| innermost(&error.without_url()))?;
    if response.status().is_success() {
        return Ok(());
    }
    let mut words = Vec::new();
    while let Ok(Some(piece)) = response.chunk().await {
        words.extend_from_slice(&piece);
        if words.len() >= LONGEST {
            break;
        }
    }
    Err(format!("{} {}", response.status(), quoted(&String::from_utf8_lossy(&words))))
}

/// Queries and user names of such addresses may be passwords.
fn without_secrets(url: &str) -> String {
    let Ok(url) = reqwest::Url::parse(url) else { return "an address that is no URL".to_owned() };
    format!("{}://{}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}
