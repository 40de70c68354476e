//! How is a CA asked? Over HTTPS, with limits on everything that comes back.
//!
//! The library trusts the URLs and headers of a CA more than it may; what it cannot bear is refused here.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LINK, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient, Problem};
use reqwest::Url;
use serde_json::Value;

use super::quote::quoted;
use crate::base::clock;
use crate::certs::issue::{FailureKind, IssueError};
use crate::snapshot::issuance::AcmeIssuer;

const CONNECT_WITHIN: Duration = Duration::from_secs(10);
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// The largest answer; chains and directories have some kilobytes.
const LARGEST: usize = 1024 * 1024;
/// Directories may move; signed requests may not (RFC 8555 section 6.4).
const MOST_REDIRECTS: usize = 3;
/// No wish to be left alone counts for longer.
const LONGEST_WAIT: u64 = 7 * 24 * 3600;
/// No more chains of one certificate are looked at.
const MOST_ALTERNATES: usize = 8;
/// How long renewal information holds if the CA does not say so.
const ASK_AGAIN: u64 = 6 * 3600;

/// Why an exchange gave nothing that the protocol knows.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    #[error("answered {status}{words}")]
    Status { status: u16, words: String },
    #[error("gave an answer that is no ACME: {0}")]
    Nonsense(String),
}

/// What the CA said beside the bodies that the library reads.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    /// The status of its last answer; 0 before the first.
    pub status: u16,
    /// From its last answer, if that was an error.
    pub retry_after: Option<Duration>,
    /// `meta.caaIdentities` of the directory: the names that stand for the CA in DNS.
    pub identities: Vec<String>,
    /// `meta.externalAccountRequired` of the directory.
    pub wants_external_account: bool,
    /// The last chain of certificates that came, and where others for the same certificate are.
    pub chain: Bytes,
    pub alternates: Vec<String>,
}

/// A connection to one CA, for one order. Clones share everything.
#[derive(Clone)]
pub(super) struct Client(Arc<Inner>);

struct Inner {
    web: reqwest::Client,
    directory: Url,
    heard: Mutex<Heard>,
}

impl Client {
    /// # Errors
    ///
    /// The URL of the directory or the file of roots is of no use.
    pub(super) fn new(issuer: &AcmeIssuer) -> Result<Client, IssueError> {
        let address = &issuer.directory;
        let directory = usable(address).ok_or_else(|| local(format!("{address} is no URL of a CA's directory")))?;
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("limani/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_WITHIN)
            .timeout(ANSWER_WITHIN)
            .redirect(reqwest::redirect::Policy::none())
            .https_only(directory.scheme() == "https");
        if let Some(file) = &issuer.root {
            let roots = std::fs::read(file).map_err(|error| error.to_string());
            let roots = roots.and_then(|pem| {
                let roots = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| innermost(&error))?;
                if roots.is_empty() { Err("there is no certificate in it".to_owned()) } else { Ok(roots) }
            });
            let roots = roots.map_err(|error| local(format!("root {} cannot be used: {error}", file.display())))?;
            builder = builder.tls_certs_only(roots);
        }
        let web = builder.build().map_err(|error| local(format!("no HTTP client: {}", innermost(&error))))?;
        Ok(Client(Arc::new(Inner { web, directory, heard: Mutex::default() })))
    }

    /// The CA as messages name it.
    pub(super) fn host(&self) -> &str {
        self.0.directory.host_str().unwrap_or("the CA")
    }

    pub(super) fn directory(&self) -> &str {
        self.0.directory.as_str()
    }

