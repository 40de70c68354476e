//! What does a CORS policy become? (Istio VirtualService.http.corsPolicy.)

use http::HeaderValue;

use super::matches;
use super::memory::Memory;
use crate::resource::networking::{CorsPolicy as Written, UnmatchedPreflights};
use crate::snapshot::cors::{CorsPolicy, Offer};
use crate::snapshot::matcher::ValueMatch;

/// The policy, or `None` if it names no origin and so has no effect. Fails with a sentence if a pattern or a list
/// cannot be used.
pub(super) fn policy(memory: &mut Memory, written: &Written) -> Result<Option<Box<CorsPolicy>>, String> {
    let origins = match written.allow_origins.as_slice() {
        [] => written.allow_origin.iter().map(|origin| Ok(ValueMatch::Exact(origin.as_str().into()))).collect(),
        origins => origins.iter().map(|origin| matches::value(memory, Some(origin))).collect::<Result<Vec<_>, _>>(),
    }?;
    if origins.is_empty() {
        return Ok(None);
    }
    Ok(Some(Box::new(CorsPolicy {
        origins,
        methods: offer(&written.allow_methods, "allowMethods")?,
        headers: offer(&written.allow_headers, "allowHeaders")?,
        expose: list(&written.expose_headers, "exposeHeaders")?,
        max_age: written.max_age.map(|age| HeaderValue::from(age.0.as_secs())),
        credentials: written.allow_credentials == Some(true),
        answers_unmatched: written.unmatched_preflights == UnmatchedPreflights::Ignore,
    })))
}

fn offer(words: &[String], field: &str) -> Result<Offer, String> {
    Ok(match list(words, field)? {
        None => Offer::Nothing,
        Some(all) if all == "*" => Offer::Asked,
        Some(list) => Offer::Listed(list),
    })
}

fn list(words: &[String], field: &str) -> Result<Option<HeaderValue>, String> {
    let joined = words.join(",");
    let value = HeaderValue::from_str(&joined).map_err(|_| format!("{field} {joined:?} can be no header value"))?;
    Ok((!value.is_empty()).then_some(value))
}
