//! All kinds of orders at a real CA: Pebble, where it is installed.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;

use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use instant_acme::Account;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde_json::json;

use super::*;
use crate::base::task;
use crate::certs::challenges::ACME_TLS;
use crate::snapshot::issuance::ChallengeKind::{Dns01, DnsPersist01, Http01, TlsAlpn01};
use crate::snapshot::issuance::{DnsSolver, ExternalAccount};

struct Pebble {
    directory: String,
    root: PathBuf,
    /// Where records are written by hand.
    records: String,
    address: Ipv4Addr,
    folder: tempfile::TempDir,
    _running: [Running; 2],
}

impl Pebble {
    async fn start(settings: serde_json::Value) -> Option<Pebble> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (pebble, dns) = (program("pebble")?, program("pebble-challtestsrv")?);
        let address = fresh_address();
        let at = |port: u16| SocketAddr::from((address, port)).to_string();
        let folder = tempfile::tempdir().unwrap();
        let own = rcgen::generate_simple_self_signed([address.to_string()]).unwrap();
        let root = folder.path().join("api.crt");
        std::fs::write(&root, own.cert.pem()).unwrap();
        std::fs::write(folder.path().join("api.key"), own.signing_key.serialize_pem()).unwrap();
        let mut all = json!({
            "listenAddress": at(14000), "managementListenAddress": at(15000), "certificate": "api.crt",
            "privateKey": "api.key", "httpPort": 5002, "tlsPort": 5001, "ocspResponderURL": "",
            "keyAlgorithm": "ecdsa", "externalAccountBindingRequired": false,
            "profiles": {"default": {"description": "d", "validityPeriod": 7_776_000},
                "shortlived": {"description": "s", "validityPeriod": 518_400}},
        });
        all.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        std::fs::write(folder.path().join("pebble.json"), json!({"pebble": all}).to_string()).unwrap();
        let address_text = address.to_string();
        let dns = Running::start(
            Command::new(dns).args(
                [
                    ["-management", &at(8055)],
                    ["-dnsserver", &at(8053)],
                    ["-http01", ""],
                    ["-https01", ""],
                    ["-tlsalpn01", ""],
                    ["-doh", ""],
                    ["-defaultIPv4", &address_text],
                    ["-defaultIPv6", ""],
                ]
                .concat(),
            ),
        );
        let ca = Running::start(
            Command::new(pebble)
                .args(["-strict", "-config", "pebble.json", "-dnsserver", &at(8053)])
                .envs([
                    ("PEBBLE_VA_NOSLEEP", "1"),
                    ("PEBBLE_AUTHZREUSE", "0"),
                    ("PEBBLE_WFE_NONCEREJECT", "20"),
                    ("PEBBLE_ALTERNATE_ROOTS", "2"),
                ])
                .current_dir(folder.path()),
        );
        for port in [14000, 8055] {
            listening((address, port).into()).await;
        }
        let records = format!("http://{}", at(8055));
        Some(Pebble {
            directory: format!("https://{}/dir", at(14000)),
            root,
            records,
            address,
            folder,
            _running: [dns, ca],
        })
    }

    fn issuer(&self, challenges: &[ChallengeKind]) -> AcmeIssuer {
        issuer(&self.directory, Some(&self.root), challenges)
    }

    async fn set_txt(&self, name: &str, value: &str) {
        let body = json!({"host": format!("{name}."), "value": value}).to_string();
        let sent = reqwest::Client::new().post(format!("{}/set-txt", self.records)).body(body).send().await.unwrap();
        assert!(sent.status().is_success());
    }

    /// The common names of its roots.
    async fn roots(&self) -> Vec<String> {
        let own = reqwest::Certificate::from_pem(&std::fs::read(&self.root).unwrap()).unwrap();
        let client = reqwest::Client::builder().tls_certs_only([own]).build().unwrap();
        let mut names = Vec::new();
        for number in 0..3 {
            let sent = client.get(format!("https://{}:15000/roots/{number}", self.address)).send().await.unwrap();
            let pem = sent.bytes().await.unwrap();
            let root = CertificateDer::from_pem_slice(&pem).unwrap();
            let (_, root) = x509_parser::parse_x509_certificate(&root).unwrap();
            names.push(root.subject().iter_common_name().next().unwrap().as_str().unwrap().to_owned());
        }
        names
    }

    /// Answers the CA as the gateway does, where the CA looks.
    async fn answer(&self, challenges: &Arc<Challenges>) {
        let web = tokio::net::TcpListener::bind((self.address, 5002)).await.unwrap();
        let known = challenges.clone();
        task::spawn("web", async move {
            while let Ok((stream, _)) = web.accept().await {
                let known = known.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let token = request.uri().path().strip_prefix("/.well-known/acme-challenge/").unwrap_or_default();
                    let body = known.http(token).map(|body| body.to_string());
                    let status = if body.is_some() { 200 } else { 404 };
                    let body = Full::new(bytes::Bytes::from(body.unwrap_or_default()));
                    std::future::ready(Response::builder().status(status).body(body))
                });
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                task::spawn("web connection", async move { drop(connection.await) });
            }
        });
        let tls = tokio::net::TcpListener::bind((self.address, 5001)).await.unwrap();
        let mut config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Proofs(challenges.clone())));
        config.alpn_protocols = vec![ACME_TLS.to_vec()];
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        task::spawn("tls", async move {
            while let Ok((stream, _)) = tls.accept().await {
                let acceptor = acceptor.clone();
                task::spawn("tls connection", async move { drop(acceptor.accept(stream).await) });
            }
        });
    }
}

