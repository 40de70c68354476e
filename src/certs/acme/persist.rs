//! Which DNS record proves a name for good (draft-ietf-acme-dns-persist)? Written once, by people.

use super::client::Client;
use crate::certs::issue::{FailureKind, IssueError};
use crate::snapshot::issuance::Identifier;

/// A TXT record, for people to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub name: String,
    pub value: String,
}

/// The record of a name for a CA and an account. A wildcard, or `*.` in front, needs the policy that allows both.
pub(super) fn record(identity: &str, account: &str, identifier: &Identifier) -> Option<Record> {
    let Identifier::Dns(name) = identifier else { return None };
    let (base, policy) = match name.strip_prefix("*.") {
        Some(base) => (base, "; policy=wildcard"),
        None => (name.as_str(), ""),
    };
    Some(Record {
        name: format!("_validation-persist.{base}"),
        value: format!("{identity}; accounturi={account}{policy}"),
    })
}

/// The record as the CA's directory says it names itself.
///
/// # Errors
///
/// The CA does not say under which name it stands in DNS, or the identifier is an address.
pub(super) fn for_account(client: &Client, account: &str, identifier: &Identifier) -> Result<Record, IssueError> {
    let refused = |message| IssueError { kind: FailureKind::Refused, message, retry_after: None };
    let heard = client.heard();
    let identity = heard.identities.first().ok_or_else(|| {
        refused(format!("{} does not say by which name it stands in DNS (caaIdentities)", client.host()))
    })?;
    record(identity, account, identifier).ok_or_else(|| refused(format!("{} is no DNS name", super::shown(identifier))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_names_the_ca_the_account_and_the_policy() {
        let table = [
            ("web.example.com", "_validation-persist.web.example.com", "ca.example; accounturi=https://ca.example/1"),
            (
                "*.example.com",
                "_validation-persist.example.com",
                "ca.example; accounturi=https://ca.example/1; policy=wildcard",
            ),
        ];
        for (host, name, value) in table {
            let made = record("ca.example", "https://ca.example/1", &Identifier::Dns(host.into()));
            assert_eq!(made, Some(Record { name: name.into(), value: value.into() }));
        }
        assert_eq!(record("ca.example", "x", &Identifier::Ip("192.0.2.1".parse().unwrap())), None);
    }
}
