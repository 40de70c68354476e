//! Does an HTTP route of a VirtualService keep the rules? (Istio ValidateHTTPRoute)

use std::collections::BTreeMap;

use regex_syntax::ast::{Ast, RepetitionKind, RepetitionRange, Visitor};

use super::faults::{At, Faults};
use super::names::{check_duration, check_labels_of, check_port};
use super::traffic::{check_cors, check_fault, check_mirrors, check_retries};
use super::virtual_service::{check_destination, check_gateway_name, check_weights};
use crate::base::re2::translate;
use crate::resource::networking::{
    HeaderOperations, Headers, HttpDirectResponse, HttpMatchRequest, HttpRedirect, HttpRewrite, HttpRoute, StringMatch,
};

/// What the object around the route is.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub is_delegate: bool,
    pub on_mesh: bool,
    pub on_gateway: bool,
}

/// Checks one route.
pub(super) fn check(route: &HttpRoute, place: Place, at: At<'_>, faults: &mut Faults) {
    check_actions(route, place, at, faults);
    for (index, entry) in route.matches.iter().enumerate() {
        check_match(entry, place, at.item("match", index), faults);
    }
    check_headers(route.headers.as_deref(), at, faults);
    check_destinations(route, at, faults);
    if let Some(redirect) = &route.redirect {
        check_redirect(redirect, route, at.field("redirect"), faults);
    }
    if let Some(response) = &route.direct_response {
        check_direct_response(response, at.field("directResponse"), faults);
    }
    if let Some(rewrite) = &route.rewrite {
        check_rewrite(rewrite, at.field("rewrite"), faults);
        check_authority_twice(route, rewrite, at, faults);
    }
    if let Some(timeout) = route.timeout {
        faults.check(at.field("timeout"), check_duration(timeout));
    }
    if let Some(retries) = &route.retries {
        check_retries(retries, at.field("retries"), faults);
    }
    if let Some(fault) = &route.fault {
        check_fault(fault, at.field("fault"), faults);
    }
    if let Some(cors) = &route.cors_policy {
        check_cors(cors, at.field("corsPolicy"), faults);
    }
    check_mirrors(route, at, faults);
}

/// Exactly one of route, redirect, directResponse and (in a root) delegate.
fn check_actions(route: &HttpRoute, place: Place, at: At<'_>, faults: &mut Faults) {
    let has_route = !route.route.is_empty();
    if route.delegate.is_some() {
        let at = at.field("delegate");
        faults.require(!place.is_delegate, at, "a delegate cannot delegate further");
        let alone = !has_route && route.redirect.is_none() && route.direct_response.is_none();
        faults.require(alone, at, "delegate excludes route, redirect and directResponse");
        return;
    }
    if route.redirect.is_some() {
        let at = at.field("redirect");
        faults.require(!has_route, at, "redirect and route exclude each other");
        faults.require(route.fault.is_none(), at, "redirect and fault exclude each other");
        faults.require(route.rewrite.is_none(), at, "redirect and rewrite exclude each other");
        faults.require(route.direct_response.is_none(), at, "redirect and directResponse exclude each other");
    } else if route.direct_response.is_some() {
        let at = at.field("directResponse");
        faults.require(!has_route, at, "directResponse and route exclude each other");
        faults.require(route.fault.is_none(), at, "directResponse and fault exclude each other");
        faults.require(route.rewrite.is_none(), at, "directResponse and rewrite exclude each other");
    } else if !has_route {
        faults.error(at, "the route does nothing: it needs route, redirect, directResponse or delegate");
    }
}

fn check_destinations(route: &HttpRoute, at: At<'_>, faults: &mut Faults) {
    for (index, weighted) in route.route.iter().enumerate() {
        let at = at.item("route", index);
        match &weighted.destination {
            None => faults.error(at, "a destination has to be named"),
            Some(destination) => check_destination(destination, at.field("destination"), faults),
        }
        check_headers(weighted.headers.as_deref(), at, faults);
    }
    let weights: Vec<i32> = route.route.iter().map(|weighted| weighted.weight).collect();
    check_weights(&weights, at, faults);
}

