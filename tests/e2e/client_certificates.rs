//! Clients with certificates: who may in by chain, revocation and name, what the endpoint reads of them, and sessions
//! that do not outlive the rules under which they began.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};

use crate::support::backend::Backend;
use crate::support::certificate::{Authority, Identity, base64};
use crate::support::curl::{Answer, curl};
use crate::support::gateway::{HTTPS, Plan, TestGateway};
use crate::support::manifests::{all_to, route_on, service};

/// A root, an authority below it, and clients of that authority, all made by openssl.
struct Pki {
    folder: tempfile::TempDir,
}

impl Pki {
    fn new(clients: &[&str]) -> Self {
        let pki = Pki { folder: tempfile::tempdir().unwrap() };
        let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        pki.openssl(
            &[&["req", "-x509"][..], &curve, &["-keyout", "root.key", "-out", "root.crt", "-subj", "/CN=root"]]
                .concat(),
        );
        pki.leaf("middle", "root", "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign,cRLSign\n");
        for name in clients {
            let names = format!("subjectAltName=URI:spiffe://mesh/ns/a/sa/{name}\nextendedKeyUsage=clientAuth\n");
            pki.leaf(name, "middle", &names);
            let chain = [pki.read(&format!("{name}.crt")), pki.read("middle.crt")].concat();
            fs::write(pki.folder.path().join(format!("{name}.pem")), chain).unwrap();
        }
        for authority in ["root", "middle"] {
            let path = pki.folder.path();
            let settings = format!(
                "[ca]\ndefault_ca=x\n[x]\ndatabase={authority}.index\ndefault_md=sha256\ndefault_crl_days=9\n\
                 certificate={authority}.crt\nprivate_key={authority}.key\n"
            );
            fs::write(path.join(format!("{authority}.conf")), settings).unwrap();
            fs::write(path.join(format!("{authority}.index")), "").unwrap();
        }
        pki
    }

    fn leaf(&self, name: &str, issuer: &str, extensions: &str) {
        let file = |end: &str| format!("{name}.{end}");
        let of_issuer = |end: &str| format!("{issuer}.{end}");
        fs::write(self.folder.path().join(file("ext")), extensions).unwrap();
        let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        let subject = format!("/O=clients/CN={name}");
        self.openssl(
            &[&["req"][..], &curve, &["-keyout", &file("key"), "-out", &file("csr"), "-subj", &subject]].concat(),
        );
        let signed = ["x509", "-req", "-in", &file("csr"), "-CA", &of_issuer("crt"), "-CAkey", &of_issuer("key")];
        let made = ["-CAcreateserial", "-days", "9", "-extfile", &file("ext"), "-out", &file("crt")];
        self.openssl(&[&signed[..], &made].concat());
    }

    /// The lists of both authorities, with what they took back so far.
    fn lists(&self) -> String {
        for authority in ["root", "middle"] {
            let (conf, crl) = (format!("{authority}.conf"), format!("{authority}.crl"));
            self.openssl(&["ca", "-config", &conf, "-gencrl", "-out", &crl]);
        }
        [self.read("root.crl"), self.read("middle.crl")].concat()
    }

    fn revoke(&self, name: &str) {
        self.openssl(&["ca", "-config", "middle.conf", "-revoke", &format!("{name}.crt")]);
    }

    fn openssl(&self, arguments: &[&str]) {
        let mut command = Command::new("openssl");
        let output = command.args(arguments).current_dir(&self.folder).stdin(Stdio::null()).output();
        let output = output.expect("openssl is installed");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap()
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }
}

/// A Gateway `mutual` for every host; `tls` are further lines of its settings.
fn gateway(mode: &str, tls: &str) -> String {
    format!(
        r#"---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{ name: mutual, namespace: istio-system }}
spec:
  selector: {{ istio: ingressgateway }}
  servers:
  - port: {{ number: {HTTPS}, name: https, protocol: HTTPS }}
    hosts: ["*"]
    tls: {{ mode: {mode}, credentialName: web-tls{tls} }}
"#
    )
}

