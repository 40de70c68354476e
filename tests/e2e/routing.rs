//! Requests reach the backend that the manifests name, or get the answer that they name.

use crate::support::address;
use crate::support::backend::{self, Backend};
use crate::support::curl::curl;
use crate::support::gateway::{HTTP, Plan, TestGateway};
use crate::support::manifests::{all_to, http_gateway, route, route_on, service, simple};

#[test]
fn hosts_and_paths_lead_to_their_backends() {
    let (one, two) = (Backend::http1("one"), Backend::http1("two"));
    let rules = "\
- match:
  - uri: { prefix: /two }
    headers: { x-group: { exact: test } }
  route: [{ destination: { host: two.test } }]
- match: [{ uri: { exact: /only } }]
  route: [{ destination: { host: two.test } }]
- match: [{ uri: { prefix: / } }]
  route: [{ destination: { host: one.test } }]";
    let gateway = TestGateway::with(
        &[
            http_gateway(),
            service("one.test", one.address, "HTTP"),
            service("two.test", two.address, "HTTP"),
            route("shop", "shop.example.com", rules),
            route("wild", "*.example.org", &all_to("two.test")),
        ]
        .concat(),
    );
    let cases: [(&str, &str, &[&str], &str); 6] = [
        ("shop.example.com", "/", &[], "one"),
        ("shop.example.com:8080", "/any", &[], "one"),
        ("SHOP.example.com", "/two/x", &["-H", "x-group: test"], "two"),
        ("shop.example.com", "/two/x", &["-H", "x-group: prod"], "one"),
        ("shop.example.com", "/only?q=1", &[], "two"),
        ("a.b.example.org", "/", &[], "two"),
    ];
    for (host, path, arguments, expected) in cases {
        assert_eq!(gateway.curl(host, path, arguments).backend(), expected, "{host}{path} {arguments:?}");
    }
    let unknown = gateway.get("other.example.com", "/");
    assert_eq!((unknown.status, unknown.body.as_str()), (404, ""));
    assert_eq!(unknown.header("server"), "istio-envoy");
    let line = gateway.access_record(|line| line["authority"] == "other.example.com");
    assert_eq!((&line["response_flags"], &line["response_code_details"]), (&"NR".into(), &"route_not_found".into()));
}

#[test]
fn weights_are_kept() {
    let (one, two) = (Backend::http1("one"), Backend::http1("two"));
    let rules = "\
- route:
  - destination: { host: one.test }
    weight: 90
  - destination: { host: two.test }
    weight: 10";
    let gateway = TestGateway::with(
        &[
            http_gateway(),
            service("one.test", one.address, "HTTP"),
            service("two.test", two.address, "HTTP"),
            route("web", "web.test", rules),
        ]
        .concat(),
    );
    // curl repeats a URL of a range over one connection.
    let answer = gateway.curl("web.test", "/[1-500]", &[]);
    assert_eq!(answer.exit, 0, "{}", answer.error);
    assert_eq!(one.requests() + two.requests(), 500);
    // Binomial with 500 tries: a good choice leaves this range once in about a million runs.
    assert!((18..=92).contains(&two.requests()), "{} of 500 went to the 10 %", two.requests());
}

#[test]
fn gateways_share_a_port_and_serve_whom_they_select() {
    let web = Backend::http1("web");
    let plan = Plan::new();
    let gateway = |name: &str, host: &str| {
        http_gateway().replace("name: edge", &format!("name: {name}")).replace("\"*\"", &format!("\"{host}\""))
    };
    let elsewhere = address::fresh();
    let bound = gateway("bound", "*").replace("    hosts", &format!("    bind: {elsewhere}\n    hosts"));
    let manifests = [
        gateway("one", "one.test"),
        gateway("two", "*.two.test"),
        gateway("foreign", "foreign.test").replace("ingressgateway", "egressgateway"),
        bound,
        service("web.test", web.address, "HTTP"),
        route_on("istio-system/one", "one", "one.test", &all_to("web.test")),
        route_on("istio-system/two", "two", "*.two.test", &all_to("web.test")),
        route_on("istio-system/foreign", "foreign", "foreign.test", &all_to("web.test")),
        route_on("istio-system/bound", "bound", "bound.test", &all_to("web.test")),
    ];
    let gateway = plan.manifest("all.yaml", &manifests.concat()).start();
    for (host, status) in [("one.test", 200), ("a.two.test", 200), ("foreign.test", 404), ("bound.test", 404)] {
        assert_eq!(gateway.get(host, "/").status, status, "{host}");
    }
    let url = format!("http://{elsewhere}:{HTTP}/");
    assert_eq!(curl(&url, &["-H", "host: bound.test"]).status, 200, "the server with a bind of its own");
}

