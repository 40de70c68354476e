//! A CA that does what the test says, for what no real one does on demand: limits, faults, nonsense, delays.
//!
//! It speaks RFC 8555 as far as clients need, and believes everything: every name is proven, no signature is verified.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, PublicKeyData, SerialNumber, SignatureAlgorithm};
use serde_json::{Value, json};
use tempfile::TempDir;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension};

use super::address;
use super::backend::on_own_runtime;
use super::certificate::Authority;

const PORT: u16 = 14_001;
/// The serial number of its first certificate; the others follow.
const FIRST: u64 = 1000;

/// What it can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Door {
    Directory,
    Nonce,
    NewAccount,
    NewOrder,
    Order,
    Authorization,
    Finalize,
    Certificate,
    RenewalInfo,
}

/// An answer that the test wants.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

/// The running CA; its thread ends with the process.
pub struct Ca {
    /// The URL to begin with.
    pub directory: String,
    /// Who signed the certificate of its web server, and what it issues; a file in PEM.
    pub root: PathBuf,
    shared: Arc<Shared>,
    _folder: TempDir,
}

struct Shared {
    base: String,
    authority: Authority,
    state: Mutex<State>,
}

struct State {
    /// What the next requests get; `None`: what a CA would say.
    scripts: HashMap<Door, VecDeque<Option<Reply>>>,
    asked: Vec<(Door, Value)>,
    nonces: u64,
    /// The keys of accounts, as JWK; the number of one is in its URL.
    accounts: Vec<Value>,
    orders: Vec<Order>,
    validity: Duration,
    tells_windows: bool,
    /// How often an order is `processing` before it is done.
    polls: usize,
    /// So many certificates, from the first, should be renewed at once.
    renewed_early: usize,
}

struct Order {
    identifiers: Value,
    /// As in RFC 9773 section 5.
    replaces: Value,
    /// In PEM, and how often it may still be asked for in vain.
    certificate: Option<(String, usize)>,
}

impl Reply {
    pub fn new(status: u16, body: &str) -> Self {
        Reply { status, headers: Vec::new(), body: body.to_owned() }
    }

    /// A problem document (RFC 7807) with one of the types of RFC 8555 section 6.7.
    pub fn problem(status: u16, kind: &str, detail: &str) -> Self {
        let body = json!({"type": format!("urn:ietf:params:acme:error:{kind}"), "detail": detail, "status": status});
        Reply::new(status, &body.to_string()).with("content-type", "application/problem+json")
    }

    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    fn json(status: u16, body: &Value) -> Self {
        Reply::new(status, &body.to_string()).with("content-type", "application/json")
    }
}

impl Ca {
    /// Certificates of 90 days, at once.
    pub fn new() -> Self {
        let address: SocketAddr = (address::fresh(), PORT).into();
        let listener = std::net::TcpListener::bind(address).expect("an address of our own");
        let folder = tempfile::tempdir().expect("a folder for the CA");
        let authority = Authority::new();
        let root = PathBuf::from(authority.write(folder.path()));
        let identity = authority.identity(&[&address.ip().to_string()]);
        let state = State {
            scripts: HashMap::new(),
            asked: Vec::new(),
            nonces: 0,
            accounts: Vec::new(),
            orders: Vec::new(),
            validity: Duration::from_secs(90 * 86_400),
            tells_windows: true,
            polls: 0,
            renewed_early: 0,
        };
        let shared = Arc::new(Shared { base: format!("https://{address}"), authority, state: Mutex::new(state) });
        let served = Arc::clone(&shared);
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(identity.server()));
        on_own_runtime(listener, |listener| async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, acceptor) = (Arc::clone(&served), acceptor.clone());
                tokio::spawn(async move {
                    // A client that does not trust us ends here.
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| answer(request, Arc::clone(&shared)));
                    let served = hyper::server::conn::http1::Builder::new();
                    let _ = served.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Ca { directory: format!("{}/directory", shared.base), root, shared, _folder: folder }
    }

    /// How long its certificates are valid from now on, and as long before; it does not say when to renew them.
    pub fn validity(self, validity: Duration) -> Self {
        self.state().validity = validity;
        self.state().tells_windows = false;
        self
    }

    /// Orders are `processing` so often, with a Retry-After of one second, before the certificate is there.
    pub fn slow(self, polls: usize) -> Self {
        self.state().polls = polls;
        self
    }

    /// Orders are done at once from now on, those under way too.
    pub fn hurry(&self) {
        let mut state = self.state();
        state.polls = 0;
        for (_, left) in state.orders.iter_mut().filter_map(|order| order.certificate.as_mut()) {
            *left = 0;
        }
    }

    /// The first `count` certificates have a renewal window in the past (RFC 9773); the others' is far away.
    pub fn renewed_early(self, count: usize) -> Self {
        self.state().renewed_early = count;
        self
    }

    /// The next requests at this door, as many as there are replies, are answered so and do nothing.
    pub fn script(&self, door: Door, replies: impl IntoIterator<Item = Reply>) {
        self.state().scripts.entry(door).or_default().extend(replies.into_iter().map(Some));
    }

