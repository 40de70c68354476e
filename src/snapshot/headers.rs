//! What do header operations make of a list of headers? (Istio Headers.HeaderOperations.)

use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};

pub(crate) use super::template::{TemplateFacts, ValueTemplate};

/// What a rule does to headers; most rules do nothing, so that costs a pointer.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeaderOperations(Option<Box<OperationLists>>);

/// One list: all removes, then every set, then every add. Values are computed from the headers behind the removes.
#[derive(Clone, Debug, Default)]
pub(crate) struct OperationLists {
    pub remove: Vec<HeaderName>,
    pub set: Vec<(HeaderName, ValueTemplate)>,
    pub add: Vec<(HeaderName, ValueTemplate)>,
}

impl From<OperationLists> for HeaderOperations {
    fn from(lists: OperationLists) -> Self {
        let is_empty = lists.remove.is_empty() && lists.set.is_empty() && lists.add.is_empty();
        HeaderOperations((!is_empty).then(|| Box::new(lists)))
    }
}

impl HeaderOperations {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// A copy of the lists.
    #[cfg(test)]
    pub(crate) fn lists(&self) -> OperationLists {
        self.0.as_deref().cloned().unwrap_or_default()
    }

    /// Changes the headers of a request (`facts.request` is `None`) or of a response. `server` is never changed;
    /// an empty value makes its operation void.
    pub(crate) fn apply(&self, headers: &mut HeaderMap, facts: &TemplateFacts<'_>) {
        if let Some(lists) = &self.0 {
            lists.apply(headers, facts);
        }
    }
}

impl OperationLists {
    fn apply(&self, headers: &mut HeaderMap, facts: &TemplateFacts<'_>) {
        for name in self.remove.iter().filter(|name| *name != header::SERVER) {
            headers.remove(name);
        }
        let values = |operations: &[(HeaderName, ValueTemplate)]| -> Vec<Option<HeaderValue>> {
            operations.iter().map(|(_, template)| template.value(headers, facts)).collect()
        };
        let (set, add) = (values(&self.set), values(&self.add));
        for (name, value) in with_values(&self.set, set) {
            headers.insert(name, value);
        }
        for (name, value) in with_values(&self.add, add) {
            append(headers, name, value, facts.request.is_some());
        }
    }
}

fn with_values(
    operations: &[(HeaderName, ValueTemplate)],
    values: Vec<Option<HeaderValue>>,
) -> impl Iterator<Item = (&HeaderName, HeaderValue)> {
    let named = operations.iter().map(|(name, _)| name).zip(values);
    named.filter_map(|(name, value)| value.map(|value| (name, value))).filter(|(name, _)| *name != header::SERVER)
}

/// Adds a line, or joins it to the one that is there if Envoy keeps the name as a single field.
fn append(headers: &mut HeaderMap, name: &HeaderName, value: HeaderValue, of_response: bool) {
    let known = if of_response { is_known_in_response(name) } else { is_known_in_request(name) };
    match headers.entry(name) {
        Entry::Vacant(place) => drop(place.insert(value)),
        Entry::Occupied(mut lines) if known => {
            let joined = [lines.get().as_bytes(), b",", value.as_bytes()].concat();
            if let Ok(joined) = HeaderValue::from_bytes(&joined) {
                lines.insert(joined);
            }
        }
        Entry::Occupied(mut lines) => lines.append(value),
    }
}

/// Whether several lines of a request header are one field, joined with `,` (Envoy's known headers).
pub(crate) fn is_known_in_request(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "accept"
            | "accept-encoding"
            | "access-control-request-headers"
            | "access-control-request-method"
            | "access-control-request-private-network"
            | "authorization"
            | "cache-control"
            | "content-type"
            | "grpc-accept-encoding"
            | "host"
            | "if-none-match"
            | "origin"
            | "pragma"
            | "referer"
            | "user-agent"
            | "via"
            | "x-envoy-attempt-count"
            | "x-envoy-external-address"
            | "x-forwarded-client-cert"
            | "x-forwarded-for"
            | "x-forwarded-host"
            | "x-forwarded-port"
            | "x-forwarded-proto"
            | "x-request-id"
    )
}

/// Whether several lines of a response header are one field, joined with `,` (Envoy's known headers).
pub(crate) fn is_known_in_response(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "access-control-allow-credentials"
            | "access-control-allow-headers"
            | "access-control-allow-methods"
            | "access-control-allow-origin"
            | "access-control-allow-private-network"
            | "access-control-expose-headers"
            | "access-control-max-age"
            | "age"
            | "cache-control"
            | "content-encoding"
            | "content-type"
            | "etag"
            | "expires"
            | "grpc-message"
            | "grpc-status"
            | "last-modified"
            | "location"
            | "vary"
            | "via"
            | "x-request-id"
    )
}

#[cfg(test)]
mod tests {
    use super::super::template::tests::facts;
    use super::*;

    fn list(operations: &[(&'static str, &str)]) -> Vec<(HeaderName, ValueTemplate)> {
        let one = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), ValueTemplate::parse(value).unwrap())
        };
        operations.iter().map(one).collect()
    }

    fn shown(headers: &HeaderMap) -> Vec<String> {
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
    }

    #[test]
    fn removes_then_sets_then_adds() {
        let mut headers = HeaderMap::new();
        headers.insert("a", HeaderValue::from_static("old"));
        headers.insert("accept", HeaderValue::from_static("x"));
        headers.insert("gone", HeaderValue::from_static("g"));
        headers.insert("server", HeaderValue::from_static("me"));
        let operations = OperationLists {
            remove: vec![HeaderName::from_static("gone"), header::SERVER],
            set: list(&[("b", "%REQ(a)%"), ("d", "%REQ(gone)%"), ("a", "new"), ("accept", ""), ("server", "you")]),
            add: list(&[("a", "%REQ(a)%"), ("accept", "y"), ("c", "%REQ(none)%")]),
        };
        operations.apply(&mut headers, &facts("/"));
        let mut lines = shown(&headers);
        lines.sort();
        assert_eq!(lines, ["a: new", "a: old", "accept: x,y", "b: old", "server: me"]);
    }

    #[test]
    fn a_response_has_its_own_known_names() {
        let request = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static("q"))]);
        let facts = TemplateFacts { request: Some(&request), response_code: 200, ..facts("/") };
        let mut headers = HeaderMap::new();
        headers.insert("vary", HeaderValue::from_static("x"));
        headers.insert("set-cookie", HeaderValue::from_static("a=1"));
        let add = list(&[("vary", "%REQ(accept)%"), ("set-cookie", "b=%RESPONSE_CODE%"), ("d", "%RESP(vary)%")]);
        OperationLists { add, ..OperationLists::default() }.apply(&mut headers, &facts);
        let mut lines = shown(&headers);
        lines.sort();
        assert_eq!(lines, ["d: x", "set-cookie: a=1", "set-cookie: b=200", "vary: x,q"]);
    }
}
