//! Sessions that are resumed: at the gateway that began them and at its replicas, over reloads, and never under other
//! rules for clients.

use std::path::Path;

use crate::support::backend::Backend;
use crate::support::certificate::{Authority, base64};
use crate::support::gateway::{Plan, TestGateway};
use crate::support::manifests::{all_to, route_on, service, tls_gateway};
use crate::support::openssl::{Visit, visit};

const HOST: &str = "web.test";

/// A gateway with the shared secrets in its file, and a client of it.
struct Site {
    web: Backend,
    /// Of the server's certificate.
    authority: Authority,
    /// Of clients.
    clients: Authority,
    folder: tempfile::TempDir,
}

impl Site {
    fn new() -> Site {
        let (authority, clients) = (Authority::new(), Authority::new());
        let folder = tempfile::tempdir().unwrap();
        let client = clients.identity(&["client"]);
        std::fs::write(folder.path().join("client.pem"), client.certificate + &client.key).unwrap();
        Site { web: Backend::http1("web"), authority, clients, folder }
    }

    fn manifests(&self, mode: &str) -> String {
        let gateway = tls_gateway("edge", HOST, &format!("mode: {mode}, credentialName: web-tls"));
        let route = route_on("istio-system/edge", "web", HOST, &all_to("web.test"));
        [gateway, service("web.test", self.web.address, "HTTP"), route].concat()
    }

    /// A new certificate of the server, with those who vouch for clients.
    fn secret(&self, clients: &Authority) -> String {
        let secret = self.authority.identity(&[HOST]).secret("web-tls");
        secret + &format!("  ca.crt: {}\n", base64(clients.pem.as_bytes()))
    }

    fn start(&self, mode: &str, settings: &str, secrets: &str) -> TestGateway {
        let plan = Plan::new()
            .manifest("site.yaml", &self.manifests(mode))
            .manifest("secret.yaml", &self.secret(&self.clients))
            .settings(settings);
        write_secrets(plan.folder(), secrets);
        plan.start()
    }

    /// A visit that leaves its session in the file `session`, or brings it.
    fn visit(&self, gateway: &TestGateway, version: &str, arguments: &[&str]) -> Visit {
        let certificate = self.path("client.pem");
        let all = [&["-servername", HOST, version, "-cert", &certificate], arguments].concat();
        visit(gateway.https(), HOST, &all)
    }

    fn begin(&self, gateway: &TestGateway, version: &str) {
        let first = self.visit(gateway, version, &["-sess_out", &self.path("session")]);
        assert!(first.is_full(), "{first:?}");
    }

    fn again(&self, gateway: &TestGateway, version: &str) -> Visit {
        self.visit(gateway, version, &["-sess_in", &self.path("session")])
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }
}

const FILE: &str = "[tls]\nsession_ticket_keys = \"ticket-secrets\"\n";
const OLD: &str = "d8RMkDUUEbeLtu4xeyPGCrzTSsVg1x3Qb7rcCcOh0bI=\n";
const NEW: &str = "Jm2qVgh0XwBvKfFA0TzyGm8m2WJbCqLYw3nB2Cwnm5E=\n";

fn write_secrets(folder: &Path, secrets: &str) {
    use std::os::unix::fs::PermissionsExt;
    let file = folder.join("ticket-secrets");
    std::fs::write(&file, secrets).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn replicas_with_one_secret_resume_each_others_sessions() {
    let site = Site::new();
    let (first, second) = (site.start("MUTUAL", FILE, OLD), site.start("MUTUAL", FILE, OLD));
    let stranger = site.start("MUTUAL", FILE, NEW);
    for version in ["-tls1_3", "-tls1_2"] {
        site.begin(&first, version);
        for (name, gateway) in [("first", &first), ("second", &second)] {
            let again = site.again(gateway, version);
            assert!(again.is_resumed() && again.is_served(), "{version} {name}: {again:?}");
        }
        assert!(site.again(&stranger, version).is_full(), "{version}: another secret");
    }
    // A new secret is put before the old one, everywhere, before the old one is taken away.
    site.begin(&first, "-tls1_3");
    write_secrets(second.folder(), &[NEW, OLD].concat());
    second.reload();
    assert!(site.again(&second, "-tls1_3").is_resumed(), "the old one is still read");
    site.begin(&second, "-tls1_3");
    assert!(site.again(&stranger, "-tls1_3").is_resumed(), "the new one makes");
    write_secrets(second.folder(), "short\n");
    assert!(second.reload_wait().1.contains("LIM0054"));
    assert!(site.again(&second, "-tls1_3").is_resumed(), "what was in force stays");
}

#[test]
fn a_session_survives_what_changes_nothing_for_clients_and_nothing_else() {
    let site = Site::new();
    for settings in ["", FILE] {
        let gateway = site.start("MUTUAL", settings, OLD);
        let other = service("other.test", site.web.address, "HTTP");
        for version in ["-tls1_3", "-tls1_2"] {
            site.begin(&gateway, version);
            for (name, file, text) in [
                ("another object", "other.yaml", other.as_str()),
                ("a new certificate", "secret.yaml", &site.secret(&site.clients)),
            ] {
                gateway.write(file, text);
                gateway.reload();
                let again = site.again(&gateway, version);
                assert!(again.is_resumed() && again.is_served(), "{version} {name}: {again:?}");
            }
            gateway.write("secret.yaml", &site.secret(&Authority::new()));
            gateway.reload();
            let again = site.again(&gateway, version);
            assert!(!again.is_resumed() && !again.is_served(), "{version}: another authority: {again:?}");
            gateway.write("secret.yaml", &site.secret(&site.clients));
            for mode in ["OPTIONAL_MUTUAL", "SIMPLE"] {
                gateway.write("site.yaml", &site.manifests(mode));
                gateway.reload();
                assert!(site.again(&gateway, version).is_full(), "{version}: {mode}");
            }
            gateway.write("site.yaml", &site.manifests("MUTUAL"));
            gateway.reload();
        }
    }
}

#[test]
fn resumption_can_be_switched_off() {
    let site = Site::new();
    let gateway = site.start("SIMPLE", "[tls]\nsession_tickets = false\n", "");
    for version in ["-tls1_3", "-tls1_2"] {
        let first = site.visit(&gateway, version, &["-sess_out", &site.path("session")]);
        assert!(first.is_full() && !first.0.contains("TLS session ticket:"), "{first:?}");
        let again = site.again(&gateway, version);
        assert!(!again.is_resumed(), "{version}: {again:?}");
    }
}