    /// The request at this door that comes after so many others is answered so.
    pub fn script_after(&self, door: Door, others: usize, reply: Reply) {
        let mut state = self.state();
        let script = state.scripts.entry(door).or_default();
        script.extend(vec![None; others]);
        script.push_back(Some(reply));
    }

    /// From now on no account is known.
    pub fn forget_accounts(&self) {
        self.state().accounts.iter_mut().for_each(|key| *key = Value::Null);
    }

    /// What was sent to this door so far: payloads, or paths where there is none.
    pub fn asked(&self, door: Door) -> Vec<Value> {
        self.state().asked.iter().filter(|(at, _)| *at == door).map(|(_, payload)| payload.clone()).collect()
    }

    /// How many certificates it issued.
    pub fn issued(&self) -> usize {
        self.state().orders.iter().filter(|order| order.certificate.is_some()).count()
    }

    /// The root for curl's `--cacert`.
    pub fn root(&self) -> String {
        self.root.to_string_lossy().into_owned()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("no test panics with it")
    }
}

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let path = head.uri.path().trim_start_matches('/').to_owned();
    let (word, number) = path.split_once('/').unwrap_or((&path, ""));
    let mut state = shared.state.lock().expect("no test panics with it");
    state.nonces += 1;
    let nonce = BASE64_URL_SAFE_NO_PAD.encode(format!("nonce-{}", state.nonces));
    let reply = match door(word) {
        None => Reply::new(404, ""),
        Some(door) => {
            let (protected, payload) = signed(&body);
            let told = if payload.is_null() { Value::from(path.as_str()) } else { payload.clone() };
            state.asked.push((door, told));
            match state.scripts.get_mut(&door).and_then(VecDeque::pop_front).flatten() {
                Some(reply) => reply,
                None => shared.reply(&mut state, door, number, &protected, &payload),
            }
        }
    };
    let mut response = Response::builder().status(reply.status).header("replay-nonce", nonce);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    Ok(response.body(Full::from(reply.body)).expect("the test's headers are good"))
}

fn door(word: &str) -> Option<Door> {
    Some(match word {
        "directory" => Door::Directory,
        "nonce" => Door::Nonce,
        "new-account" => Door::NewAccount,
        "new-order" => Door::NewOrder,
        "order" => Door::Order,
        "authorization" => Door::Authorization,
        "finalize" => Door::Finalize,
        "certificate" => Door::Certificate,
        "renewal-info" => Door::RenewalInfo,
        _ => return None,
    })
}

/// The protected header and the payload of a signed request; null where there is none.
fn signed(body: &[u8]) -> (Value, Value) {
    let envelope: Value = serde_json::from_slice(body).unwrap_or_default();
    let part = |name: &str| {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(envelope[name].as_str().unwrap_or_default()).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    };
    (part("protected"), part("payload"))
}

