//! What do the analyzers say about small manifests, as a gateway is given them?

use std::fs;

use crate::analysis::{Look, Memory, View, analyze};
use crate::resource::finding::Finding;
use crate::resource::settings::Settings;
use crate::source::{Cache, Gathered, gather_manifests};

/// What stands in front of every case: a Gateway of ours for everything on port 80, and a Service.
const BASE: &str = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*.test']}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ports: [{name: http, port: 80}], selector: {app: web}}
";

fn gather(text: &str, cache: &mut Cache, folder: &std::path::Path) -> Gathered {
    fs::write(folder.join("all.yaml"), text).unwrap();
    let mut settings = Settings::default();
    settings.source.manifests = vec![folder.to_owned()];
    gather_manifests(settings, cache)
}

fn told(findings: &[Finding]) -> Vec<String> {
    let mut told: Vec<String> =
        findings.iter().map(|it| format!("{} {} {}", it.code, it.object, it.path).trim_end().to_owned()).collect();
    told.sort();
    told
}

fn ask(text: &str, view: View) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let gathered = gather(text, &mut Cache::default(), folder.path());
    let look = Look { view, now: 1_800_000_000 };
    told(&analyze(&gathered.resources, &gathered.settings, look, &mut Memory::default()).1)
}

fn service(name: &str, more: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}}}\nspec:\n  {more}\n"
    )
}

fn tls_gateway(name: &str, tls: &str, host: &str) -> String {
    let server = format!("{{port: {{number: 443, name: https, protocol: HTTPS}}, tls: {tls}, hosts: ['{host}']}}");
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: {name}}}\n\
         spec: {{selector: {{istio: ingressgateway}}, servers: [{server}]}}\n"
    )
}

/// A Secret `pair` whose certificate is for a.test and b.test.
fn pair() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let names = ["a.test".to_owned(), "b.test".to_owned()];
    let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    let data = serde_json::json!({ "tls.crt": certificate.pem(), "tls.key": key.serialize_pem() });
    format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: pair, namespace: istio-system}}\nstringData: {data}\n"
    )
}