struct Proofs(Arc<Challenges>);

impl std::fmt::Debug for Proofs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Proofs")
    }
}

impl ResolvesServerCert for Proofs {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.tls(hello.server_name()?)
    }
}

fn leaf(issued: &Issued) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(issued.chain.as_bytes()).unwrap()
}

/// Seconds for which a certificate is valid.
fn life(issued: &Issued) -> i64 {
    let leaf = leaf(issued);
    let validity = x509_parser::parse_x509_certificate(&leaf).unwrap().1.validity().clone();
    validity.not_after.timestamp() - validity.not_before.timestamp() + 1
}

#[tokio::test]
async fn every_kind_of_order() {
    let Some(pebble) = Pebble::start(json!({})).await else { return };
    let folder = tempfile::tempdir().unwrap();
    let address = pebble.address.to_string();

    // http-01 and tls-alpn-01, for names and addresses; the account is registered once by two at a time.
    let (web, challenges) = acme(folder.path(), pebble.issuer(&[Http01]));
    pebble.answer(&challenges).await;
    let tls = Acme::new("test", pebble.issuer(&[TlsAlpn01]), Store::open(folder.path()).unwrap(), challenges.clone());
    let (names, others) = (["a.example.com", &address], ["b.example.com", &address]);
    let (one, two) = tokio::join!(web.gets(&names), tls.gets(&others));
    let (one, _) = (one.unwrap(), two.unwrap());
    let account = std::fs::read_to_string(folder.path().join("accounts/test/account.json")).unwrap();
    assert!(!folder.path().join("accounts/test/account.json.old").exists());

    // Other keys, and a profile.
    for key in [KeyKind::EcdsaP384, KeyKind::Rsa2048] {
        let wanted = Wanted { profile: Some("shortlived".into()), ..wanted(&["c.example.com"], key) };
        let issued = web.issue(Order { wanted: &wanted, replaces: None }).await.unwrap();
        assert_eq!(life(&issued), 518_400, "{key:?}");
    }
    let unknown = Wanted { profile: Some("nobody knows".into()), ..wanted(&["c.example.com"], KeyKind::EcdsaP256) };
    web.issue(Order { wanted: &unknown, replaces: None }).await.unwrap();

    // Another chain, and one that the CA does not have.
    let ends = |issued: &Issued| {
        let last = CertificateDer::pem_slice_iter(issued.chain.as_bytes()).last().unwrap().unwrap();
        let (_, last) = x509_parser::parse_x509_certificate(&last).unwrap();
        last.issuer().iter_common_name().next().unwrap().as_str().unwrap().to_owned()
    };
    let usual = ends(&one);
    let mut others = pebble.roots().await;
    assert_eq!(others.len(), 3, "{others:?}");
    others.retain(|root| *root != usual);
    for (root, expected) in [(others[1].as_str(), others[1].as_str()), ("nobody", usual.as_str())] {
        let issuer = AcmeIssuer { preferred_chain: Some(root.to_owned()), ..pebble.issuer(&[Http01]) };
        let picky = Acme::new("test", issuer, Store::open(folder.path()).unwrap(), challenges.clone());
        assert_eq!(ends(&picky.gets(&["f.example.com"]).await.unwrap()), expected);
    }

    // Renewal information, a replacement, and one more of what was replaced already.
    let window = web.renewal_window(&leaf(&one)).await.unwrap().unwrap();
    assert!(window.start < window.end, "{window:?}");
    for _ in 0..2 {
        let wanted = wanted(&["a.example.com"], KeyKind::EcdsaP256);
        web.issue(Order { wanted: &wanted, replaces: Some(&leaf(&one)) }).await.unwrap();
    }

    // A wildcard by a program that writes records.
    let hook = pebble.folder.path().join("hook");
    let text = format!(
        "#!/bin/sh\ncase $1 in present) p=set-txt;; *) p=clear-txt;; esac\n\
         echo \"$@\" >> {}\ncurl -sS -d \"{{\\\"host\\\":\\\"$2\\\",\\\"value\\\":\\\"$3\\\"}}\" {}/$p\n",
        folder.path().join("hooked").display(),
        pebble.records
    );
    std::fs::write(&hook, text).unwrap();
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let dns = AcmeIssuer { dns: Some(DnsSolver::Exec { command: hook }), ..pebble.issuer(&[Http01, Dns01]) };
    let (dns, _) = acme(folder.path(), dns);
    dns.gets(&["*.example.com"]).await.unwrap();
    let hooked = std::fs::read_to_string(folder.path().join("hooked")).unwrap();
    let words: Vec<_> = hooked.lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(words, ["present _acme-challenge.example.com.", "cleanup _acme-challenge.example.com."]);

    // A record that stays: missing, it is named; written, it is found.
    let (persist, _) = acme(folder.path(), pebble.issuer(&[DnsPersist01]));
    let error = persist.gets(&["*.stays.example.com"]).await.err().unwrap();
    let record = persist.dns_record(&Identifier::Dns("*.stays.example.com".into())).await.unwrap();
    assert!(record.value.starts_with("pebble.letsencrypt.org; accounturi=https://"), "{record:?}");
    assert!(error.kind == FailureKind::Unproven && error.message.contains(&record.value), "{error:?}");
    pebble.set_txt(&record.name, &record.value).await;
    persist.gets(&["*.stays.example.com", "stays.example.com"]).await.unwrap();

    // No way, and a proof that fails: the next kind is next.
    let error = web.gets(&["*.example.com"]).await.err().unwrap();
    assert!(error.kind == FailureKind::Local && error.message.contains("proven in DNS"), "{error:?}");
    let (both, _) = acme(folder.path(), pebble.issuer(&[Http01, DnsPersist01]));
    let mut messages = Vec::new();
    for _ in 0..2 {
        let error = both.gets(&["nobody.example.com"]).await.err().unwrap();
        assert_eq!(error.kind, FailureKind::Unproven, "{error:?}");
        messages.push(error.message);
    }
    assert!(messages[0].contains("nobody.example.com by http-01: "), "{messages:?}");
    assert!(messages[1].contains("nobody.example.com by dns-persist-01: "), "{messages:?}");

    // Through all of this it was one account. A contact that changed is told; a deactivated account is made anew.
    let file = folder.path().join("accounts/test/account.json");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), account);
    let issuer = AcmeIssuer { email: "ops@example.com".into(), ..pebble.issuer(&[Http01]) };
    let moved = Acme::new("test", issuer, Store::open(folder.path()).unwrap(), challenges.clone());
    moved.gets(&["d.example.com"]).await.unwrap();
    let read = || serde_json::from_str::<serde_json::Value>(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let (before, after) = (serde_json::from_str::<serde_json::Value>(&account).unwrap(), read());
    assert_eq!((before["id"].clone(), after["email"].as_str()), (after["id"].clone(), Some("ops@example.com")));
    let client = Client::new(&moved.issuer).unwrap();
    let key = base64::Engine::decode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, after["key"].as_str().unwrap()).unwrap();
    let builder = Account::builder_with_http(client.boxed());
    let id = after["id"].as_str().unwrap().to_owned();
    let account = builder.from_parts(id, PrivatePkcs8KeyDer::from(key), pebble.directory.clone()).await.unwrap();
    account.deactivate().await.unwrap();
    moved.gets(&["e.example.com"]).await.unwrap();
    assert_ne!(read()["id"], after["id"]);

    // Nothing is left of any answer.
    for kind in ["http", "tls"] {
        let left = std::fs::read_dir(folder.path().join("challenges").join(kind)).into_iter().flatten().count();
        assert_eq!(left, 0, "{kind}");
    }
}