// ---- match

fn check_match(entry: &HttpMatchRequest, place: Place, at: At<'_>, faults: &mut Faults) {
    if let Some(uri) = &entry.uri {
        check_string_match(uri, EmptyPrefix::Allowed, at.field("uri"), faults);
    }
    let fields = [("scheme", &entry.scheme), ("method", &entry.method), ("authority", &entry.authority)];
    for (name, matcher) in fields {
        if let Some(matcher) = matcher {
            check_string_match(matcher, EmptyPrefix::Refused, at.field(name), faults);
        }
    }
    check_header_matches(&entry.headers, "headers", place, at, faults);
    check_header_matches(&entry.without_headers, "withoutHeaders", place, at, faults);
    for (name, matcher) in &entry.query_params {
        let at = at.key("queryParams", name);
        faults.require(!name.is_empty(), at, "a query parameter needs a name");
        if let Some(matcher) = matcher {
            check_string_match(matcher, EmptyPrefix::Refused, at, faults);
        }
    }
    if entry.port != 0 {
        faults.check(at.field("port"), check_port(entry.port));
    }
    faults.check(at.field("sourceLabels"), check_labels_of(&entry.source_labels));
    for (index, name) in entry.gateways.iter().enumerate() {
        check_gateway_name(name, at.item("gateways", index), faults);
    }
}

fn check_header_matches(
    headers: &BTreeMap<String, Option<StringMatch>>,
    field: &str,
    place: Place,
    at: At<'_>,
    faults: &mut Faults,
) {
    for (name, matcher) in headers {
        let at = at.key(field, name);
        if name.starts_with("@request.auth.claims") {
            let on_gateway = place.on_gateway || place.is_delegate || !place.on_mesh;
            faults.require(on_gateway, at, "JWT claims can be matched on gateways only");
        } else {
            faults.check(at, check_match_name(name));
        }
        let Some(matcher) = matcher else { continue };
        let presence = field == "withoutHeaders" && matcher.regex.as_deref() == Some("*");
        if !presence {
            check_string_match(matcher, EmptyPrefix::Refused, at, faults);
        }
    }
}

