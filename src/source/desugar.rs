//! What do `[[route]]` lines mean in Istio's words? One Gateway and VirtualService for each host and port, one
//! ServiceEntry (with a DestinationRule for TLS) for each line.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use http::Uri;

use super::kinds::Resource;
use super::limani_toml::{Route, RouteTls};
use crate::resource::codes;
use crate::resource::finding::Finding;
use crate::resource::meta::{Meta, Object, Origin};
use crate::resource::networking::{
    ClientTls, ClientTlsMode, Destination, DestinationRule, Gateway, HeaderOperations, Headers, HttpMatchRequest,
    HttpRedirect, HttpRewrite, HttpRoute, HttpRouteDestination, Port, RegexRewrite, Resolution, Server, ServerTls,
    ServerTlsMode, ServiceEntry, ServicePort, StringMatch, TrafficPolicy, VirtualService, WorkloadEntry,
};
use crate::resource::settings::GatewaySettings;

/// The objects of all lines; `origins` has the place of each.
///
/// # Errors
///
/// Findings with the line of what cannot be understood.
pub(super) fn desugar(
    routes: &[Route],
    origins: &[Origin],
    gateway: &GatewaySettings,
) -> Result<Vec<Resource>, Vec<Finding>> {
    let (mut lines, mut faults) = (Vec::new(), Vec::new());
    for ((route, origin), number) in routes.iter().zip(origins).zip(1..) {
        match Line::read(route, origin, number) {
            Ok(line) => lines.push(line),
            Err(message) => faults
                .push(Finding::new(&codes::SETTINGS, origin.start(), message).about(format!("[[route]] {number}"))),
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let mut objects = Vec::new();
    for line in &lines {
        line.backend_objects(gateway, &mut objects);
    }
    for (front, members) in fronts(&lines) {
        front_objects(&front, &members, &lines, gateway, &mut objects);
    }
    Ok(objects)
}

/// What clients connect to: a host on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Front<'a> {
    host: &'a str,
    port: u16,
    tls: Option<Credential<'a>>,
}

/// Where the certificate of a host comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Credential<'a> {
    /// Certificate and key.
    Files(&'a str, &'a str),
    /// A credentialName such as `acme://`.
    Issued(&'a str),
}

/// A line that was understood.
struct Line<'a> {
    name: String,
    route: &'a Route,
    origin: &'a Origin,
    path: &'a str,
    port: u16,
    tls: Option<Credential<'a>>,
    action: Action,
}

enum Action {
    Forward { backends: Vec<Backend>, base: Option<String> },
    Redirect(HttpRedirect),
}

/// One URL of `to`.
#[derive(Clone, Debug, PartialEq)]
struct Backend {
    protocol: &'static str,
    host: String,
    port: u16,
}

impl<'a> Line<'a> {
    fn read(route: &'a Route, origin: &'a Origin, number: usize) -> Result<Self, String> {
        let hosts = route.host.items();
        if hosts.is_empty() || hosts.iter().any(String::is_empty) {
            return Err("`host` has to name the hosts that are served; \"*\" serves all".into());
        }
        if let Some(short) = hosts.iter().find(|host| *host != "*" && !host.contains('.')) {
            return Err(format!("the host `{short}` has to be a name with a dot, an address, or \"*\""));
        }
        let path = route.path.as_deref().unwrap_or("/");
        if !path.starts_with('/') {
            return Err(format!("the path `{path}` has to begin with /"));
        }
        let tls = match &route.tls {
            None | Some(RouteTls::Switch(false)) => None,
            Some(RouteTls::Switch(true)) => return Err(format!("`tls` has to be {CREDENTIALS}")),
            Some(RouteTls::Issued(issuer)) => Some(Credential::Issued(issued(issuer)?)),
            Some(RouteTls::Files { certificate, key }) => Some(Credential::Files(certificate, key)),
        };
        let action = match (route.to.items(), &route.redirect) {
            ([], Some(url)) => Action::Redirect(redirect(url)?),
            ([], None) => return Err("`to` or `redirect` has to say what happens to requests".into()),
            (_, Some(_)) => return Err("`to` and `redirect` exclude each other".into()),
            (urls, None) => forward(urls)?,
        };
        let port = route.port.unwrap_or(if tls.is_some() { 443 } else { 80 });
        Ok(Line { name: format!("route-{number}"), route, origin, path, port, tls, action })
    }

    fn object<T>(&self, namespace: &str, spec: T) -> Arc<Object<T>> {
        let meta = Meta { name: self.name.clone(), namespace: namespace.to_owned(), ..Meta::default() };
        Arc::new(Object { meta, spec, origin: self.origin.clone() })
    }