#[test]
fn rules_can_answer_rewrite_and_redirect() {
    let web = Backend::http1("web");
    let rules = "\
- match: [{ uri: { prefix: /old/ } }]
  redirect: { uri: /new, authority: next.test, redirectCode: 302 }
- match: [{ uri: { exact: /teapot } }]
  directResponse: { status: 418, body: { string: short and stout } }
- match: [{ uri: { prefix: /v1/ } }]
  rewrite: { uri: /, authority: inner.test }
  headers:
    request: { set: { x-set: a }, add: { x-add: b }, remove: [x-gone] }
    response: { set: { x-answer: c }, remove: [content-type] }
  route: [{ destination: { host: web.test } }]
- match: [{ uri: { prefix: /slow } }]
  rewrite: { uri: /hang }
  timeout: 0.2s
  route: [{ destination: { host: web.test } }]";
    let gateway = TestGateway::with(
        &[http_gateway(), service("web.test", web.address, "HTTP"), route("web", "web.test", rules)].concat(),
    );
    let redirect = gateway.get("web.test", "/old/x?q=1");
    assert_eq!(redirect.status, 302);
    assert_eq!(redirect.header("location"), "http://next.test/new?q=1");
    let teapot = gateway.get("web.test", "/teapot");
    assert_eq!((teapot.status, teapot.body.as_str()), (418, "short and stout"));
    let rewritten = gateway.curl("web.test", "/v1/item?q=1", &["-H", "x-gone: 1"]);
    let told = rewritten.json();
    assert_eq!(told["path"], "/item?q=1");
    assert_eq!(told["headers"]["host"], "inner.test");
    assert_eq!(told["headers"]["x-envoy-original-path"], "/v1/item?q=1");
    assert_eq!(told["headers"]["x-envoy-original-host"], "web.test");
    assert_eq!((&told["headers"]["x-set"], &told["headers"]["x-add"]), (&"a".into(), &"b".into()));
    assert_eq!(rewritten.seen("x-gone"), None);
    assert_eq!((rewritten.header("x-answer"), rewritten.header("content-type")), ("c", ""));
    let late = gateway.get("web.test", "/slow");
    assert_eq!((late.status, late.body.as_str()), (504, "upstream request timeout"));
    let line = gateway.access_record(|line| line["path"] == "/slow");
    assert_eq!((&line["response_flags"], &line["response_code_details"]), (&"UT".into(), &"response_timeout".into()));
}

#[test]
fn failures_are_told_as_envoy_tells_them() {
    let web = Backend::http1("web");
    let empty = service("empty.test", backend::nobody(), "HTTP");
    let empty = empty.split_once("  endpoints:").map_or(empty.as_str(), |(head, _)| head).to_owned();
    let (_queue, _waiting, far) = backend::unreachable();
    let slow_connect = "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: { name: far, namespace: default }
spec:
  host: far.test
  trafficPolicy: { connectionPool: { tcp: { connectTimeout: 300ms } } }
";
    let rules = "\
- match: [{ uri: { prefix: /dead } }]
  route: [{ destination: { host: dead.test } }]
- match: [{ uri: { prefix: /far } }]
  route: [{ destination: { host: far.test } }]
- match: [{ uri: { prefix: /empty } }]
  route: [{ destination: { host: empty.test } }]
- match: [{ uri: { prefix: /missing } }]
  route: [{ destination: { host: missing.test } }]
- route: [{ destination: { host: web.test } }]";
    let gateway = Plan::new()
        .manifest(
            "all.yaml",
            &[
                http_gateway(),
                service("web.test", web.address, "HTTP"),
                service("dead.test", backend::nobody(), "HTTP"),
                service("far.test", far, "HTTP"),
                empty,
                slow_connect.to_owned(),
                route("web", "web.test", rules),
            ]
            .concat(),
        )
        .start();
    let cases = [
        ("/dead", 503, "UF", "upstream_reset_before_response_started{remote_connection_failure"),
        ("/far", 503, "UF", "upstream_reset_before_response_started{connection_timeout"),
        ("/empty", 503, "UH", "no_healthy_upstream"),
        ("/missing", 503, "NC", "cluster_not_found"),
        ("/close", 503, "UC", "upstream_reset_before_response_started{connection_termination"),
    ];
    for (path, status, flag, details) in cases {
        assert_eq!(gateway.get("web.test", path).status, status, "{path}");
        let line = gateway.access_record(|line| line["path"] == path);
        assert!(line["response_flags"].as_str().unwrap_or_default().contains(flag), "{line}");
        assert!(line["response_code_details"].as_str().unwrap_or_default().starts_with(details), "{line}");
    }
    // A cut answer stays cut: curl notices.
    assert_eq!(gateway.get("web.test", "/cut").exit, 18);
}

