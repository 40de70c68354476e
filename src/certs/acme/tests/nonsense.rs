//! A CA that answers anything: every nonsense becomes an error, without a panic and in time.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::*;
use crate::base::task;
use crate::snapshot::issuance::ChallengeKind::Http01;

/// What one path answers: the base URL stands for `BASE`.
#[derive(Clone)]
struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: &'static str,
}

const DIRECTORY: &str =
    r#"{"newNonce":"BASE/nonce","newAccount":"BASE/account","newOrder":"BASE/order","renewalInfo":"BASE/ari"}"#;
const ORDER: &str = r#"{"status":"pending","authorizations":["BASE/authz"],"finalize":"BASE/finalize"}"#;
const READY: &str = r#"{"status":"ready","authorizations":[],"finalize":"BASE/finalize"}"#;
const VALID: &str = r#"{"status":"valid","authorizations":[],"finalize":"BASE/finalize","certificate":"BASE/cert"}"#;
const AUTHZ: &str = r#"{"identifier":{"type":"dns","value":"a.example"},"status":"pending",
    "challenges":[{"type":"http-01","url":"BASE/chall","token":"abc","status":"pending"}]}"#;
const PROBLEM: &str = r#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many orders"}"#;
/// Stands for a body without an end.
const ENDLESS: &str = "(endless)";

fn json(body: &'static str) -> Reply {
    Reply { status: 200, headers: vec![("content-type", "application/json".into())], body }
}

fn reply(status: u16, headers: &[(&'static str, &str)], body: &'static str) -> Reply {
    Reply { status, headers: headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(), body }
}

/// What the paths answer where nothing else is said: all is well until the certificate.
fn usual(path: &str) -> Reply {
    match path {
        "/dir" => json(DIRECTORY),
        "/nonce" => reply(200, &[], ""),
        "/account" => reply(201, &[("location", "BASE/account/1")], "{}"),
        "/order" => reply(201, &[("location", "BASE/order/1")], READY),
        "/finalize" | "/order/1" => json(VALID),
        "/authz" => json(AUTHZ),
        "/chall" => json(r#"{"type":"http-01","url":"BASE/chall","token":"abc","status":"pending"}"#),
        "/cert" => reply(200, &[("content-type", "application/pem-certificate-chain")], "nothing"),
        _ => reply(404, &[], "no such page"),
    }
}

struct Text {
    rest: Bytes,
    is_endless: bool,
}

impl Body for Text {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.is_endless {
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b' '; 4096])))));
        }
        let rest = std::mem::take(&mut self.rest);
        Poll::Ready((!rest.is_empty()).then(|| Ok(Frame::data(rest))))
    }
}

/// A CA of which the test changes single answers.
struct Nonsense {
    base: String,
    changed: Arc<Mutex<Vec<(&'static str, Reply)>>>,
}

impl Nonsense {
    async fn start() -> Nonsense {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let changed: Arc<Mutex<Vec<(&'static str, Reply)>>> = Arc::default();
        let (shared, root) = (changed.clone(), base.clone());
        task::spawn("nonsense", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, root) = (shared.clone(), root.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let path = request.uri().path();
                    let changed = shared.lock().unwrap();
                    let reply = changed.iter().find(|(at, _)| *at == path).map(|(_, reply)| reply.clone());
                    let reply = reply.unwrap_or_else(|| usual(path));
                    let mut response = Response::builder().status(reply.status).header("replay-nonce", "n");
                    for (name, value) in reply.headers {
                        response = response.header(name, value.replace("BASE", &root));
                    }
                    let is_endless = reply.body == ENDLESS;
                    let body = Text { rest: reply.body.replace("BASE", &root).into(), is_endless };
                    std::future::ready(Ok::<_, Infallible>(response.body(body).unwrap()))
                });
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                task::spawn("nonsense connection", async move { drop(connection.await) });
            }
        });
        Nonsense { base, changed }
    }

    async fn order(&self, changed: Vec<(&'static str, Reply)>) -> IssueError {
        *self.changed.lock().unwrap() = changed;
        let folder = tempfile::tempdir().unwrap();
        let (acme, challenges) = acme(folder.path(), issuer(&format!("{}/dir", self.base), None, &[Http01]));
        let Err(error) = acme.gets(&["a.example"]).await else { panic!("nonsense was issued") };
        assert_eq!(challenges.http("abc"), None, "the answer stays");
        let left = std::fs::read_dir(folder.path().join("challenges/http")).into_iter().flatten().count();
        assert_eq!(left, 0, "the answer stays on disk");
        error
    }
}