fn check_match_name(name: &str) -> Result<(), String> {
    let bare = name.strip_prefix(':').unwrap_or(name);
    if bare.is_empty() {
        return Err("a header needs a name".into());
    }
    if bare.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)) {
        Ok(())
    } else {
        Err(format!("`{name}` is no header name"))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum EmptyPrefix {
    Allowed,
    Refused,
}

/// One kind of match; a regex that compiles and is not too long.
pub(super) fn check_string_match(matcher: &StringMatch, empty_prefix: EmptyPrefix, at: At<'_>, faults: &mut Faults) {
    let given = [&matcher.exact, &matcher.prefix, &matcher.regex].into_iter().flatten().count();
    faults.require(given <= 1, at, "exact, prefix and regex exclude each other");
    if matcher.prefix.as_deref() == Some("") {
        faults.require(empty_prefix == EmptyPrefix::Allowed, at.field("prefix"), "the prefix cannot be empty");
    }
    if let Some(regex) = &matcher.regex {
        faults.check(at.field("regex"), check_regex(regex));
    }
}

/// RE2 syntax, at most 1024 bytes, not empty.
pub(super) fn check_regex(regex: &str) -> Result<(), String> {
    match regex.len() {
        0 => return Err("the regex cannot be empty".into()),
        1..=1024 => {}
        _ => return Err("the regex is longer than 1024 bytes".into()),
    }
    match regex_syntax::ast::parse::Parser::new().parse(&translate(regex)) {
        Ok(ast) => match regex_syntax::ast::visit(&ast, Repetitions) {
            Ok(()) => Ok(()),
            Err(count) => Err(format!("`{regex}` repeats {count} times; RE2 takes 1000 at most")),
        },
        Err(error) => Err(format!("`{regex}` is no regex: {}", error.kind())),
    }
}

/// Finds a repetition that RE2 does not take.
struct Repetitions;

impl Visitor for Repetitions {
    type Output = ();
    type Err = u32;

    fn finish(self) -> Result<(), u32> {
        Ok(())
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), u32> {
        let Ast::Repetition(repetition) = ast else { return Ok(()) };
        let most = match repetition.op.kind {
            RepetitionKind::Range(RepetitionRange::Exactly(count) | RepetitionRange::AtLeast(count)) => count,
            RepetitionKind::Range(RepetitionRange::Bounded(low, high)) => low.max(high),
            RepetitionKind::ZeroOrOne | RepetitionKind::ZeroOrMore | RepetitionKind::OneOrMore => return Ok(()),
        };
        if most > 1000 { Err(most) } else { Ok(()) }
    }
}

// ---- headers

fn check_headers(headers: Option<&Headers>, at: At<'_>, faults: &mut Faults) {
    let Some(headers) = headers else { return };
    let at = at.field("headers");
    if let Some(request) = &headers.request {
        check_operations(request, Direction::Request, at.field("request"), faults);
    }
    if let Some(response) = &headers.response {
        check_operations(response, Direction::Response, at.field("response"), faults);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Request,
    Response,
}

fn check_operations(operations: &HeaderOperations, direction: Direction, at: At<'_>, faults: &mut Faults) {
    for (field, values) in [("set", &operations.set), ("add", &operations.add)] {
        for (name, value) in values {
            let at = at.key(field, name);
            let authority = direction == Direction::Request && is_authority(name);
            if !authority {
                faults.check(at, check_operation_name(name));
            }
            faults.check(at, check_value(value));
        }
    }
    let authorities = operations.set.keys().chain(operations.add.keys()).filter(|name| is_authority(name)).count();
    faults.require(authorities < 2, at, "Host can be set once");
    for (index, name) in operations.remove.iter().enumerate() {
        faults.check(at.item("remove", index), check_operation_name(name));
    }
}

fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name == ":authority"
}

fn check_operation_name(name: &str) -> Result<(), String> {
    match name {
        "" => Err("a header needs a name".into()),
        name if name.starts_with(':') => Err(format!("`{name}` cannot be changed here")),
        name if name.eq_ignore_ascii_case("host") => Err("Host can be set in a request only".into()),
        _ => Ok(()),
    }
}

/// `%OPERATOR(arguments)%` or `%%`; a lone `%` and control characters are errors.
fn check_value(value: &str) -> Result<(), String> {
    if value.chars().any(|c| c.is_control() && c != '\t') {
        return Err("a header value has no control characters".into());
    }
    let mut rest = value;
    while let Some((_, after)) = rest.split_once('%') {
        rest = match after.strip_prefix('%') {
            Some(after) => after,
            None => skip_operator(after).ok_or_else(|| {
                format!("`{value}`: a single % begins an operator such as %REQ(name)%; write %% for a percent sign")
            })?,
        };
    }
    Ok(())
}

/// What follows `NAME%` or `NAME(arguments)%`; arguments that begin with `[` are a list of strings.
fn skip_operator(text: &str) -> Option<&str> {
    let name = text.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))?;
    let rest = text.get(name..).filter(|_| name > 0)?;
    let rest = match rest.strip_prefix('(') {
        Some(arguments) if arguments.trim_start().starts_with('[') => skip_list(arguments.trim_start())?,
        Some(arguments) => arguments.split_once(')')?.1,
        None => rest,
    };
    rest.strip_prefix('%')
}

/// What follows `["a", "b"])`.
fn skip_list(text: &str) -> Option<&str> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Vec<String>>();
    let list = values.next()?.ok()?;
    let rest = text.get(values.byte_offset()..).filter(|_| !list.is_empty())?;
    rest.trim_start().strip_prefix(')')
}