#[test]
fn kubernetes_services_and_subsets_are_known() {
    let (one, two) = (Backend::http1("v1"), Backend::http1("v2"));
    let slice = |name: &str, backend: &Backend, version: &str| {
        format!(
            "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: {name}, namespace: default, labels: {{ kubernetes.io/service-name: reviews }} }}
addressType: IPv4
ports: [{{ name: http, port: {}, protocol: TCP }}]
endpoints: [{{ addresses: [\"{}\"], conditions: {{ ready: true }} }}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{ name: {name}, namespace: default, labels: {{ version: {version} }} }}
spec: {{ address: {} }}
",
            backend.address.port(),
            backend.address.ip(),
            backend.address.ip()
        )
    };
    let service = "---
apiVersion: v1
kind: Service
metadata: { name: reviews, namespace: default }
spec:
  clusterIP: 10.0.0.1
  ports: [{ name: http, port: 9080 }]
  selector: { app: reviews }
";
    let gateway = TestGateway::with(
        &[
            http_gateway(),
            service.to_owned(),
            slice("reviews-1", &one, "v1"),
            slice("reviews-2", &two, "v2"),
            route("reviews", "reviews.test", &all_to("reviews")),
        ]
        .concat(),
    );
    for _ in 0..40 {
        assert_eq!(gateway.get("reviews.test", "/").status, 200);
    }
    assert!(one.requests() > 0 && two.requests() > 0);
}

#[test]
fn hosts_in_the_settings_stand_for_dns() {
    let (one, two) = (Backend::http1("v1"), Backend::http1("v2"));
    let manifests = [
        http_gateway(),
        "---
apiVersion: v1
kind: Service
metadata: { name: reviews, namespace: default }
spec: { ports: [{ name: http, port: 9080 }] }
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: { name: reviews, namespace: default }
spec:
  host: reviews
  subsets:
  - { name: v1, labels: { version: v1 } }
  - { name: v2, labels: { version: v2 } }
"
        .to_owned(),
        route(
            "reviews",
            "reviews.test",
            "\
- match: [{ headers: { end-user: { exact: jason } } }]
  route: [{ destination: { host: reviews, subset: v2 } }]
- route: [{ destination: { host: reviews, subset: v1 } }]",
        ),
    ]
    .concat();
    let settings = format!(
        r#"
[hosts]
"reviews.default.svc.cluster.local" = [
  {{ address = "{}", labels = {{ version = "v1" }} }},
  {{ address = "{}", labels = {{ version = "v2" }} }},
]
"#,
        one.address, two.address
    );
    let gateway = Plan::new().manifest("all.yaml", &manifests).settings(&settings).start();
    assert_eq!(gateway.get("reviews.test", "/").backend(), "v1");
    assert_eq!(gateway.curl("reviews.test", "/", &["-H", "end-user: jason"]).backend(), "v2");
}

#[test]
fn headers_of_the_proxy_are_set_and_those_of_clients_are_not_believed() {
    let web = Backend::http1("web");
    let gateway = TestGateway::with(&simple("web.test", web.address));
    let answer = gateway.curl(
        "web.test",
        "/",
        &[
            "-H",
            "x-forwarded-for: 1.2.3.4",
            "-H",
            "x-forwarded-proto: https",
            "-H",
            "x-envoy-retry-on: 5xx",
            "-H",
            "x-request-id: mine",
            "-H",
            "connection: x-hop",
            "-H",
            "x-hop: 1",
        ],
    );
    let told = answer.json();
    assert!(answer.seen("x-forwarded-for").is_some_and(|value| value.starts_with("1.2.3.4,127.")), "{told}");
    assert_eq!(answer.seen("x-forwarded-proto").as_deref(), Some("http"));
    assert_eq!(answer.seen("x-envoy-retry-on"), None);
    assert_eq!(answer.seen("x-hop"), None);
    assert!(answer.seen("x-request-id").is_some_and(|id| id.len() == 36), "{told}");
    assert_eq!(answer.seen("x-envoy-attempt-count").as_deref(), Some("1"));
    assert!(!answer.header("x-envoy-upstream-service-time").is_empty() && !answer.header("date").is_empty());
    let answer = gateway.get("web.test", "/headers");
    assert_eq!(answer.header("server"), "istio-envoy");
    assert_eq!(answer.header("x-envoy-decorator-operation"), "");
    assert_eq!(answer.header("set-cookie"), "a=1, b=2");
}