    /// The host under which the backends are known inside.
    fn service(&self) -> String {
        format!("{}.limani.internal", self.name)
    }

    fn backend_objects(&self, gateway: &GatewaySettings, objects: &mut Vec<Resource>) {
        let Action::Forward { backends, .. } = &self.action else { return };
        let Some(first) = backends.first() else { return };
        let fixed = backends.iter().all(|backend| backend.host.parse::<IpAddr>().is_ok());
        let endpoints = backends.iter().map(|backend| WorkloadEntry {
            address: backend.host.clone(),
            ports: BTreeMap::from([(PORT_NAME.to_owned(), u32::from(backend.port))]),
            ..WorkloadEntry::default()
        });
        let entry = ServiceEntry {
            hosts: vec![self.service()],
            ports: vec![ServicePort {
                number: u32::from(first.port),
                protocol: first.protocol.to_owned(),
                name: PORT_NAME.to_owned(),
                target_port: 0,
            }],
            resolution: if fixed { Resolution::Static } else { Resolution::Dns },
            endpoints: endpoints.collect(),
            ..ServiceEntry::default()
        };
        objects.push(Resource::ServiceEntry(self.object(&gateway.namespace, entry)));
        if first.protocol == "HTTPS" {
            let named = first.host.parse::<IpAddr>().is_err();
            let tls = ClientTls {
                mode: ClientTlsMode::Simple,
                sni: if named { first.host.clone() } else { String::new() },
                subject_alt_names: vec![first.host.clone()],
                ..ClientTls::default()
            };
            let rule = DestinationRule {
                host: self.service(),
                traffic_policy: Some(TrafficPolicy { tls: Some(tls), ..TrafficPolicy::default() }),
                ..DestinationRule::default()
            };
            objects.push(Resource::DestinationRule(self.object(&gateway.namespace, rule)));
        }
    }

    fn http_route(&self) -> HttpRoute {
        let headers = &self.route.headers;
        let operations =
            HeaderOperations { set: headers.set.clone(), remove: headers.remove.clone(), ..Default::default() };
        let some_operations = operations != HeaderOperations::default();
        let mut http = HttpRoute {
            name: self.name.clone(),
            matches: self.matches(),
            timeout: self.route.timeout.filter(|timeout| !timeout.0.is_zero()),
            headers: some_operations.then(|| Box::new(Headers { request: Some(operations), response: None })),
            ..HttpRoute::default()
        };
        match &self.action {
            Action::Redirect(redirect) => http.redirect = Some(Box::new(redirect.clone())),
            Action::Forward { base, .. } => {
                let destination = Destination { host: self.service(), ..Destination::default() };
                http.route = vec![HttpRouteDestination { destination: Some(destination), ..Default::default() }];
                http.rewrite = base
                    .as_deref()
                    .filter(|base| (*base, self.path) != ("/", "/"))
                    .map(|base| Box::new(self.rewrite(base)));
            }
        }
        http
    }

    /// `/api` serves `/api` and `/api/x`, not `/apix`.
    fn matches(&self) -> Vec<HttpMatchRequest> {
        let uri = |uri: StringMatch| HttpMatchRequest { uri: Some(Box::new(uri)), ..HttpMatchRequest::default() };
        let prefix = |path: &str| uri(StringMatch { prefix: Some(path.to_owned()), ..StringMatch::default() });
        match self.path {
            "/" => Vec::new(),
            path if path.ends_with('/') => vec![prefix(path)],
            path => {
                let exact = uri(StringMatch { exact: Some(path.to_owned()), ..StringMatch::default() });
                vec![exact, prefix(&format!("{path}/"))]
            }
        }
    }

    /// Puts the base path of the backend in the place of the line's own path.
    fn rewrite(&self, base: &str) -> HttpRewrite {
        let path = regex_syntax::escape(self.path.trim_end_matches('/'));
        let regex = RegexRewrite {
            pattern: format!("^{path}/?"),
            rewrite: format!("{}/", base.trim_end_matches('/').replace('\\', "\\\\")),
        };
        HttpRewrite { uri_regex_rewrite: Some(regex), ..HttpRewrite::default() }
    }
}

/// What `tls` may say.
const CREDENTIALS: &str = "\"acme\", \"local-ca\", or files: { certificate = \"file.pem\", key = \"file.pem\" }";

/// The credentialName of an issuer.
fn issued(issuer: &str) -> Result<&str, String> {
    match issuer {
        "acme" => Ok("acme://"),
        "local-ca" => Ok("local-ca://"),
        named if named.starts_with("acme://") => Ok(named),
        other => Err(format!("`tls` cannot be \"{other}\"; it has to be {CREDENTIALS}")),
    }
}

