//! What does CORS say to a request: an answer to its preflight, headers for its answer, or nothing? (Envoy's CORS filter.)

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName, HeaderValue, ORIGIN,
};

use super::matcher::ValueMatch;
use super::route::RequestFacts;

/// Istio CorsPolicy of one rule.
#[derive(Debug)]
pub(crate) struct CorsPolicy {
    /// Never empty: without origins a policy has no effect.
    pub origins: Vec<ValueMatch>,
    pub methods: Offer,
    pub headers: Offer,
    pub expose: Option<HeaderValue>,
    /// Seconds.
    pub max_age: Option<HeaderValue>,
    pub credentials: bool,
    /// unmatchedPreflights IGNORE: a preflight from a foreign origin is answered too, without the origin and the
    /// exposed headers.
    pub answers_unmatched: bool,
}

/// What a preflight is told of methods, or of headers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// Nothing was configured.
    Nothing,
    /// Just `*`: what was asked for.
    Asked,
    /// The list, joined with `,`.
    Listed(HeaderValue),
}

/// What becomes of a request under a policy.
#[derive(Debug)]
pub(crate) enum CorsVerdict<'a> {
    /// It is no CORS request, or its origin is not allowed: it goes on, and its answer stays as it is.
    Nothing,
    /// It is a preflight: 200 with these headers, and nothing reaches the destination.
    Answer(HeaderMap),
    /// It goes on, and its answer says that the origin may read it.
    Permit(Permit<'a>),
}

/// An origin that may read the answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Permit<'a> {
    policy: &'a CorsPolicy,
    origin: &'a HeaderValue,
}

impl CorsPolicy {
    /// Judges a request. An empty Origin counts as none.
    pub(crate) fn judge<'a>(&'a self, facts: &RequestFacts<'a>) -> CorsVerdict<'a> {
        let said = |name: HeaderName| facts.headers.get(name).filter(|value| !value.is_empty());
        let Some(origin) = said(ORIGIN) else { return CorsVerdict::Nothing };
        let method = said(ACCESS_CONTROL_REQUEST_METHOD).filter(|_| facts.method == "OPTIONS");
        let permit = self.allows(origin).then_some(Permit { policy: self, origin });
        match (method, permit) {
            (Some(method), Some(_)) => CorsVerdict::Answer(self.answer(method, facts.headers, permit)),
            (Some(method), None) if self.answers_unmatched => {
                CorsVerdict::Answer(self.answer(method, facts.headers, None))
            }
            (_, Some(permit)) => CorsVerdict::Permit(permit),
            (_, None) => CorsVerdict::Nothing,
        }
    }

    /// A condition that holds for `*` means every origin.
    fn allows(&self, origin: &HeaderValue) -> bool {
        self.origins.iter().any(|allowed| allowed.holds(b"*") || allowed.holds(origin.as_bytes()))
    }

    fn answer(&self, method: &HeaderValue, asked: &HeaderMap, permit: Option<Permit<'_>>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        match permit {
            Some(permit) => permit.apply(&mut headers),
            None => self.tell_credentials(&mut headers),
        }
        let nothing = HeaderValue::from_static("");
        let mut tell = |name: HeaderName, offer: &Offer, asked: &HeaderValue| match offer {
            Offer::Nothing => {}
            Offer::Asked => drop(headers.insert(name, asked.clone())),
            Offer::Listed(list) => drop(headers.insert(name, list.clone())),
        };
        tell(ACCESS_CONTROL_ALLOW_METHODS, &self.methods, method);
        let wanted = asked.get(ACCESS_CONTROL_REQUEST_HEADERS).unwrap_or(&nothing);
        tell(ACCESS_CONTROL_ALLOW_HEADERS, &self.headers, wanted);
        if let Some(age) = &self.max_age {
            headers.insert(ACCESS_CONTROL_MAX_AGE, age.clone());
        }
        headers
    }

    fn tell_credentials(&self, headers: &mut HeaderMap) {
        if self.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }
}

impl Permit<'_> {
    /// Says it in the headers of an answer, in place of what they said themselves.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, self.origin.clone());
        self.policy.tell_credentials(headers);
        if let Some(list) = &self.policy.expose {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, list.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(policy: &CorsPolicy, method: &str, lines: &[(&'static str, &'static str)]) -> String {
        let headers: HeaderMap = lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let facts = RequestFacts {
            method,
            scheme: "http",
            authority: "a",
            path: "/",
            query: None,
            headers: &headers,
            claims: None,
        };
        let shown = |headers: &HeaderMap| {
            let mut lines: Vec<_> = headers
                .iter()
                .map(|(name, value)| {
                    format!("{}={}", name.as_str().trim_start_matches("access-control-"), value.to_str().unwrap())
                })
                .collect();
            lines.sort();
            lines.join(" ")
        };
        match policy.judge(&facts) {
            CorsVerdict::Nothing => "nothing".to_owned(),
            CorsVerdict::Answer(headers) => format!("answer {}", shown(&headers)),
            CorsVerdict::Permit(permit) => {
                let mut headers = HeaderMap::from_iter([(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"))]);
                permit.apply(&mut headers);
                format!("permit {}", shown(&headers))
            }
        }
    }

    #[test]
    fn preflights_are_answered_and_others_permitted() {
        let policy = |answers_unmatched| CorsPolicy {
            origins: vec![ValueMatch::Exact("https://good".into())],
            methods: Offer::Asked,
            headers: Offer::Listed(HeaderValue::from_static("x-a,x-b")),
            expose: Some(HeaderValue::from_static("x-s")),
            max_age: Some(HeaderValue::from_static("60")),
            credentials: true,
            answers_unmatched,
        };
        const GOOD: (&str, &str) = ("origin", "https://good");
        const BAD: (&str, &str) = ("origin", "https://bad");
        const ASKS: (&str, &str) = ("access-control-request-method", "PUT");
        let permit = "permit allow-credentials=true allow-origin=https://good expose-headers=x-s";
        for (method, lines, unmatched, expected) in [
            (
                "OPTIONS",
                &[GOOD, ASKS][..],
                false,
                "answer allow-credentials=true allow-headers=x-a,x-b allow-methods=PUT allow-origin=https://good expose-headers=x-s max-age=60",
            ),
            (
                "OPTIONS",
                &[BAD, ASKS],
                true,
                "answer allow-credentials=true allow-headers=x-a,x-b allow-methods=PUT max-age=60",
            ),
            ("OPTIONS", &[BAD, ASKS], false, "nothing"),
            ("OPTIONS", &[ASKS], true, "nothing"),
            ("OPTIONS", &[GOOD], false, permit),
            ("OPTIONS", &[GOOD, ("access-control-request-method", "")], true, permit),
            ("GET", &[GOOD, ASKS], false, permit),
            ("GET", &[BAD, ASKS], true, "nothing"),
            ("GET", &[("origin", "")], false, "nothing"),
        ] {
            assert_eq!(judged(&policy(unmatched), method, lines), expected, "{method} {lines:?}");
        }
        let every = CorsPolicy {
            origins: vec![ValueMatch::Exact("*".into())],
            headers: Offer::Asked,
            credentials: false,
            expose: None,
            ..policy(false)
        };
        assert_eq!(judged(&every, "GET", &[BAD]), "permit allow-origin=https://bad");
        let asked = "answer allow-headers= allow-methods=PUT allow-origin=https://bad max-age=60";
        assert_eq!(judged(&every, "OPTIONS", &[BAD, ASKS]), asked);
    }
}
