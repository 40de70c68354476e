//! When does the CA want a certificate to be renewed (RFC 9773)?

use std::time::Duration;

use instant_acme::{CertificateIdentifier, Error, RenewalInfo};
use rustls::pki_types::CertificateDer;

use super::client::Client;
use super::quote::quoted;
use super::{account, failure};
use crate::certs::issue::{FailureKind, IssueError, RenewalWindow};

/// Asked again neither earlier nor later (RFC 9773 section 4.3.2).
const SOONEST: Duration = Duration::from_secs(60);
const LATEST: Duration = Duration::from_secs(24 * 3600);
/// A page's address is kept up to this length.
const LONGEST: usize = 2000;

/// What the CA says of this certificate (DER); `None` if it does not know such questions, or the certificate has no
/// name to ask by.
pub(super) async fn ask(client: &Client, certificate: &[u8]) -> Result<Option<RenewalWindow>, IssueError> {
    let certificate = CertificateDer::from(certificate);
    let Ok(name) = CertificateIdentifier::try_from(&certificate) else { return Ok(None) };
    match account::nobody(client).await?.renewal_info(&name).await {
        Ok((info, again)) => window(&info, again).map(Some).ok_or_else(|| IssueError {
            kind: FailureKind::Broken,
            message: format!("{} gave a time for renewal that ends before it begins", client.host()),
            retry_after: None,
        }),
        Err(Error::Unsupported(_)) => Ok(None),
        Err(error) => Err(failure::explain(client, "the time for renewal", error)),
    }
}

fn window(info: &RenewalInfo, again: Duration) -> Option<RenewalWindow> {
    let (start, end) = (info.suggested_window.start.unix_timestamp(), info.suggested_window.end.unix_timestamp());
    let page = info.explanation_url.as_deref();
    let page =
        page.filter(|page| page.len() <= LONGEST && (page.starts_with("https://") || page.starts_with("http://")));
    (start <= end).then(|| RenewalWindow {
        start,
        end,
        ask_again: again.clamp(SOONEST, LATEST),
        explanation: page.map(quoted),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_read_and_clamped() {
        let info = |start: &str, end: &str, page: &str| -> RenewalInfo {
            let text = serde_json::json!({"suggestedWindow": {"start": start, "end": end}, "explanationURL": page});
            serde_json::from_value(text).unwrap()
        };
        let good = info("2025-01-02T04:00:00Z", "2025-01-03T04:00:00+00:00", "https://ca.example/why");
        let read = window(&good, Duration::ZERO).unwrap();
        assert_eq!((read.start, read.end, read.ask_again), (1_735_790_400, 1_735_876_800, SOONEST));
        assert_eq!(read.explanation.as_deref(), Some("https://ca.example/why"));
        assert_eq!(window(&good, Duration::from_secs(u64::MAX)).unwrap().ask_again, LATEST);
        let odd = info("2025-01-02T04:00:00Z", "2025-01-02T04:00:00Z", "javascript:alert(1)");
        assert_eq!(window(&odd, LATEST).unwrap().explanation, None);
        assert_eq!(window(&info("2025-01-03T04:00:00Z", "2025-01-02T04:00:00Z", ""), LATEST), None);
    }
}
