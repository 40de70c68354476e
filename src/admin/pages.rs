//! Which page answers which request?

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::Facts;
use super::answer::Answer;
use super::{explain, guard, index};
use crate::control::lifecycle::Stage;
use crate::control::status::Cause;
use crate::snapshot::{Snapshot, dump};

/// What the admin port can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    Index,
    Status,
    ConfigDump,
    Routes,
    Certificates,
    Metrics,
    Ready,
    ShowLogging,
    SetLogging,
    Reload,
    Explain,
    Drain,
    Quit,
}

/// The page for a request, or the answer that says why there is none.
fn choose(method: &Method, path: &str) -> Result<Page, Answer> {
    let reads = method == Method::GET || method == Method::HEAD;
    let reading = |page| if reads { Ok(page) } else { Err(Answer::wrong_method("GET")) };
    let posting = |page| if method == Method::POST { Ok(page) } else { Err(Answer::wrong_method("POST")) };
    match path {
        "/" => reading(Page::Index),
        "/status" => reading(Page::Status),
        "/config_dump" => reading(Page::ConfigDump),
        "/routes" => reading(Page::Routes),
        "/certs" => reading(Page::Certificates),
        "/stats/prometheus" | "/metrics" => reading(Page::Metrics),
        "/ready" | "/healthz/ready" => reading(Page::Ready),
        "/logging" if method == Method::POST => Ok(Page::SetLogging),
        "/logging" => reads.then_some(Page::ShowLogging).ok_or_else(|| Answer::wrong_method("GET, POST")),
        "/reload" => posting(Page::Reload),
        "/explain" => posting(Page::Explain),
        "/drain" => posting(Page::Drain),
        "/quitquitquit" => posting(Page::Quit),
        _ => Err(Answer::not_found()),
    }
}

/// The admin port: everything.
pub(super) async fn admin(facts: Arc<Facts>, head: Parts, body: Bytes) -> Answer {
    if let Err(refusal) = guard::judge(&head.headers) {
        return Answer::text(StatusCode::FORBIDDEN, refusal.to_string());
    }
    let query = head.uri.query().unwrap_or_default();
    let page = match choose(&head.method, head.uri.path()) {
        Ok(page) => page,
        Err(answer) => return answer,
    };
    match page {
        Page::Index => Answer::html(index::page(&facts.reloader.status(), facts.lifecycle.stage())),
        Page::Status => status(&facts),
        Page::ConfigDump => shown(&facts, dump::dump).await,
        Page::Routes => shown(&facts, dump::routes).await,
        Page::Certificates => certificates(&facts).await,
        Page::Metrics => Answer::metrics(facts.telemetry.metrics.render()),
        Page::Ready => readiness(&facts),
        Page::ShowLogging => Answer::text(StatusCode::OK, facts.log_level.shown()),
        Page::SetLogging => set_logging(&facts, query),
        Page::Reload => reload(&facts, parameter(query, "wait").is_some()).await,
        Page::Explain => explain::answer(facts, &body, parameter(query, "format").as_deref() == Some("text")).await,
        Page::Drain => drain(&facts),
        Page::Quit => {
            tracing::warn!("stopping at once, as asked on the admin port");
            facts.lifecycle.advance(Stage::Stopped);
            Answer::text(StatusCode::OK, "stopping")
        }
    }
}

/// The port for load balancers: readiness alone.
pub(super) async fn ready(facts: Arc<Facts>, head: Parts) -> Answer {
    match choose(&head.method, head.uri.path()) {
        Ok(Page::Ready) if head.uri.path() == "/healthz/ready" => readiness(&facts),
        Err(answer) if answer.status == StatusCode::METHOD_NOT_ALLOWED && head.uri.path() == "/healthz/ready" => answer,
        _ => Answer::not_found(),
    }
}

/// The port for Prometheus: metrics, and readiness as Istio's agent has it.
pub(super) async fn metrics(facts: Arc<Facts>, head: Parts) -> Answer {
    let served = matches!(head.uri.path(), "/stats/prometheus" | "/metrics" | "/healthz/ready");
    match choose(&head.method, head.uri.path()) {
        Ok(Page::Metrics) if served => Answer::metrics(facts.telemetry.metrics.render()),
        Ok(Page::Ready) if served => readiness(&facts),
        Err(answer) if served => answer,
        _ => Answer::not_found(),
    }
}

/// 200 or 503 with an empty body, as Istio's agent answers.
fn readiness(facts: &Facts) -> Answer {
    Answer::empty(if facts.lifecycle.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE })
}

