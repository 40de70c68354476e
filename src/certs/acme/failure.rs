//! What does a CA's refusal mean? From its problem document to a sentence and a kind.

use instant_acme::{Error, Problem};

use super::client::{Client, Heard, Trouble};
use super::quote::quoted;
use crate::certs::issue::{FailureKind, IssueError};

/// Before every type of problem that ACME defines (RFC 8555 section 6.7).
const PREFIX: &str = "urn:ietf:params:acme:error:";
/// No more of its subproblems is shown.
const MOST: usize = 10;

/// What went wrong while something was `done`, such as `the order`.
pub(super) fn explain(client: &Client, done: &str, error: Error) -> IssueError {
    let heard = client.heard();
    let host = client.host();
    let (kind, message) = match error {
        Error::Api(problem) => {
            let kind = kind_of(&problem, &heard);
            (kind, format!("{host} refused {done}: {}{}", sentence(&problem), hint(&problem)))
        }
        Error::Other(error) => match error.downcast_ref::<Trouble>() {
            Some(trouble) => (kind_of_trouble(trouble), format!("{host} {trouble}")),
            None => (FailureKind::Broken, format!("{host}: {done} failed: {}", quoted(&error.to_string()))),
        },
        Error::Timeout(_) => (FailureKind::Broken, format!("{host} did not finish {done} in time")),
        Error::Crypto | Error::KeyRejected => {
            (FailureKind::Local, format!("the key of the account at {host} cannot be used"))
        }
        Error::Unsupported(what) => (FailureKind::Refused, format!("{host} does not offer {what}")),
        other => {
            (FailureKind::Broken, format!("{host} gave an answer that is no ACME: {}", quoted(&other.to_string())))
        }
    };
    IssueError { kind, message, retry_after: heard.retry_after }
}

/// The last part of a problem's type, such as `rateLimited`; empty if it is none of ACME's.
pub(super) fn type_of(problem: &Problem) -> &str {
    problem.r#type.as_deref().and_then(|kind| kind.strip_prefix(PREFIX)).unwrap_or_default()
}

/// The CA's own words: detail, type, and what it says to single identifiers.
pub(super) fn sentence(problem: &Problem) -> String {
    let mut text = words(problem.detail.as_deref(), problem.r#type.as_deref());
    for sub in problem.subproblems.iter().take(MOST) {
        let about = sub.identifier.as_ref().map(|identifier| quoted(&identifier.authorized(false).to_string()));
        text.push_str("; ");
        if let Some(about) = about {
            text.push_str(&about);
            text.push_str(": ");
        }
        text.push_str(&words(sub.detail.as_deref(), sub.r#type.as_deref()));
    }
    if let Some(more) = problem.subproblems.len().checked_sub(MOST).filter(|more| *more > 0) {
        text.push_str(&format!("; and {more} more"));
    }
    text
}

fn words(detail: Option<&str>, kind: Option<&str>) -> String {
    let kind = kind.map(|kind| quoted(kind.strip_prefix(PREFIX).unwrap_or(kind)));
    match (detail.map(quoted).filter(|detail| !detail.is_empty()), kind) {
        (Some(detail), Some(kind)) => format!("{detail} ({kind})"),
        (Some(words), None) | (None, Some(words)) => words,
        (None, None) => "without a reason".to_owned(),
    }
}

fn hint(problem: &Problem) -> &'static str {
    match type_of(problem) {
        "externalAccountRequired" => {
            "; give the issuer an external account (key id and HMAC key), which the CA hands out with its subscription"
        }
        "userActionRequired" => "; the CA wants its new terms to be agreed to",
        "invalidContact" | "unsupportedContact" => "; look at the issuer's email",
        "caa" => "; a CAA record of the domain names other CAs only",
        _ => "",
    }
}

fn kind_of(problem: &Problem, heard: &Heard) -> FailureKind {
    match type_of(problem) {
        "rateLimited" => FailureKind::RateLimited,
        _ if heard.status == 429 => FailureKind::RateLimited,
        "connection" | "dns" | "incorrectResponse" | "tls" | "unauthorized" => FailureKind::Unproven,
        "badNonce" | "serverInternal" | "orderNotReady" => FailureKind::Broken,
        _ if heard.status >= 500 => FailureKind::Broken,
        _ => FailureKind::Refused,
    }
}

fn kind_of_trouble(trouble: &Trouble) -> FailureKind {
    match trouble {
        Trouble::Unreachable(_) => FailureKind::Unreachable,
        Trouble::Status { status: 429, .. } => FailureKind::RateLimited,
        Trouble::Status { status: 401 | 403, .. } => FailureKind::Refused,
        Trouble::Status { .. } | Trouble::Nonsense(_) => FailureKind::Broken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_become_a_sentence_and_a_kind() {
        let table = [
            (
                429,
                r#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many"}"#,
                FailureKind::RateLimited,
                "too many (rateLimited)",
            ),
            (429, r#"{"detail":"slow\n down"}"#, FailureKind::RateLimited, "slow down"),
            (403, r#"{"type":"urn:ietf:params:acme:error:unauthorized"}"#, FailureKind::Unproven, "unauthorized"),
            (500, r#"{"type":"about:blank"}"#, FailureKind::Broken, "about:blank"),
            (400, "{}", FailureKind::Refused, "without a reason"),
            (
                400,
                r#"{"type":"urn:ietf:params:acme:error:malformed","detail":"Some were rejected","subproblems":[
                    {"type":"urn:ietf:params:acme:error:rejectedIdentifier","detail":"no","identifier":{"type":"dns","value":"a.example"}}]}"#,
                FailureKind::Refused,
                "Some were rejected (malformed); a.example: no (rejectedIdentifier)",
            ),
        ];
        for (status, text, kind, words) in table {
            let problem: Problem = serde_json::from_str(text).unwrap();
            let heard = Heard { status, ..Heard::default() };
            assert_eq!((kind_of(&problem, &heard), sentence(&problem).as_str()), (kind, words), "{text}");
        }
    }
}
