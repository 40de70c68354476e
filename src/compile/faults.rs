//! What does fault injection become? (Istio VirtualService.http.fault.)

use http::StatusCode;

use crate::base::grpc;
use crate::resource::networking::{FaultAbort, FaultDelay, HttpFaultInjection};
use crate::snapshot::fault::{Abort, FaultPolicy};
use crate::snapshot::share::Share;

/// The policy, or `None` if it does nothing. Fails with a sentence if the status cannot be sent.
pub(super) fn policy(written: &HttpFaultInjection) -> Result<Option<Box<FaultPolicy>>, String> {
    let delay = written.delay.as_ref().and_then(|delay| Some((share_of_delays(delay), delay.fixed_delay?.0)));
    let abort = match &written.abort {
        Some(abort) => abort_of(abort)?.map(|kind| (share_of_aborts(abort), kind)),
        None => None,
    };
    Ok((delay.is_some() || abort.is_some()).then(|| Box::new(FaultPolicy { delay, abort })))
}

/// Without a percentage the deprecated whole one counts.
fn share_of_delays(delay: &FaultDelay) -> Share {
    Share::from_percent(delay.percentage.map_or(f64::from(delay.percent), |percentage| percentage.value))
}

/// Without a percentage nothing is aborted.
fn share_of_aborts(abort: &FaultAbort) -> Share {
    Share::from_percent(abort.percentage.map_or(0.0, |percentage| percentage.value))
}

fn abort_of(abort: &FaultAbort) -> Result<Option<Abort>, String> {
    if let Some(status) = abort.http_status {
        let code = u16::try_from(status).ok().filter(|status| (200..600).contains(status));
        let code = code.and_then(|status| StatusCode::from_u16(status).ok());
        return code.map(|code| Some(Abort::Http(code))).ok_or(format!("no request can be aborted with {status}"));
    }
    let Some(name) = &abort.grpc_status else { return Ok(None) };
    grpc::status_number(name).map(|number| Some(Abort::Grpc(number))).ok_or(format!("`{name}` is no status of gRPC"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_as_istio_reads_them() {
        let made = |text: &str| policy(&serde_json::from_str(text).unwrap());
        let abort = |text: &str| made(text).map(|policy| policy.and_then(|policy| policy.abort));
        assert!(made(r#"{"delay": {"exponentialDelay": "1s"}, "abort": {}}"#).unwrap().is_none());
        let old = made(r#"{"delay": {"fixedDelay": "2s", "percent": 7}}"#).unwrap().unwrap().delay.unwrap();
        assert_eq!((old.0.percent(), old.1.as_secs()), (7.0, 2));
        let new = made(r#"{"delay": {"fixedDelay": "2s", "percent": 7, "percentage": {}}}"#).unwrap().unwrap();
        assert_eq!(new.delay.unwrap().0.percent(), 0.0);
        let none = Share::from_percent(0.0);
        assert_eq!(abort(r#"{"abort": {"grpcStatus": "UNAVAILABLE"}}"#), Ok(Some((none, Abort::Grpc(14)))));
        assert_eq!(
            abort(r#"{"abort": {"httpStatus": 418, "percentage": {"value": 0.5}}}"#),
            Ok(Some((Share::from_percent(0.5), Abort::Http(StatusCode::IM_A_TEAPOT))))
        );
        assert!(made(r#"{"abort": {"httpStatus": 600}}"#).is_err());
    }
}