    pub(super) fn heard(&self) -> Heard {
        self.0.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// For an account of the library.
    pub(super) fn boxed(&self) -> Box<dyn HttpClient> {
        Box::new(self.clone())
    }

    fn hear(&self, change: impl FnOnce(&mut Heard)) {
        change(&mut self.0.heard.lock().unwrap_or_else(PoisonError::into_inner));
    }

    async fn exchange(&self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Trouble> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let url = usable(&head.uri.to_string()).ok_or_else(|| nonsense(format!("{} is no URL", head.uri)))?;
        let is_directory = head.method == Method::GET && url == self.0.directory;
        let is_plain = head.method == Method::GET || head.method == Method::HEAD;
        let mut response = self.send(&head.method, url.clone(), &head.headers, body, is_plain).await?;

        let (status, mut headers) = (response.status(), std::mem::take(response.headers_mut()));
        let wait = wait(&headers, clock::now());
        let failed = status.is_client_error() || status.is_server_error();
        self.hear(|heard| {
            heard.status = status.as_u16();
            heard.retry_after = wait.filter(|_| failed).map(Duration::from_secs);
        });
        let body = bounded(response).await?;
        if failed || (is_directory && status != StatusCode::OK) {
            refused(status, &headers, &body, is_directory)?;
        } else if is_directory {
            self.look_at(&body)?;
        } else if !body.is_empty() && is_web_page(&headers) {
            return Err(nonsense("a web page".to_owned()));
        }

        if !failed && is_of(&headers, "application/pem-certificate-chain") {
            self.hear(|heard| {
                heard.chain = body.clone();
                heard.alternates = alternates(&headers, &url);
            });
        }
        // Renewal information is the other plain request; without this header the library takes none.
        let wait = if head.method == Method::GET { wait.or(Some(ASK_AGAIN)) } else { wait };
        headers.remove(RETRY_AFTER);
        if let Some(seconds) = wait {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        let mut answer = Response::new(Full::new(body));
        *answer.status_mut() = status;
        *answer.headers_mut() = headers;
        Ok(BytesResponse::from(answer))
    }

    /// Sends a request, and follows redirects of plain ones.
    async fn send(
        &self,
        method: &Method,
        mut url: Url,
        headers: &HeaderMap,
        body: Bytes,
        is_plain: bool,
    ) -> Result<reqwest::Response, Trouble> {
        for _ in 0..=MOST_REDIRECTS {
            let mut call = self.0.web.request(method.clone(), url.clone());
            if let Some(kind) = headers.get(CONTENT_TYPE) {
                call = call.header(CONTENT_TYPE, kind).body(body.clone());
            }
            let response = call.send().await.map_err(unreachable)?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let next = response.headers().get(LOCATION).and_then(|next| next.to_str().ok());
            match next.and_then(|next| url.join(next).ok()) {
                Some(next) if is_plain => url = next,
                _ => return Err(nonsense("a redirect of a request that cannot follow it".to_owned())),
            }
        }
        Err(nonsense("too many redirects".to_owned()))
    }

    /// Refuses a directory that the library would stumble over, and keeps what it does not read.
    fn look_at(&self, body: &[u8]) -> Result<(), Trouble> {
        let directory: Value =
            serde_json::from_slice(body).map_err(|_| nonsense("its directory is no JSON".to_owned()))?;
        for key in ["newNonce", "newAccount", "newOrder"] {
            let entry = directory.get(key).and_then(Value::as_str);
            if entry.and_then(usable).is_none() {
                return Err(nonsense(format!("its directory has no URL for {key}")));
            }
        }
        let meta = directory.get("meta");
        let identities = meta.and_then(|meta| meta.get("caaIdentities")).and_then(Value::as_array);
        let wants = meta.and_then(|meta| meta.get("externalAccountRequired")).and_then(Value::as_bool);
        self.hear(|heard| {
            heard.identities = identities.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
            heard.wants_external_account = wants.unwrap_or(false);
        });
        Ok(())
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.clone();
        Box::pin(async move { client.exchange(request).await.map_err(|trouble| Error::Other(Box::new(trouble))) })
    }
}

/// A URL that every part understands: of HTTP, and of characters that may stand in one.
fn usable(address: &str) -> Option<Url> {
    let url = Url::parse(address).ok()?;
    let understood = matches!(url.scheme(), "http" | "https") && url.has_host() && address.parse::<http::Uri>().is_ok();
    understood.then_some(url)
}

/// An error that says nothing in the protocol's words is told apart here; the library reads the others.
fn refused(status: StatusCode, headers: &HeaderMap, body: &[u8], is_directory: bool) -> Result<(), Trouble> {
    let problem = serde_json::from_slice::<Problem>(body).ok().filter(|problem| problem.r#type.is_some());
    let words = match problem {
        Some(_) if !is_directory => return Ok(()),
        Some(problem) => problem.detail.map(|detail| format!(": {}", quoted(&detail))),
        None if is_web_page(headers) => None,
        None => Some(quoted(&String::from_utf8_lossy(body)))
            .filter(|words| !words.is_empty())
            .map(|words| format!(": {words}")),
    };
    Err(Trouble::Status { status: status.as_u16(), words: words.unwrap_or_default() })
}

fn is_web_page(headers: &HeaderMap) -> bool {
    is_of(headers, "text/html")
}

fn is_of(headers: &HeaderMap, expected: &str) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.to_ascii_lowercase().starts_with(expected)
}

/// Where other chains for the same certificate are (RFC 8555 section 7.4.2).
fn alternates(headers: &HeaderMap, base: &Url) -> Vec<String> {
    let links = headers.get_all(LINK).iter().filter_map(|link| link.to_str().ok()).flat_map(|links| links.split(','));
    let alternate = |link: &str| {
        let (address, about) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_one = about.split(';').any(|word| matches!(word.trim(), "rel=\"alternate\"" | "rel=alternate"));
        is_one.then(|| base.join(address).ok()).flatten()
    };
    links.filter_map(alternate).filter_map(|url| usable(url.as_str())).map(String::from).take(MOST_ALTERNATES).collect()
}

/// Seconds until the CA wants to hear from us again (RFC 9110 section 10.2.3), never more than [`LONGEST_WAIT`].
fn wait(headers: &HeaderMap, now: i64) -> Option<u64> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = match text.parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => LONGEST_WAIT,
        Err(_) => {
            let date = chrono::DateTime::parse_from_rfc2822(text).ok()?;
            u64::try_from(date.timestamp().saturating_sub(now)).unwrap_or(0)
        }
    };
    Some(seconds.min(LONGEST_WAIT))
}

