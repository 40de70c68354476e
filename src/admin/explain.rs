//! What would the running gateway make of a request, and what did it make of one that it served?

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use chrono::{DateTime, SecondsFormat, Utc};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::Facts;
use super::answer::Answer;
use crate::explain::{self, Explanation, Query, Recorded};
use crate::telemetry::recent::Found;

/// The body of `POST /explain`: a request, or the id of one that was served.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Asked {
    request_id: Option<String>,
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    from: Option<IpAddr>,
    sni: Option<String>,
    /// What a token that was verified says.
    claims: Option<serde_json::Value>,
}

/// The answer to a request id.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Retold {
    then: Then,
    /// What the configuration in force makes of the same request; `None` if too little of it is known.
    now: Option<Explanation>,
}

/// How the request ended.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Then {
    start: String,
    duration_ms: f64,
    generation: u64,
    status: u16,
    flags: String,
    details: String,
    rule: String,
    cluster: String,
    endpoint: Option<String>,
}

/// Explains what `body` asks, in JSON or as text. Made off this thread: a host may have many rules.
pub(super) async fn answer(facts: Arc<Facts>, body: &[u8], as_text: bool) -> Answer {
    let asked = match serde_json::from_slice::<Asked>(body) {
        Ok(asked) => asked,
        Err(error) => return Answer::text(StatusCode::BAD_REQUEST, format!("the question is not readable: {error}")),
    };
    let explaining = tokio::task::spawn_blocking(move || match &asked.request_id {
        Some(id) => retell(&facts, id, as_text),
        None => explain(&facts, asked, as_text),
    });
    explaining.await.unwrap_or_else(|error| {
        Answer::text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot be explained: {error}"))
    })
}

fn explain(facts: &Facts, asked: Asked, as_text: bool) -> Answer {
    let Asked { method, url, headers, from, sni, claims, .. } = asked;
    match explain::explain(&facts.store.load(), &Query { method, url, headers, from, sni, to: None, claims }) {
        Ok(explanation) if as_text => Answer::text(StatusCode::OK, explanation.to_string().trim_end()),
        Ok(explanation) => Answer::json(StatusCode::OK, &explanation),
        Err(why) => Answer::text(StatusCode::BAD_REQUEST, why),
    }
}

fn retell(facts: &Facts, id: &str, as_text: bool) -> Answer {
    let recent = &facts.telemetry.recent;
    if !recent.is_on() {
        return Answer::text(StatusCode::NOT_FOUND, "no requests are kept; `[admin] recent_requests` turns it on");
    }
    let Some(found) = recent.find(id) else {
        return Answer::text(StatusCode::NOT_FOUND, "no request that ended lately has this id");
    };
    let now = recorded(&found).map(|recorded| explain::explain_again(&facts.store.load(), &recorded));
    let retold = Retold { then: Then::new(&found), now };
    match as_text {
        true => Answer::text(StatusCode::OK, retold.text().trim_end()),
        false => Answer::json(StatusCode::OK, &retold),
    }
}

fn recorded(found: &Found) -> Option<Recorded> {
    let asked = found.asked.clone()?;
    Some(Recorded {
        method: asked.method,
        scheme: asked.scheme,
        authority: asked.authority,
        target: asked.path,
        listener: found.facts.listener,
        is_tls: found.facts.is_tls,
        sni: asked.server_name,
        headers: asked.headers,
        from: found.facts.from,
    })
}

impl Then {
    fn new(found: &Found) -> Self {
        Then {
            start: time(found.facts.start),
            duration_ms: found.facts.duration.as_secs_f64() * 1000.0,
            generation: found.facts.generation,
            status: found.facts.status,
            flags: found.facts.flags.to_string(),
            details: found.details.clone(),
            rule: found.rule.clone(),
            cluster: found.cluster.clone(),
            endpoint: found.facts.endpoint.map(|endpoint| endpoint.to_string()),
        }
    }
}

impl Retold {
    fn text(&self) -> String {
        let Then { start, duration_ms, generation, status, flags, details, rule, cluster, endpoint } = &self.then;
        let or_none = |text: &str| if text.is_empty() { "none".to_owned() } else { text.to_owned() };
        let now = match &self.now {
            Some(now) if now.generation == *generation => format!("now (the same configuration)\n{now}"),
            Some(now) => format!("now (generation {})\n{now}", now.generation),
            None => "now           the request was too long to be kept; it cannot be asked again\n".to_owned(),
        };
        format!(
            "then          {start}, {duration_ms:.1} ms, generation {generation}\n\
             status        {status} {flags} {details}\n\
             rule          {}\n\
             cluster       {}\n\
             endpoint      {}\n\
             {now}",
            or_none(rule),
            or_none(cluster),
            endpoint.as_deref().unwrap_or("none"),
        )
    }
}

fn time(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Millis, true)
}
