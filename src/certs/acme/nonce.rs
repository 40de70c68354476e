//! What if a CA takes no nonce? The library tries thrice; some CAs, and tests, refuse more often.

use instant_acme::Error;

use super::failure;

/// Each try of ours is three of the library's.
pub(super) const TRIES: usize = 4;

pub(super) fn is_refused(error: &Error) -> bool {
    matches!(error, Error::Api(problem) if failure::type_of(problem) == "badNonce")
}

/// The result of a request, done again as long as its nonce is refused (RFC 8555 section 6.5). A macro, because a
/// function that took the request as a closure could not be sent between threads.
macro_rules! patiently {
    ($request:expr) => {{
        let mut tries = $crate::certs::acme::nonce::TRIES;
        loop {
            tries -= 1;
            match $request.await {
                Err(error) if tries > 0 && $crate::certs::acme::nonce::is_refused(&error) => {}
                answer => break answer,
            }
        }
    }};
}

pub(super) use patiently;