/// The name of every port of a backend.
const PORT_NAME: &str = "backend";

fn forward(urls: &[String]) -> Result<Action, String> {
    let read: Vec<(Backend, Option<String>)> = urls.iter().map(|url| backend(url)).collect::<Result<_, _>>()?;
    let Some((first, base)) = read.first().cloned() else { return Err("`to` is empty".into()) };
    if read.iter().any(|(backend, other)| backend.protocol != first.protocol || *other != base) {
        return Err("the URLs of `to` may differ in host and port only".into());
    }
    if first.protocol == "HTTPS" && read.iter().any(|(backend, _)| backend.host != first.host) {
        return Err("several https URLs of `to` have to name the same host".into());
    }
    Ok(Action::Forward { backends: read.into_iter().map(|(backend, _)| backend).collect(), base })
}

fn backend(url: &str) -> Result<(Backend, Option<String>), String> {
    let wrong = || format!("`{url}` is no backend; write http://, https:// or h2c:// with a host and perhaps a port");
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let (protocol, port) = match uri.scheme_str() {
        Some("http") => ("HTTP", 80),
        Some("https") => ("HTTPS", 443),
        Some("h2c") => ("HTTP2", 80),
        _ => return Err(wrong()),
    };
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
    if uri.query().is_some() {
        return Err(format!("`{url}`: a backend has no query"));
    }
    // An address without any path leaves the client's path alone; http::Uri reads it as `/`.
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    let base = after_scheme.contains('/').then(|| uri.path().to_owned());
    let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
    Ok((Backend { protocol, host, port: uri.port_u16().unwrap_or(port) }, base))
}

fn redirect(url: &str) -> Result<HttpRedirect, String> {
    let wrong = || format!("`{url}` is no URL to redirect to; write one such as https://www.example.com");
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let (Some(scheme @ ("http" | "https")), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(wrong());
    };
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    Ok(HttpRedirect {
        scheme: scheme.to_owned(),
        authority: authority.to_string(),
        uri: if path == "/" && !url.ends_with('/') { String::new() } else { path.to_owned() },
        ..HttpRedirect::default()
    })
}

