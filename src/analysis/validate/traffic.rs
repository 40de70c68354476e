//! Do retries, faults, CORS policies and mirrors keep the rules? (Istio ValidateHTTPRoute and its parts)

use super::faults::{At, Faults};
use super::http_route::{EmptyPrefix, check_string_match};
use super::names::check_duration;
use super::virtual_service::check_destination;
use crate::base::grpc;
use crate::resource::networking::{
    CorsPolicy, FaultAbort, FaultDelay, HttpFaultInjection, HttpRetry, HttpRoute, Percent,
};

const RETRY_WORDS: [&str; 16] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "envoy-ratelimited",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

pub(super) fn check_retries(retries: &HttpRetry, at: At<'_>, faults: &mut Faults) {
    faults.require(retries.attempts >= 0, at.field("attempts"), "attempts cannot be negative");
    let more = retries.per_try_timeout.is_some()
        || !retries.retry_on.is_empty()
        || retries.retry_remote_localities.is_some()
        || retries.retry_ignore_previous_hosts.is_some();
    faults.require(retries.attempts != 0 || !more, at, "attempts 0 turns retries off; nothing else can be set then");
    if let Some(timeout) = retries.per_try_timeout {
        faults.check(at.field("perTryTimeout"), check_duration(timeout));
    }
    if let Some(backoff) = retries.backoff {
        faults.check(at.field("backoff"), check_duration(backoff));
    }
    if retries.retry_on.is_empty() {
        return;
    }
    for word in retries.retry_on.split(',') {
        let is_status = word.parse::<u16>().is_ok_and(is_known_status);
        if !is_status && !RETRY_WORDS.contains(&word) {
            faults.error(at.field("retryOn"), format!("`{word}` is no reason to retry"));
        }
    }
}

/// The statuses that have a name in Go's net/http; Istio takes no others here.
fn is_known_status(status: u16) -> bool {
    matches!(status, 100..=103 | 200..=208 | 226 | 300..=305 | 307 | 308 | 400..=418 | 421..=426 | 428 | 429 | 431 | 451)
        || matches!(status, 500..=508 | 510 | 511)
}

pub(super) fn check_fault(fault: &HttpFaultInjection, at: At<'_>, faults: &mut Faults) {
    faults.require(fault.delay.is_some() || fault.abort.is_some(), at, "a fault needs delay or abort");
    if let Some(delay) = &fault.delay {
        check_delay(delay, at.field("delay"), faults);
    }
    if let Some(abort) = &fault.abort {
        check_abort(abort, at.field("abort"), faults);
    }
}

fn check_delay(delay: &FaultDelay, at: At<'_>, faults: &mut Faults) {
    faults.require((0..=100).contains(&delay.percent), at.field("percent"), "a percentage is between 0 and 100");
    check_percentage(delay.percentage, at.field("percentage"), faults);
    if delay.exponential_delay.is_some() {
        faults.error(at.field("exponentialDelay"), "exponentialDelay does not exist in Istio");
    }
    match delay.fixed_delay {
        Some(duration) => faults.check(at.field("fixedDelay"), check_duration(duration)),
        None if delay.exponential_delay.is_none() => faults.error(at, "a delay needs fixedDelay"),
        None => {}
    }
}

fn check_abort(abort: &FaultAbort, at: At<'_>, faults: &mut Faults) {
    check_percentage(abort.percentage, at.field("percentage"), faults);
    if abort.http2_error.is_some() {
        faults.error(at.field("http2Error"), "http2Error does not exist in Istio");
    }
    if let Some(status) = abort.http_status {
        faults.require((200..=600).contains(&status), at.field("httpStatus"), "the status is not between 200 and 599");
    }
    if let Some(status) = &abort.grpc_status
        && grpc::status_number(status).is_none()
    {
        faults.error(at.field("grpcStatus"), format!("`{status}` is no status of gRPC"));
    }
    if abort.http_status.is_none() && abort.grpc_status.is_none() && abort.http2_error.is_none() {
        faults.warn(at, "an abort without httpStatus or grpcStatus does nothing");
    }
}

/// 0, or 0.0001 to 100.
fn check_percentage(percentage: Option<Percent>, at: At<'_>, faults: &mut Faults) {
    let Some(Percent { value }) = percentage else { return };
    let good = value == 0.0 || (0.0001..=100.0).contains(&value);
    faults.require(good, at, "a percentage is 0, or between 0.0001 and 100");
}

pub(super) fn check_cors(cors: &CorsPolicy, at: At<'_>, faults: &mut Faults) {
    for (index, origin) in cors.allow_origins.iter().enumerate() {
        let at = at.item("allowOrigins", index);
        let empty = origin.exact.as_deref().or(origin.prefix.as_deref()).or(origin.regex.as_deref()).unwrap_or("");
        faults.require(!empty.is_empty(), at, "an origin cannot be empty");
        if !empty.is_empty() {
            check_string_match(origin, EmptyPrefix::Refused, at, faults);
        }
    }
    let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*"];
    for (index, method) in cors.allow_methods.iter().enumerate() {
        if !methods.contains(&method.as_str()) {
            faults.error(at.item("allowMethods", index), format!("`{method}` is no method"));
        }
    }
    for (field, names) in [("allowHeaders", &cors.allow_headers), ("exposeHeaders", &cors.expose_headers)] {
        for (index, name) in names.iter().enumerate() {
            faults.require(!name.is_empty(), at.item(field, index), "a header needs a name");
        }
    }
    if let Some(age) = cors.max_age {
        faults.check(at.field("maxAge"), check_duration(age));
        faults.require(age.0.subsec_nanos() == 0, at.field("maxAge"), "maxAge is in whole seconds");
    }
}

pub(super) fn check_mirrors(route: &HttpRoute, at: At<'_>, faults: &mut Faults) {
    let both = route.mirror.is_some() && !route.mirrors.is_empty();
    faults.require(!both, at.field("mirrors"), "mirror and mirrors exclude each other");
    if let Some(mirror) = &route.mirror {
        check_destination(mirror, at.field("mirror"), faults);
    }
    if let Some(percent) = route.mirror_percent {
        faults.require(percent <= 100, at.field("mirrorPercent"), "a percentage is between 0 and 100");
        faults.warn(at.field("mirrorPercent"), "mirrorPercent is an old form; write mirrorPercentage");
    }
    check_mirror_percentage(route.mirror_percentage, at.field("mirrorPercentage"), faults);
    for (index, mirror) in route.mirrors.iter().enumerate() {
        let at = at.item("mirrors", index);
        match &mirror.destination {
            None => faults.error(at, "a mirror needs a destination"),
            Some(destination) => check_destination(destination, at.field("destination"), faults),
        }
        check_mirror_percentage(mirror.percentage, at.field("percentage"), faults);
    }
}

fn check_mirror_percentage(percentage: Option<Percent>, at: At<'_>, faults: &mut Faults) {
    let good = percentage.is_none_or(|percent| (0.0..=100.0).contains(&percent.value));
    faults.require(good, at, "a percentage is between 0 and 100");
}
