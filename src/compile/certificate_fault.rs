//! What can be wrong with the certificate and key of a Secret, and what is to be done?

use std::fmt;

use chrono::{DateTime, SecondsFormat};

use crate::snapshot::certificate::Certificate;

/// Why a certificate is not served, or what there is to say about one that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Neither a certificate nor a key is there, or only the keys of the Secret that are named.
    Missing(Vec<&'static str>),
    Empty(Half),
    /// It ends in the middle: somebody is still writing it, or was stopped.
    Cut(Half),
    NotPem(Half),
    /// It is PEM, but no certificate can be read from it.
    NotReadable,
    /// A passphrase protects the key.
    EncryptedKey,
    /// The key belongs to none of the certificates.
    WrongKey,
    /// With the kind in words.
    UnsupportedKey(String),
    /// An RSA key of fewer than 2048 bits.
    WeakKey(usize),
    /// Since when, in seconds since 1970.
    Expired(i64),
    /// Until when.
    NotYetValid(i64),
    /// The key belongs to a later certificate.
    LeafNotFirst,
    /// Of the intermediates. They are sent in the right order nevertheless.
    WrongOrder,
    /// The chain holds certificates that have nothing to do with it.
    Unrelated,
    /// Clients need the certificate of this issuer, which is not there.
    MissingIntermediate(String),
}

/// One of the two that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    Certificate,
    Key,
}

impl Half {
    fn word(self) -> &'static str {
        match self {
            Half::Certificate => "certificate",
            Half::Key => "key",
        }
    }
}

impl Fault {
    /// What is wrong with the dates of a certificate at `now`, in seconds since 1970.
    pub(super) fn of_dates(certificate: &Certificate, now: i64) -> Option<Fault> {
        match certificate {
            one if now < one.not_before => Some(Fault::NotYetValid(one.not_before)),
            one if now > one.not_after => Some(Fault::Expired(one.not_after)),
            _ => None,
        }
    }

    /// As metrics and findings name it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Fault::Missing(_) => "missing",
            Fault::Empty(_) => "empty",
            Fault::Cut(_) => "half_written",
            Fault::NotPem(_) => "not_pem",
            Fault::NotReadable => "not_readable",
            Fault::EncryptedKey => "encrypted_key",
            Fault::WrongKey => "wrong_key",
            Fault::UnsupportedKey(_) => "unsupported_key",
            Fault::WeakKey(_) => "weak_key",
            Fault::Expired(_) => "expired",
            Fault::NotYetValid(_) => "not_yet_valid",
            Fault::LeafNotFirst => "leaf_not_first",
            Fault::WrongOrder => "wrong_order",
            Fault::Unrelated => "unrelated",
            Fault::MissingIntermediate(_) => "missing_intermediate",
        }
    }

    /// What to do about it.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Fault::Missing(_) | Fault::Empty(_) => "put a certificate in PEM into tls.crt and its key into tls.key",
            Fault::Cut(_) => "write it under another name and rename it, so that it appears as a whole",
            Fault::NotPem(_) => "convert it to PEM, which begins with -----BEGIN",
            Fault::NotReadable => "have the certificate issued again",
            Fault::EncryptedKey => "store the key without its passphrase: openssl pkey -in tls.key -out tls.key",
            Fault::WrongKey => "put the key there that the certificate was issued for, both at once",
            Fault::UnsupportedKey(_) => "use ECDSA with P-256, P-384 or P-521, Ed25519, or RSA of 2048 to 8192 bits",
            Fault::WeakKey(_) => "use an RSA key of 2048 bits or more, or ECDSA with P-256",
            Fault::Expired(_) => "renew the certificate",
            Fault::NotYetValid(_) => "wait, or look at the clocks of this machine and of the issuer",
            Fault::LeafNotFirst | Fault::WrongOrder => {
                "put the server's certificate first, and behind each one that of its issuer"
            }
            Fault::Unrelated => "remove what does not lead from the server's certificate to its root",
            Fault::MissingIntermediate(_) => "append the certificate of the issuer to the server's",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Missing(present) if present.is_empty() => {
                f.write_str("it holds no certificate and key (tls.crt and tls.key, or cert and key)")
            }
            Fault::Missing(present) => write!(f, "of certificate and key it holds only {}", present.join(", ")),
            Fault::Empty(half) => write!(f, "its {} is empty", half.word()),
            Fault::Cut(half) => write!(f, "its {} ends in the middle, as if half-written", half.word()),
            Fault::NotPem(Half::Certificate) => f.write_str("it holds no certificate in readable PEM"),
            Fault::NotPem(Half::Key) => f.write_str("the key is not a private key in readable PEM"),
            Fault::NotReadable => f.write_str("a certificate in it is no X.509"),
            Fault::EncryptedKey => f.write_str("the key is encrypted with a passphrase, which nobody can ask for here"),
            Fault::WrongKey => f.write_str("the key belongs to another certificate"),
            Fault::UnsupportedKey(kind) => write!(f, "the kind of the key is not supported: {kind}"),
            Fault::WeakKey(bits) => write!(f, "the RSA key has {bits} bits, which is too weak"),
            Fault::Expired(at) => write!(f, "its certificate expired at {}", date(*at)),
            Fault::NotYetValid(at) => write!(f, "its certificate is not valid before {}", date(*at)),
            Fault::LeafNotFirst => f.write_str("the certificate that the key belongs to is not the first one"),
            Fault::WrongOrder => f.write_str("its certificates are in the wrong order; they are sent in the right one"),
            Fault::Unrelated => f.write_str("it holds certificates that are no part of the chain"),
            Fault::MissingIntermediate(issuer) => {
                write!(f, "the intermediate certificate `{issuer}` is missing; most clients cannot verify the server")
            }
        }
    }
}

fn date(seconds: i64) -> String {
    let date = DateTime::from_timestamp(seconds, 0);
    date.map_or_else(|| seconds.to_string(), |date| date.to_rfc3339_opts(SecondsFormat::Secs, true))
}