/// Every host and port with its lines, in the order of the file.
fn fronts<'a>(lines: &'a [Line<'a>]) -> Vec<(Front<'a>, Vec<&'a Line<'a>>)> {
    let mut fronts: Vec<(Front<'a>, Vec<&'a Line<'a>>)> = Vec::new();
    for line in lines {
        for host in line.route.host.items() {
            let front = Front { host, port: line.port, tls: line.tls };
            let known = fronts.iter_mut().find(|(known, _)| {
                known.host == front.host && known.port == front.port && known.tls.is_some() == front.tls.is_some()
            });
            match known {
                Some((_, members)) => members.push(line),
                None => fronts.push((front, vec![line])),
            }
        }
    }
    fronts
}

fn front_objects(
    front: &Front<'_>,
    members: &[&Line<'_>],
    lines: &[Line<'_>],
    gateway: &GatewaySettings,
    objects: &mut Vec<Resource>,
) {
    let Some(first) = members.first() else { return };
    let name = match first.route.host.items() {
        [_] => first.name.clone(),
        hosts => {
            let position = hosts.iter().position(|host| host == front.host).unwrap_or(0);
            format!("{}-{}", first.name, position + 1)
        }
    };
    let mut servers = vec![server(front)];
    let has_plain = lines.iter().any(|line| {
        line.tls.is_none() && line.port == 80 && line.route.host.items().iter().any(|host| host == front.host)
    });
    let wanted = members.iter().find_map(|line| line.route.http_to_https).unwrap_or(!has_plain);
    if front.tls.is_some() && wanted {
        servers.push(Server {
            tls: Some(ServerTls { https_redirect: true, ..ServerTls::default() }),
            ..server(&Front { port: 80, tls: None, ..front.clone() })
        });
    }
    // A line for every path comes last, as Istio sorts catch-alls.
    let (all, some): (Vec<&Line<'_>>, Vec<&Line<'_>>) = members.iter().partition(|line| line.path == "/");
    let virtual_service = VirtualService {
        hosts: vec![front.host.to_owned()],
        gateways: vec![name.clone()],
        http: some.iter().chain(&all).map(|line| line.http_route()).collect(),
        ..VirtualService::default()
    };
    let meta = Meta { name, namespace: gateway.namespace.clone(), ..Meta::default() };
    let spec = Gateway { servers, selector: gateway.labels.clone() };
    let origin = first.origin.clone();
    objects.push(Resource::Gateway(Arc::new(Object { meta: meta.clone(), spec, origin: origin.clone() })));
    objects.push(Resource::VirtualService(Arc::new(Object { meta, spec: virtual_service, origin })));
}

fn server(front: &Front<'_>) -> Server {
    let (protocol, tls) = match front.tls {
        None => ("HTTP", None),
        Some(credential) => {
            let mut tls = ServerTls { mode: ServerTlsMode::Simple, ..ServerTls::default() };
            match credential {
                Credential::Files(certificate, key) => {
                    tls.server_certificate = certificate.to_owned();
                    tls.private_key = key.to_owned();
                }
                Credential::Issued(name) => tls.credential_name = name.to_owned(),
            }
            ("HTTPS", Some(tls))
        }
    };
    Server {
        port: Port {
            number: u32::from(front.port),
            protocol: protocol.to_owned(),
            name: format!("{}-{}", protocol.to_ascii_lowercase(), front.port),
            target_port: 0,
        },
        hosts: vec![front.host.to_owned()],
        tls,
        ..Server::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::limani_toml;
    use super::*;
    use crate::resource::ResourceSet;
    use crate::resource::settings::Settings;

    fn objects(text: &str) -> Result<ResourceSet, Vec<String>> {
        let read = limani_toml::read("l.toml", text).unwrap();
        let resources = desugar(&read.keys.route, &read.route_origins, &Settings::default().gateway)
            .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let mut set = ResourceSet::default();
        resources.iter().for_each(|resource| resource.add_to(&mut set));
        Ok(set)
    }

    #[test]
    fn lines_of_a_host_share_its_front() {
        let set = objects(
            r#"
            [[route]]
            host = "a.com"
            to = ["http://127.0.0.1:3000", "http://127.0.0.1:3001"]
            tls = { certificate = "a.pem", key = "a.key" }
            [[route]]
            host = "a.com"
            path = "/api"
            to = "https://api.internal:8443/v2"
            tls = { certificate = "a.pem", key = "a.key" }
            [[route]]
            host = ["b.com", "c.com"]
            redirect = "https://a.com"
            [[route]]
            host = "d.com"
            to = "http://127.0.0.1:3000"
            tls = "acme"
            "#,
        )
        .unwrap();
        let names: Vec<_> = set.gateways.iter().map(|g| (g.meta.name.as_str(), g.spec.servers.len())).collect();
        assert_eq!(names, [("route-1", 2), ("route-3-1", 1), ("route-3-2", 1), ("route-4", 2)]);
        let credential =
            |number: usize| set.gateways[number].spec.servers[0].tls.as_ref().unwrap().credential_name.clone();
        assert_eq!((credential(0).as_str(), credential(3).as_str()), ("", "acme://"));
        let http = &set.virtual_services[0].spec.http;
        assert_eq!(http[0].name, "route-2");
        let rewrite = http[0].rewrite.as_ref().unwrap().uri_regex_rewrite.as_ref().unwrap();
        assert_eq!((rewrite.pattern.as_str(), rewrite.rewrite.as_str()), ("^/api/?", "/v2/"));
        assert!(http[1].matches.is_empty() && http[1].rewrite.is_none());
        assert_eq!(set.service_entries[0].spec.resolution, Resolution::Static);
        assert_eq!(set.service_entries[1].spec.resolution, Resolution::Dns);
        assert_eq!(
            set.destination_rules[0].spec.traffic_policy.as_ref().unwrap().tls.as_ref().unwrap().sni,
            "api.internal"
        );
        assert_eq!(set.virtual_services[1].spec.http[0].redirect.as_ref().unwrap().authority, "a.com");
    }

    #[test]
    fn faults_name_their_line() {
        for (text, wanted) in [
            ("[[route]]\nto = \"http://a\"\n", "l.toml:1: error [LIM0001] [[route]] 1: `host` has to name"),
            ("\n[[route]]\nhost = \"a.b\"\n", "l.toml:2: error [LIM0001] [[route]] 1: `to` or `redirect`"),
            (
                "[[route]]\nhost = \"a.b\"\nto = \"ftp://a\"\n",
                "l.toml:1: error [LIM0001] [[route]] 1: `ftp://a` is no backend",
            ),
            (
                "[[route]]\nhost = \"a.b\"\nto = \"http://a\"\ntls = \"acne\"\n",
                "l.toml:1: error [LIM0001] [[route]] 1: `tls` cannot be \"acne\"",
            ),
        ] {
            let faults = objects(text).unwrap_err();
            assert!(faults[0].starts_with(wanted), "{faults:?}");
        }
    }
}