/// Host is set by rewrite.authority or by a header operation, not by both.
fn check_authority_twice(route: &HttpRoute, rewrite: &HttpRewrite, at: At<'_>, faults: &mut Faults) {
    let request = route.headers.as_deref().and_then(|headers| headers.request.as_ref());
    let set =
        request.is_some_and(|request| request.set.keys().chain(request.add.keys()).any(|name| is_authority(name)));
    let message = "rewrite.authority and a Host header exclude each other";
    faults.require(rewrite.authority.is_empty() || !set, at.field("rewrite").field("authority"), message);
}

// ---- actions

fn check_redirect(redirect: &HttpRedirect, route: &HttpRoute, at: At<'_>, faults: &mut Faults) {
    let some = !redirect.uri.is_empty()
        || !redirect.authority.is_empty()
        || !redirect.prefix_rewrite.is_empty()
        || !redirect.scheme.is_empty()
        || redirect.port.is_some()
        || redirect.derive_port.is_some();
    faults.require(some, at, "a redirect has to change uri, prefixRewrite, authority, scheme or port");
    let both = !redirect.uri.is_empty() && !redirect.prefix_rewrite.is_empty();
    faults.require(!both, at, "uri and prefixRewrite exclude each other");
    let ports = redirect.port.is_some() && redirect.derive_port.is_some();
    faults.require(!ports, at, "port and derivePort exclude each other");
    if !redirect.prefix_rewrite.is_empty() {
        let other = |entry: &HttpMatchRequest| entry.uri.as_ref().is_some_and(|uri| uri.prefix.is_none());
        let message = "prefixRewrite needs matches by uri prefix";
        faults.require(!route.matches.iter().any(other), at.field("prefixRewrite"), message);
    }
    if let Some(port) = redirect.port.filter(|port| *port > 0) {
        faults.check(at.field("port"), check_port(port));
    }
    let code = redirect.redirect_code;
    if code != 0 && !(300..=399).contains(&code) {
        faults.error(at.field("redirectCode"), format!("{code} is no redirect; 301 to 308 are"));
    }
    if !matches!(redirect.scheme.as_str(), "" | "http" | "https") {
        faults.error(at.field("scheme"), format!("`{}` is neither http nor https", redirect.scheme));
    }
}

fn check_direct_response(response: &HttpDirectResponse, at: At<'_>, faults: &mut Faults) {
    if !(200..=599).contains(&response.status) {
        // Istio lets 600 pass, for which Envoy refuses every route.
        faults.error(at.field("status"), format!("the status {} is not between 200 and 599", response.status));
    }
    let Some(body) = &response.body else { return };
    faults.require(
        body.string.is_none() || body.bytes.is_none(),
        at.field("body"),
        "string and bytes exclude each other",
    );
    // Base64 has four characters for three bytes.
    let size = body.string.as_ref().map_or(0, String::len) + body.bytes.as_ref().map_or(0, |text| text.len() / 4 * 3);
    if size > 1024 * 1024 {
        faults.error(at.field("body"), "the body is larger than 1 MB");
    } else if size > 100 * 1024 {
        faults.warn(at.field("body"), "the body is larger than 100 kB; it is kept in memory");
    }
}

fn check_rewrite(rewrite: &HttpRewrite, at: At<'_>, faults: &mut Faults) {
    let some = !rewrite.uri.is_empty() || !rewrite.authority.is_empty() || rewrite.uri_regex_rewrite.is_some();
    faults.require(some, at, "a rewrite has to change uri, authority or uriRegexRewrite");
    let Some(regex) = &rewrite.uri_regex_rewrite else { return };
    faults.require(rewrite.uri.is_empty(), at, "uri and uriRegexRewrite exclude each other");
    let at = at.field("uriRegexRewrite");
    faults.check(at.field("match"), check_regex(&regex.pattern));
    faults.require(!regex.rewrite.is_empty(), at.field("rewrite"), "the replacement cannot be empty");
}