#[tokio::test]
async fn external_accounts_are_refused_and_accepted() {
    let keys = json!({"externalAccountBindingRequired": true, "externalAccountMACKeys": {"kid-1": "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"}});
    let Some(pebble) = Pebble::start(keys).await else { return };
    let folder = tempfile::tempdir().unwrap();
    let (without, challenges) = acme(folder.path(), pebble.issuer(&[Http01]));
    pebble.answer(&challenges).await;
    let error = without.gets(&["a.example.com"]).await.err().unwrap();
    assert!(error.kind == FailureKind::Refused && error.message.contains("external account (key id"), "{error:?}");

    let hmac_file = folder.path().join("hmac");
    let external_account = Some(ExternalAccount { key_id: "kid-1".into(), hmac_file: hmac_file.clone() });
    let issuer = AcmeIssuer { external_account, ..pebble.issuer(&[Http01]) };
    let with = Acme::new("test", issuer, Store::open(folder.path()).unwrap(), challenges);
    let error = with.gets(&["a.example.com"]).await.err().unwrap();
    assert!(error.kind == FailureKind::Local && error.message.contains("hmac"), "{error:?}");
    std::fs::write(&hmac_file, "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W\n").unwrap();
    with.gets(&["a.example.com"]).await.unwrap();
}