/// A body as a whole, if it is not too large.
async fn bounded(mut response: reqwest::Response) -> Result<Bytes, Trouble> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(unreachable)? {
        if body.len() + piece.len() > LARGEST {
            return Err(nonsense(format!("more than {LARGEST} bytes")));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.into())
}

fn nonsense(what: String) -> Trouble {
    Trouble::Nonsense(what)
}

fn unreachable(error: reqwest::Error) -> Trouble {
    if error.is_timeout() {
        return Trouble::Unreachable("no answer in time".to_owned());
    }
    Trouble::Unreachable(innermost(&error))
}

/// The cause of an error without those that only hand it on.
pub(super) fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

fn local(message: String) -> IssueError {
    IssueError { kind: FailureKind::Local, message, retry_after: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_to_wait_is_read_and_bounded() {
        // Sun, 06 Nov 1994 08:49:37 GMT.
        let now = 784_111_777;
        let table = [
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("0", Some(0)),
            ("18446744073709551615", Some(LONGEST_WAIT)),
            ("99999999999999999999999", Some(LONGEST_WAIT)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(LONGEST_WAIT)),
            ("soon", None),
            ("-1", None),
            ("", None),
        ];
        for (text, expected) in table {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]);
            assert_eq!(wait(&headers, now), expected, "{text}");
        }
    }

    #[test]
    fn other_chains_are_found_by_their_links() {
        let links = [
            "<https://ca.example/dir>;rel=\"index\"",
            "</cert/1/1>; rel=\"alternate\", <https://ca.example/cert/1/2>;rel=alternate",
            "<javascript:x>;rel=\"alternate\"",
            "nonsense; rel=\"alternate\"",
        ];
        let headers: HeaderMap = links.iter().map(|link| (LINK, HeaderValue::from_static(link))).collect();
        let base = Url::parse("https://ca.example/cert/1").unwrap();
        assert_eq!(alternates(&headers, &base), ["https://ca.example/cert/1/1", "https://ca.example/cert/1/2"]);
    }

    #[test]
    fn addresses_of_a_directory_are_urls_that_every_part_understands() {
        for good in ["https://ca.example/dir", "http://127.0.0.1:14000/x?y"] {
            assert!(usable(good).is_some(), "{good}");
        }
        for bad in ["", "ca.example", "https://", "ftp://ca.example/", "https://ca.example/a b", "file:///etc/passwd"] {
            assert!(usable(bad).is_none(), "{bad}");
        }
    }
}