impl Shared {
    fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.base)
    }

    fn reply(&self, state: &mut State, door: Door, number: &str, protected: &Value, payload: &Value) -> Reply {
        let known = protected["kid"].as_str().is_none_or(|url| self.is_known(state, url));
        if !known {
            return Reply::problem(400, "accountDoesNotExist", "no such account");
        }
        match door {
            Door::Directory => Reply::json(200, &self.directory(state)),
            Door::Nonce => Reply::new(200, ""),
            Door::NewAccount => self.new_account(state, &protected["jwk"], payload),
            Door::NewOrder => self.new_order(state, payload),
            Door::RenewalInfo => state.renewal_info(number),
            Door::Order | Door::Authorization | Door::Finalize | Door::Certificate => {
                let number = number.parse().unwrap_or(usize::MAX);
                if state.orders.get(number).is_none() {
                    return Reply::problem(404, "malformed", "no such order");
                }
                match door {
                    Door::Authorization => self.authorization(&state.orders[number], number),
                    Door::Finalize => self.finalize(state, number, payload),
                    Door::Certificate => {
                        let chain = state.orders[number].certificate.as_ref().map_or("", |(pem, _)| pem.as_str());
                        Reply::new(200, chain).with("content-type", "application/pem-certificate-chain")
                    }
                    _ => self.order(&mut state.orders[number], number),
                }
            }
        }
    }

    fn directory(&self, state: &State) -> Value {
        let mut directory = json!({
            "newNonce": self.url("nonce"), "newAccount": self.url("new-account"), "newOrder": self.url("new-order"),
            "revokeCert": self.url("revoke"), "keyChange": self.url("key-change"),
        });
        if state.tells_windows {
            directory["renewalInfo"] = self.url("renewal-info").into();
        }
        directory
    }

    fn is_known(&self, state: &State, account: &str) -> bool {
        let number = account.rsplit('/').next().and_then(|number| number.parse::<usize>().ok());
        number.and_then(|number| state.accounts.get(number)).is_some_and(|key| !key.is_null())
    }

    fn new_account(&self, state: &mut State, key: &Value, payload: &Value) -> Reply {
        let (status, number) = match state.accounts.iter().position(|known| known == key) {
            Some(number) => (200, number),
            None if payload["onlyReturnExisting"] == true => {
                return Reply::problem(400, "accountDoesNotExist", "no such account");
            }
            None => {
                state.accounts.push(key.clone());
                (201, state.accounts.len() - 1)
            }
        };
        let location = self.url(&format!("account/{number}"));
        let orders = self.url(&format!("orders/{number}"));
        Reply::json(status, &json!({"status": "valid", "orders": orders})).with("location", &location)
    }

    fn new_order(&self, state: &mut State, payload: &Value) -> Reply {
        let (identifiers, replaces) = (payload["identifiers"].clone(), payload["replaces"].clone());
        state.orders.push(Order { identifiers, replaces, certificate: None });
        let number = state.orders.len() - 1;
        let made = self.order(&mut state.orders[number], number);
        Reply { status: 201, ..made }
    }

    fn order(&self, order: &mut Order, number: usize) -> Reply {
        let mut body = json!({
            "status": "ready", "identifiers": order.identifiers, "expires": "2100-01-01T00:00:00Z",
            "authorizations": [self.url(&format!("authorization/{number}"))],
            "finalize": self.url(&format!("finalize/{number}")),
        });
        if !order.replaces.is_null() {
            body["replaces"] = order.replaces.clone();
        }
        let mut processing = false;
        match &mut order.certificate {
            None => {}
            Some((_, 0)) => {
                body["status"] = "valid".into();
                body["certificate"] = self.url(&format!("certificate/{number}")).into();
            }
            Some((_, left)) => {
                *left -= 1;
                processing = true;
                body["status"] = "processing".into();
            }
        }
        let reply = Reply::json(200, &body).with("location", &self.url(&format!("order/{number}")));
        if processing { reply.with("retry-after", "1") } else { reply }
    }

    fn authorization(&self, order: &Order, number: usize) -> Reply {
        let body = json!({
            "status": "valid", "identifier": order.identifiers[0], "expires": "2100-01-01T00:00:00Z",
            "challenges": [{"type": "http-01", "url": self.url(&format!("challenge/{number}")), "token": "believed",
                            "status": "valid"}],
        });
        Reply::json(200, &body)
    }

    fn finalize(&self, state: &mut State, number: usize, payload: &Value) -> Reply {
        let csr = BASE64_URL_SAFE_NO_PAD.decode(payload["csr"].as_str().unwrap_or_default()).unwrap_or_default();
        let serial = FIRST + number as u64;
        let Some(chain) = self.issue(&csr, serial, state.validity) else {
            return Reply::problem(400, "badCSR", "this is no request for a certificate");
        };
        state.orders[number].certificate = Some((chain, state.polls));
        self.order(&mut state.orders[number], number)
    }

    fn issue(&self, csr: &[u8], serial: u64, validity: Duration) -> Option<String> {
        let (_, request) = X509CertificationRequest::from_der(csr).ok()?;
        let key = AskedKey(request.certification_request_info.subject_pki.subject_public_key.data.to_vec());
        let mut names = Vec::new();
        for extension in request.requested_extensions()? {
            let ParsedExtension::SubjectAlternativeName(listed) = extension else { continue };
            names.extend(listed.general_names.iter().filter_map(|name| match name {
                GeneralName::DNSName(name) => Some((*name).to_owned()),
                GeneralName::IPAddress(bytes) => {
                    <[u8; 4]>::try_from(*bytes).ok().map(|bytes| std::net::Ipv4Addr::from(bytes).to_string())
                }
                _ => None,
            }));
        }
        let mut params = CertificateParams::new(names).ok()?;
        let now = rcgen::date_time_ymd(1970, 1, 1) + SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        params.not_before = now - validity;
        params.not_after = now + validity;
        params.serial_number = Some(SerialNumber::from(serial));
        params.use_authority_key_identifier_extension = true;
        self.authority.sign(&params, &key)
    }
}

impl State {
    /// RFC 9773 section 4.2; the identifier ends with the serial number.
    fn renewal_info(&self, identifier: &str) -> Reply {
        let serial = identifier.rsplit('.').next().and_then(|text| BASE64_URL_SAFE_NO_PAD.decode(text).ok());
        let serial = serial.unwrap_or_default().iter().fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte));
        let now = chrono::Utc::now();
        let start = match serial < FIRST + self.renewed_early as u64 {
            true => now - chrono::TimeDelta::hours(2),
            false => now + chrono::TimeDelta::days(60),
        };
        let window = json!({"start": start.to_rfc3339(), "end": (start + chrono::TimeDelta::hours(1)).to_rfc3339()});
        let body = json!({"suggestedWindow": window, "explanationURL": "https://ca.test/why"});
        Reply::json(200, &body).with("retry-after", "21600")
    }
}

/// A P-256 key of a request.
struct AskedKey(Vec<u8>);

impl PublicKeyData for AskedKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}