/// The server's certificate, and whom it believes.
fn secret(server: &Identity, authorities: &str, lists: &str) -> String {
    let text = server.secret("web-tls") + &format!("  ca.crt: {}\n", base64(authorities.as_bytes()));
    if lists.is_empty() { text } else { text + &format!("  ca.crl: {}\n", base64(lists.as_bytes())) }
}

fn start(server: &Identity, authorities: &str, tls: &str, web: &Backend) -> TestGateway {
    let routes =
        [service("web.test", web.address, "HTTP"), route_on("istio-system/mutual", "web", "*", &all_to("web.test"))];
    Plan::new()
        .manifest("routes.yaml", &routes.concat())
        .manifest("gateway.yaml", &gateway("MUTUAL", tls))
        .manifest("secret.yaml", &secret(server, authorities, ""))
        .start()
}

fn get(gateway: &TestGateway, ca: &str, client: Option<(&Pki, &str)>) -> Answer {
    let resolve = format!("web.test:{HTTPS}:{}", gateway.address);
    let url = format!("https://web.test:{HTTPS}/");
    let mut arguments = vec!["--resolve".to_owned(), resolve, "--cacert".to_owned(), ca.to_owned()];
    if let Some((pki, name)) = client {
        let files = ["--cert".to_owned(), pki.path(&format!("{name}.pem")), "--key".to_owned()];
        arguments.extend(files.into_iter().chain([pki.path(&format!("{name}.key"))]));
    }
    let claimed = ["-H".to_owned(), "x-forwarded-client-cert: URI=spiffe://mesh/ns/a/sa/admin".to_owned()];
    arguments.extend(claimed);
    curl(&url, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn a_client_comes_in_by_its_chain_until_it_is_revoked() {
    let web = Backend::http1("web");
    let (server_authority, pki, strangers) = (Authority::new(), Pki::new(&["alice", "bob"]), Pki::new(&["eve"]));
    let server = server_authority.identity(&["web.test"]);
    let gateway = start(&server, &pki.read("root.crt"), "", &web);
    let ca = server_authority.write(gateway.folder());

    let answer = get(&gateway, &ca, Some((&pki, "alice")));
    assert_eq!(answer.status, 200, "{answer:?}");
    let told = answer.seen("x-forwarded-client-cert").unwrap();
    assert!(told.starts_with("Hash=") && told.contains(r#";Subject="CN=alice,O=clients";"#), "{told}");
    assert!(told.ends_with(";URI=spiffe://mesh/ns/a/sa/alice") && !told.contains("admin"), "{told}");
    for (case, client) in [("no certificate", None), ("of another root", Some((&strangers, "eve")))] {
        assert_eq!(get(&gateway, &ca, client).status, 0, "{case}");
    }

    pki.revoke("bob");
    gateway.write("secret.yaml", &secret(&server, &pki.read("root.crt"), &pki.lists()));
    assert_eq!(gateway.reload_wait().0, 0);
    assert_eq!(get(&gateway, &ca, Some((&pki, "alice"))).status, 200);
    assert_eq!(get(&gateway, &ca, Some((&pki, "bob"))).status, 0, "revoked");

    // Nobody has to show one any more, but who does is judged.
    gateway.write("gateway.yaml", &self::gateway("OPTIONAL_MUTUAL", ""));
    assert_eq!(gateway.reload_wait().0, 0);
    let nobody = get(&gateway, &ca, None);
    assert_eq!((nobody.status, nobody.seen("x-forwarded-client-cert")), (200, None));
    assert_eq!(get(&gateway, &ca, Some((&strangers, "eve"))).status, 0);
}

#[test]
fn a_session_is_not_resumed_under_other_rules() {
    let web = Backend::http1("web");
    let (server_authority, pki) = (Authority::new(), Pki::new(&["alice"]));
    let server = server_authority.identity(&["web.test"]);
    let gateway = start(&server, &pki.read("root.crt"), "", &web);
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        gateway.write("gateway.yaml", &self::gateway("MUTUAL", ""));
        gateway.reload_wait();
        let client = Arc::new(client(&server_authority, &pki, "alice", version));
        assert_eq!(visit(&gateway, &client), Some(HandshakeKind::Full), "{version:?}");
        assert_eq!(visit(&gateway, &client), Some(HandshakeKind::Resumed), "{version:?}");
        // The same server asks for a name that the client does not have.
        gateway.write("gateway.yaml", &self::gateway("MUTUAL", ", subjectAltNames: [spiffe://mesh/ns/a/sa/bob]"));
        assert_eq!(gateway.reload_wait().0, 0);
        assert_eq!(visit(&gateway, &client), None, "{version:?}");
    }
}

#[test]
fn a_connection_does_not_go_on_under_other_rules() {
    let web = Backend::http1("web");
    let (server_authority, pki) = (Authority::new(), Pki::new(&["alice"]));
    let server = server_authority.identity(&["web.test"]);
    let gateway = start(&server, &pki.read("root.crt"), "", &web);
    for (before, after, expected) in [("SIMPLE", "MUTUAL", 421), ("SIMPLE", "OPTIONAL_MUTUAL", 200)] {
        gateway.write("gateway.yaml", &self::gateway(before, ""));
        assert_eq!(gateway.reload_wait().0, 0);
        let client = Arc::new(client(&server_authority, &pki, "alice", &rustls::version::TLS13));
        let name = ServerName::try_from("web.test").unwrap();
        let stream = crate::support::raw::connect(gateway.https());
        let mut connection = StreamOwned::new(ClientConnection::new(client, name).unwrap(), stream);
        let ask = |connection: &mut StreamOwned<_, _>, end: &str| {
            connection.write_all(b"HEAD / HTTP/1.1\r\nhost: web.test\r\n\r\n").unwrap();
            let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
            while !answer.ends_with(end.as_bytes()) {
                match connection.read(&mut buffer).unwrap() {
                    0 => break,
                    read => answer.extend_from_slice(&buffer[..read]),
                }
            }
            String::from_utf8(answer).unwrap().to_ascii_lowercase()
        };
        let answer = ask(&mut connection, "\r\n\r\n");
        assert!(answer.starts_with("http/1.1 200") && !answer.contains("connection: close"), "{answer}");
        gateway.write("gateway.yaml", &self::gateway(after, ""));
        assert_eq!(gateway.reload_wait().0, 0);
        // Its own end is the end of the connection.
        let answer = ask(&mut connection, "never");
        assert!(answer.starts_with(&format!("http/1.1 {expected}")), "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
    }
}

fn client(
    server: &Authority,
    pki: &Pki,
    name: &str,
    version: &'static rustls::SupportedProtocolVersion,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(server.pem.as_bytes()).unwrap()).unwrap();
    let chain = CertificateDer::pem_file_iter(Path::new(&pki.path(&format!("{name}.pem")))).unwrap();
    let key = PrivateKeyDer::from_pem_file(Path::new(&pki.path(&format!("{name}.key")))).unwrap();
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain.map(Result::unwrap).collect(), key)
        .unwrap()
}

/// How the handshake went; `None` if there was no answer.
fn visit(gateway: &TestGateway, client: &Arc<ClientConfig>) -> Option<HandshakeKind> {
    let name = ServerName::try_from("web.test").unwrap();
    let stream = crate::support::raw::connect(gateway.https());
    let mut connection = StreamOwned::new(ClientConnection::new(client.clone(), name).unwrap(), stream);
    connection.write_all(b"GET / HTTP/1.1\r\nhost: web.test\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    let _ = connection.read_to_end(&mut answer);
    answer.starts_with(b"HTTP/1.1 200").then(|| connection.conn.handshake_kind())?
}
