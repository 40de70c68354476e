//! How does one embedded service call another? Through the gateway, by its cluster name, with the visitor's context.

use std::net::SocketAddr;
use std::time::Duration;

use http::header::{HOST, HeaderMap, HeaderName};
use serde_json::Value;

/// What a call hands on, so that rules on the test user and traces work at every hop.
const HANDED_ON: [HeaderName; 9] = [
    HeaderName::from_static("end-user"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("b3"),
    HeaderName::from_static("x-b3-traceid"),
    HeaderName::from_static("x-b3-spanid"),
    HeaderName::from_static("x-b3-parentspanid"),
    HeaderName::from_static("x-b3-sampled"),
];

/// A whole call may take this long.
const LIMIT: Duration = Duration::from_secs(10);

/// The way into the cluster: the gateway's HTTP port.
#[derive(Clone, Debug)]
pub(super) struct Inside {
    client: reqwest::Client,
    gateway: SocketAddr,
}

impl Inside {
    /// Calls go to `gateway`.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub(super) fn new(gateway: SocketAddr) -> Result<Inside, reqwest::Error> {
        let client = reqwest::Client::builder().no_proxy().timeout(LIMIT).build()?;
        Ok(Inside { client, gateway })
    }

    /// The JSON that `service` (a name of namespace default) gives for `path`; `None` if it gave none.
    pub(super) async fn get(&self, service: &str, path: &str, visitor: &HeaderMap) -> Option<Value> {
        let mut call = self
            .client
            .get(format!("http://{}{path}", self.gateway))
            .header(HOST, format!("{service}.default.svc.cluster.local"));
        for name in &HANDED_ON {
            if let Some(value) = visitor.get(name) {
                call = call.header(name, value);
            }
        }
        match answer_to(call).await {
            Ok(document) => Some(document),
            Err(error) => {
                tracing::debug!(service, path, %error, "a call inside the demo failed");
                None
            }
        }
    }
}

async fn answer_to(call: reqwest::RequestBuilder) -> anyhow::Result<Value> {
    let body = call.send().await?.error_for_status()?.bytes().await?;
    Ok(serde_json::from_slice(&body)?)
}