#[test]
fn a_gateway_is_told_what_concerns_it() {
    let to_web = "http: [{route: [{destination: {host: web}}]}]";
    let prefix = "http: [{match: [{uri: {prefix: /a}}], route: [{destination: {host: web}}]}]";
    let simple = "{mode: SIMPLE, credentialName: pair}";
    let mutual = "{mode: MUTUAL, credentialName: pair}";
    let other = "{mode: SIMPLE, credentialName: other}";
    let passing = "{mode: PASSTHROUGH}";
    let policy = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: none}\n\
                  spec: {selector: {matchLabels: {app: none}}, rules: [{from: [{source: {namespaces: [gone]}}]}]}\n";
    let for_others = "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: theirs}\n\
                      spec: {selector: {istio: egressgateway}, servers: [{port: {number: 443, name: s, protocol: HTTPS}, \
                      tls: {mode: SIMPLE, credentialName: gone}, hosts: [e.test]}]}\n";
    let pod =
        "---\napiVersion: v1\nkind: Pod\nmetadata: {name: web, labels: {app: web}}\nspec: {containers: [{name: a}]}\n";
    let subset = "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web}\n\
                  spec: {host: web, subsets: [{name: v9, labels: {version: v9}}]}\n";
    let quiet = "hosts: [a.test, b.example]\n  gateways: [gw]\n  http: [{route: [{destination: {host: web}}]}]";
    let cases: Vec<(&str, String, &[&str])> = vec![
        ("all is well", service("a", &format!("hosts: [a.test]\n  gateways: [gw]\n  {to_web}")), &[]),
        ("a host that nobody serves", service("a", quiet), &["LIM0060 VirtualService default/a spec.hosts[1]"]),
        (
            "what is suppressed is quiet",
            service("a", quiet)
                .replace("{name: a}", "{name: a, annotations: {galley.istio.io/analyze-suppress: LIM0060}}"),
            &[],
        ),
        (
            "an older rule takes all requests",
            service("a", &format!("hosts: [a.test]\n  gateways: [gw]\n  {prefix}"))
                + &service("b", &format!("hosts: ['*']\n  gateways: [default/gw]\n  {prefix}"))
                + &service("c", &format!("hosts: [a.test]\n  gateways: [gw]\n  {prefix}")),
            &["LIM0061 VirtualService default/c spec.http[0]"],
        ),
        (
            "names that mean nothing",
            service("a", "hosts: [a.test]\n  gateways: [gw, gone]\n  http: [{route: [{destination: {host: nobody}}]}]"),
            &[
                "IST0101 VirtualService default/a spec.gateways[1]",
                "IST0101 VirtualService default/a spec.http[0].route[0].destination.host",
                "IST0132 VirtualService default/a spec.gateways[1]",
            ],
        ),
        (
            "passed through below a wildcard that is ended",
            tls_gateway("wide", simple, "*.x.test") + &tls_gateway("narrow", passing, "p.x.test") + &pair(),
            &["LIM0062 Gateway default/narrow spec.servers[0].hosts[0]"],
        ),
        (
            "ended below a wildcard that is passed through",
            tls_gateway("wide", passing, "*.x.test") + &tls_gateway("narrow", simple, "p.x.test") + &pair(),
            &["LIM0062 Gateway default/narrow spec.servers[0].hosts[0]"],
        ),
        (
            "two certificates for one host",
            tls_gateway("one", simple, "a.test") + &tls_gateway("two", other, "a.test") + &pair(),
            &[
                "IST0145 Gateway default/one spec.servers[0].hosts",
                "IST0145 Gateway default/two spec.servers[0].hosts",
                "LIM0063 Gateway default/two spec.servers[0].hosts[0]",
            ],
        ),
        (
            "one certificate, two policies",
            tls_gateway("one", simple, "a.test") + &tls_gateway("two", mutual, "b.test") + &pair(),
            &[
                "LIM0064 Gateway default/one spec.servers[0].hosts[0]",
                "LIM0064 Gateway default/two spec.servers[0].hosts[0]",
            ],
        ),
        (
            "one certificate, one policy",
            tls_gateway("one", simple, "a.test") + &tls_gateway("two", simple, "b.test") + &pair(),
            &[],
        ),
        ("Pods and Namespaces may be elsewhere", format!("{policy}{for_others}{subset}"), &[]),
        (
            "where Pods are given, they are all",
            format!("{subset}{pod}{for_others}"),
            &[
                "IST0101 Gateway default/theirs spec.selector",
                "IST0173 DestinationRule default/web spec.subsets[0].labels",
            ],
        ),
    ];
    for (name, text, expected) in cases {
        let found = ask(&format!("{BASE}{text}"), View::Gateway);
        // What is not in force yet is another question.
        let found: Vec<&str> = found.iter().map(String::as_str).filter(|it| !it.starts_with("LIM002")).collect();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn a_second_run_says_what_a_first_one_would() {
    let folder = tempfile::tempdir().unwrap();
    let (mut cache, mut memory) = (Cache::default(), Memory::default());
    let rule = |host: &str| {
        format!("hosts: [a.test]\n  gateways: [gw]\n  http: [{{route: [{{destination: {{host: {host}}}}}]}}]")
    };
    let texts = [
        service("a", &rule("web")) + &service("b", &rule("nobody")),
        service("a", &rule("nobody")) + &service("b", &rule("nobody")),
        service("b", &rule("nobody")),
        service("a", &rule("web")).replace("[gw]", "[gone]") + &service("b", &rule("nobody")),
    ];
    for text in texts {
        for text in [format!("{BASE}{text}"), text] {
            let gathered = gather(&text, &mut cache, folder.path());
            let again = analyze(&gathered.resources, &gathered.settings, Look::default(), &mut memory).1;
            let first = analyze(&gathered.resources, &gathered.settings, Look::default(), &mut Memory::default()).1;
            assert_eq!(again, first, "{text}");
        }
    }
}