fn status(facts: &Facts) -> Answer {
    match serde_json::to_value(&*facts.reloader.status()) {
        Ok(mut status) => {
            if let Value::Object(fields) = &mut status {
                fields.insert("stage".into(), json!(facts.lifecycle.stage()));
            }
            Answer::json(StatusCode::OK, &status)
        }
        Err(error) => Answer::text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot be shown: {error}")),
    }
}

/// The certificates that listeners show, and those that are kept in date.
async fn certificates(facts: &Facts) -> Answer {
    let (snapshot, kept) = (facts.store.load(), facts.certificates.status());
    let shown = tokio::task::spawn_blocking(move || {
        let mut page = json!({ "served": dump::certificates(&snapshot), "kept": kept.certificates() });
        if let (Value::Object(fields), Some(problem)) = (&mut page, &kept.problem) {
            fields.insert("problem".into(), json!(problem));
        }
        Answer::json(StatusCode::OK, &page)
    });
    shown
        .await
        .unwrap_or_else(|error| Answer::text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot be shown: {error}")))
}

/// A view of the snapshot in force; made off this thread, because it may be big.
async fn shown(facts: &Facts, view: fn(&Snapshot) -> Value) -> Answer {
    let snapshot = facts.store.load();
    let shown = tokio::task::spawn_blocking(move || Answer::json(StatusCode::OK, &view(&snapshot))).await;
    shown.unwrap_or_else(|error| Answer::text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot be shown: {error}")))
}

fn set_logging(facts: &Facts, query: &str) -> Answer {
    let Some(level) = parameter(query, "level").filter(|level| !level.is_empty()) else {
        return Answer::text(StatusCode::BAD_REQUEST, "say which: /logging?level=debug");
    };
    match facts.log_level.set(&level) {
        Ok(()) => {
            tracing::warn!(level, "log level set on the admin port");
            Answer::text(StatusCode::OK, facts.log_level.shown())
        }
        Err(error) => Answer::text(StatusCode::BAD_REQUEST, error),
    }
}

async fn reload(facts: &Facts, wait: bool) -> Answer {
    if !wait {
        facts.reloader.request(Cause::Admin);
        return Answer::json(StatusCode::ACCEPTED, &json!({ "verdict": "requested" }));
    }
    match facts.reloader.reload(Cause::Admin).await {
        Some(outcome) => Answer::json(StatusCode::OK, &*outcome),
        None => Answer::text(StatusCode::SERVICE_UNAVAILABLE, "the gateway is stopping"),
    }
}

fn drain(facts: &Facts) -> Answer {
    if facts.lifecycle.advance(Stage::Draining) {
        tracing::info!("draining, as asked on the admin port: readiness fails, connections are told to go");
    }
    Answer::json(StatusCode::OK, &json!({ "stage": facts.lifecycle.stage() }))
}

/// The value of a query parameter, without percent-encoding; empty if it has none.
fn parameter(query: &str, name: &str) -> Option<String> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let value = pairs.into_iter().find(|(key, _)| *key == name)?.1;
    Some(percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn pages_have_their_method() {
        for (method, path, expected) in [
            ("GET", "/", Ok(Page::Index)),
            ("HEAD", "/status", Ok(Page::Status)),
            ("POST", "/status", Err(405)),
            ("GET", "/reload", Err(405)),
            ("POST", "/reload", Ok(Page::Reload)),
            ("GET", "/explain", Err(405)),
            ("GET", "/logging", Ok(Page::ShowLogging)),
            ("POST", "/logging", Ok(Page::SetLogging)),
            ("DELETE", "/logging", Err(405)),
            ("POST", "/quitquitquit", Ok(Page::Quit)),
            ("GET", "/../etc/passwd", Err(404)),
            ("GET", "*", Err(404)),
        ] {
            let chosen = choose(&method.parse().unwrap(), path).map_err(|answer| answer.status.as_u16());
            assert_eq!(chosen, expected, "{method} {path}");
        }
    }

    #[test]
    fn parameters_are_found_and_decoded() {
        for (query, expected) in [
            ("wait", Some("")),
            ("a=1&wait", Some("")),
            ("wait=a%3Db", Some("a=b")),
            ("wait=%ff%", Some("\u{fffd}%")),
            ("waits=1", None),
            ("", None),
        ] {
            assert_eq!(parameter(query, "wait").as_deref(), expected, "{query}");
        }
    }
}
