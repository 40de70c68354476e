//! What do Istio's header operations become: lists for the proxy, and an authority rewrite?

use http::header::HeaderName;

use crate::resource::networking::{HeaderOperations as Written, Headers};
use crate::snapshot::headers::{OperationLists, ValueTemplate};

/// The operations of one level, request and response side.
#[derive(Default)]
pub(super) struct Lists {
    pub request: OperationLists,
    pub response: OperationLists,
    /// `Host` or `:authority` in the request's set or add: taken literally, set wins.
    pub authority: Option<String>,
    /// Operators that have no value here, for findings.
    pub absent: Vec<String>,
}

/// Why operations cannot be made.
#[derive(Debug, PartialEq)]
pub(super) enum Spoiled {
    /// Istio accepts such a name, and answers each request with 503 and this sentence.
    RequestName(String),
    /// An unknown operator, a lone `%`, a control character.
    Value(String),
}

impl Lists {
    pub(super) fn new(headers: Option<&Headers>) -> Result<Lists, Spoiled> {
        let mut lists = Lists::default();
        let Some(headers) = headers else { return Ok(lists) };
        if let Some(request) = &headers.request {
            lists.authority = authority(request);
            lists.request = list(request, &mut lists.absent, true)?;
        }
        if let Some(response) = &headers.response {
            lists.response = list(response, &mut lists.absent, false)?;
        }
        Ok(lists)
    }

    /// One list of two: the rule's words first, so that the destination's `set` wins.
    pub(super) fn join(mut self, other: Lists) -> Lists {
        let extend = |own: &mut OperationLists, other: OperationLists| {
            own.remove.extend(other.remove);
            own.set.extend(other.set);
            own.add.extend(other.add);
        };
        extend(&mut self.request, other.request);
        extend(&mut self.response, other.response);
        self.absent.extend(other.absent);
        self.authority = self.authority.or(other.authority);
        self
    }
}

fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
}

fn authority(written: &Written) -> Option<String> {
    let mut values = written.set.iter().chain(&written.add).filter(|(name, _)| is_authority(name));
    values.next().map(|(_, value)| value.clone())
}

/// Pseudo headers and `Host` are left out, as in Istio.
fn list(written: &Written, absent: &mut Vec<String>, of_request: bool) -> Result<OperationLists, Spoiled> {
    let is_plain = |name: &&str| !name.starts_with(':') && !is_authority(name);
    let remove = written.remove.iter().map(String::as_str).filter(is_plain);
    let mut valued = |pairs: &std::collections::BTreeMap<String, String>| {
        let mut operations = Vec::with_capacity(pairs.len());
        for (name, value) in pairs.iter().filter(|(name, _)| is_plain(&name.as_str())) {
            let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
                match of_request {
                    true => return Err(Spoiled::RequestName(name.clone())),
                    false => continue,
                }
            };
            let template = ValueTemplate::parse(value).map_err(Spoiled::Value)?;
            absent.extend(template.absent().map(str::to_owned));
            operations.push((header, template));
        }
        Ok(operations)
    };
    Ok(OperationLists {
        set: valued(&written.set)?,
        add: valued(&written.add)?,
        remove: remove.filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(text: &str) -> Headers {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_host_is_no_header() {
        let lists = Lists::new(Some(&headers(
            r#"{"request": {"set": {"Host": "a", "x": "%REQ(b)%"}, "add": {":authority": "b"}, "remove": [":path", "y"]}}"#,
        )))
        .unwrap_or_default();
        assert_eq!(lists.authority.as_deref(), Some("a"));
        assert_eq!((lists.request.set.len(), lists.request.add.len(), lists.request.remove.len()), (1, 0, 1));
    }

    #[test]
    fn bad_names_and_values_spoil() {
        let spoiled = |text| Lists::new(Some(&headers(text))).err();
        assert_eq!(spoiled(r#"{"request": {"set": {"x y": "1"}}}"#), Some(Spoiled::RequestName("x y".into())));
        assert!(matches!(spoiled(r#"{"response": {"set": {"x": "%NOPE%"}}}"#), Some(Spoiled::Value(_))));
        assert_eq!(spoiled(r#"{"response": {"set": {"x y": "1"}}}"#), None);
    }
}