#[tokio::test]
async fn every_nonsense_is_an_error() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let ca = Nonsense::start().await;
    use FailureKind::{Broken, Local, RateLimited, Refused, Unproven, Unreachable};
    let html =
        |status| reply(status, &[("content-type", "text/html; charset=utf-8")], "<html><body>Hello</body></html>");
    let order = |body| reply(201, &[("location", "BASE/order/1")], body);
    let table: Vec<(&'static str, Reply, FailureKind, &str)> = vec![
        ("/dir", json("{}"), Broken, "newNonce"),
        ("/dir", json("[]"), Broken, "newNonce"),
        ("/dir", json(""), Broken, "no JSON"),
        ("/dir", json("nonsense"), Broken, "no JSON"),
        ("/dir", json(r#"{"newNonce":7,"newAccount":"","newOrder":null}"#), Broken, "newNonce"),
        ("/dir", json(r#"{"newNonce":"a b","newAccount":"BASE/x","newOrder":"BASE/x"}"#), Broken, "newNonce"),
        (
            "/dir",
            json(r#"{"newNonce":"BASE/nonce","newAccount":"BASE/a","newOrder":"BASE/o","meta":7}"#),
            Broken,
            "no ACME",
        ),
        ("/dir", html(200), Broken, "no JSON"),
        ("/dir", html(503), Broken, "answered 503"),
        ("/dir", reply(404, &[], ""), Broken, "answered 404"),
        ("/dir", reply(204, &[], ""), Broken, "answered 204"),
        ("/dir", reply(429, &[("retry-after", "77")], "slow down"), RateLimited, "answered 429: slow down"),
        ("/dir", reply(302, &[("location", "BASE/dir")], ""), Broken, "redirects"),
        ("/dir", reply(302, &[], ""), Broken, "redirect"),
        ("/dir", json(ENDLESS), Broken, "more than"),
        ("/nonce", reply(500, &[], ""), Broken, "answered 500"),
        ("/nonce", reply(302, &[("location", "http://127.0.0.1:1/")], ""), Unreachable, "cannot be reached"),
        ("/account", html(200), Broken, "a web page"),
        ("/account", reply(201, &[], "{}"), Broken, "account URL"),
        ("/account", reply(302, &[("location", "BASE/account")], ""), Broken, "redirect"),
        ("/account", reply(400, &[], "[]"), Broken, "answered 400"),
        ("/account", reply(400, &[], r#"{"type":"urn:ietf:params:acme:error:badNonce"}"#), Broken, "badNonce"),
        (
            "/account",
            reply(403, &[], r#"{"type":"urn:ietf:params:acme:error:externalAccountRequired","detail":"who are you"}"#),
            Refused,
            "who are you (externalAccountRequired); give the issuer an external account",
        ),
        (
            "/order",
            reply(429, &[("retry-after", "18446744073709551615")], PROBLEM),
            RateLimited,
            "too many orders (rateLimited)",
        ),
        ("/order", reply(429, &[], ""), RateLimited, "answered 429"),
        ("/order", reply(503, &[("retry-after", "3")], "busy"), Broken, "answered 503: busy"),
        ("/order", order(""), Broken, "no ACME"),
        ("/order", order(r#"{"status":"dancing","authorizations":[],"finalize":""}"#), Broken, "no ACME"),
        (
            "/order",
            order(r#"{"status":"invalid","authorizations":[],"finalize":""}"#),
            Broken,
            "Invalid from the start",
        ),
        ("/order", order(r#"{"status":"ready","authorizations":[],"finalize":""}"#), Broken, ""),
        ("/order", reply(201, &[], READY), Broken, "order URL"),
        ("/authz", json("{}"), Broken, "no ACME"),
        (
            "/authz",
            json(r#"{"identifier":{"type":"dns","value":"a.example"},"status":"invalid","challenges":[]}"#),
            Broken,
            "Invalid",
        ),
        (
            "/authz",
            json(r#"{"identifier":{"type":"dns","value":"a.example"},"status":"pending","challenges":[]}"#),
            Local,
            "it offers nothing",
        ),
        (
            "/authz",
            json(
                r#"{"identifier":{"type":"dns","value":"a.example"},"status":"pending","challenges":
                [{"type":"http-01","url":"BASE/chall","token":"../../etc/passwd","status":"pending"}]}"#,
            ),
            Local,
            "token",
        ),
        ("/chall", html(500), Broken, "answered 500"),
        (
            "/chall",
            json(
                r#"{"type":"http-01","url":"BASE/chall","token":"abc","status":"invalid",
                "error":{"type":"urn:ietf:params:acme:error:connection","detail":"refused"}}"#,
            ),
            Unproven,
            "refused (connection)",
        ),
        ("/finalize", reply(403, &[], r#"{"type":"urn:ietf:params:acme:error:caa","detail":"no"}"#), Refused, "CAA"),
        ("/finalize", json("{}"), Broken, "no ACME"),
        ("/order/1", json(r#"{"status":"valid","authorizations":[],"finalize":""}"#), Broken, "certificate URL"),
        ("/order/1", json(r#"{"status":"invalid","authorizations":[],"finalize":""}"#), Broken, "order state"),
        ("/cert", reply(200, &[], "\u{0}\u{1}"), Broken, "no certificate"),
        ("/cert", json(ENDLESS), Broken, "more than"),
        ("/cert", html(200), Broken, "a web page"),
    ];
    for (path, reply, kind, words) in table {
        let mut changed = vec![(path, reply)];
        if matches!(path, "/authz" | "/chall") {
            changed.push(("/order", order(ORDER)));
        }
        let shown = changed.first().map(|(_, reply)| reply.body).unwrap_or_default();
        let error = ca.order(changed).await;
        assert!(error.kind == kind && error.message.contains(words), "{path} {shown}: {error:?}");
        if let Some(wait) = error.retry_after {
            assert!(wait <= Duration::from_secs(7 * 24 * 3600), "{path} {shown}: {error:?}");
        }
    }
    let error = ca.order(vec![("/order", reply(429, &[("retry-after", "77")], PROBLEM))]).await;
    assert_eq!(error.retry_after, Some(Duration::from_secs(77)));
}

#[tokio::test]
async fn addresses_and_roots_of_no_use_are_said() {
    let folder = tempfile::tempdir().unwrap();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    for directory in ["", "ca.example", "https://ca example/", "ftp://ca.example/"] {
        let (acme, _) = acme(folder.path(), issuer(directory, None, &[Http01]));
        let Err(error) = acme.gets(&["a.example"]).await else { panic!("{directory}") };
        assert!(error.kind == FailureKind::Local && error.message.contains("no URL"), "{error:?}");
    }
    let root = folder.path().join("root.pem");
    for text in [None, Some(""), Some("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n")] {
        if let Some(text) = text {
            std::fs::write(&root, text).unwrap();
        }
        let (acme, _) = acme(folder.path(), issuer("https://127.0.0.1:1/dir", Some(&root), &[Http01]));
        let Err(error) = acme.gets(&["a.example"]).await else { panic!("{text:?}") };
        assert!(error.kind == FailureKind::Local && error.message.contains("root.pem"), "{error:?}");
    }
}

#[tokio::test]
async fn renewal_information_may_be_missing_or_nonsense() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let ca = Nonsense::start().await;
    let folder = tempfile::tempdir().unwrap();
    let (acme, _) = acme(folder.path(), issuer(&format!("{}/dir", ca.base), None, &[Http01]));
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(["a.example".to_owned()]).unwrap();
    let nameless = params.self_signed(&key).unwrap();
    params.use_authority_key_identifier_extension = true;
    let authority = rcgen::Issuer::from_params(&params, &key);
    let leaf = params.signed_by(&key, &authority).unwrap();
    let path: &'static str = {
        let name = instant_acme::CertificateIdentifier::try_from(leaf.der()).unwrap();
        Box::leak(format!("/ari/{name}").into_boxed_str())
    };
    let window = r#"{"suggestedWindow":{"start":"2025-01-02T04:00:00Z","end":"2025-01-03T04:00:00Z"}}"#;
    let ask = async |changed: Vec<(&'static str, Reply)>, certificate: &[u8]| {
        *ca.changed.lock().unwrap() = changed;
        acme.renewal_window(certificate).await
    };
    let hours = |window: Option<RenewalWindow>| (window.unwrap().ask_again.as_secs() + 60) / 3600;
    assert_eq!(hours(ask(vec![(path, json(window))], leaf.der()).await.unwrap()), 6);
    let daily = reply(200, &[("retry-after", "99999999999")], window);
    assert_eq!(hours(ask(vec![(path, daily)], leaf.der()).await.unwrap()), 24);
    // No name to ask by, and a CA that knows no such question.
    assert_eq!(ask(vec![], nameless.der()).await, Ok(None));
    assert_eq!(ask(vec![], b"nonsense").await, Ok(None));
    let old = json(r#"{"newNonce":"BASE/nonce","newAccount":"BASE/account","newOrder":"BASE/order"}"#);
    assert_eq!(ask(vec![("/dir", old)], leaf.der()).await, Ok(None));
    for nonsense in
        [json("{}"), json(ENDLESS), reply(404, &[], ""), json(r#"{"suggestedWindow":{"start":"now","end":"then"}}"#)]
    {
        let error = ask(vec![(path, nonsense)], leaf.der()).await.unwrap_err();
        assert_eq!(error.kind, FailureKind::Broken, "{error:?}");
    }
}
