//! When is a certificate to be renewed? A pure sum over its dates, what its issuer wants, and what is wanted of it.

use serde::Serialize;

use super::memory::Memory;
use super::stored::Stored;
use crate::snapshot::issuance::{Issuer, IssuerKind, Wanted};

/// It is renewed when one part in so many of its life is left.
const PART_LEFT: i64 = 3;
/// Certificates that came together are spread over one part in so many of their life, before that.
const SPREAD: f64 = 1.0 / 30.0;
/// What an authority of our own is called, before its folder.
pub(super) const LOCAL: &str = "local:";
/// A new certificate is not renewed by its dates before one part in so many of what is left of it has passed, and not for
/// the second time in a row by its issuer's wish within so many seconds: else a clock that is wrong, or a CA that errs, lets it be ordered without end.
const LEFT_ALONE: i64 = 4;
const LEFT_ALONE_FOR: i64 = 3600;
/// From here on its issuer's wish does not count.
const LAST_PART: i64 = 20;

/// Why a certificate is renewed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "reason")]
pub(crate) enum Reason {
    /// There is none, or none that can be read.
    Missing,
    Expired,
    /// It does not cover these names.
    NamesMissing {
        names: Vec<String>,
    },
    /// Another kind of key is wanted.
    OtherKey,
    /// None of the issuers that are wanted issued it.
    OtherIssuer,
    /// A third of its life is left.
    ThirdOfLife,
    /// Its issuer says so (RFC 9773).
    Window {
        #[serde(skip_serializing_if = "Option::is_none")]
        explanation: Option<String>,
    },
    /// The instant that its issuer named has not come, but a twentieth of its life is left.
    LastPart,
}

/// When, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Renewal {
    /// Seconds since 1970; the past means at once.
    pub at: i64,
    pub reason: Reason,
}

/// When the certificate has to be renewed that is stored for `wanted`.
pub(crate) fn due(stored: Option<&Stored>, wanted: &Wanted, issuers: &[&Issuer], memory: &Memory, now: i64) -> Renewal {
    let at_once = |reason| Renewal { at: 0, reason };
    let Some(stored) = stored else { return at_once(Reason::Missing) };
    let certificate = &stored.certificate;
    if certificate.not_after <= now {
        return at_once(Reason::Expired);
    }
    let names = stored.missing(wanted);
    if !names.is_empty() {
        return at_once(Reason::NamesMissing { names });
    }
    if stored.key != Some(wanted.key) {
        return at_once(Reason::OtherKey);
    }
    let authority = &stored.meta.authority;
    // What was put there by hand has no authority.
    if stored.is_disowned
        || !authority.is_empty()
            && !issuers.is_empty()
            && issuers.iter().all(|issuer| self::authority(issuer) != *authority)
    {
        return at_once(Reason::OtherIssuer);
    }
    let drawn = memory.window_of(&certificate.sha256).map(|window| (window.drawn, window.explanation.clone()));
    let renewal = by_dates(certificate.not_before, certificate.not_after, &certificate.sha256, drawn);
    Renewal { at: renewal.at.max(left_alone_until(&renewal.reason, stored, memory, now)), ..renewal }
}

/// Until when a certificate that was issued at `issued` is too new to be renewed.
fn left_alone_until(reason: &Reason, stored: &Stored, memory: &Memory, now: i64) -> i64 {
    let (issued, end) = (stored.meta.issued, stored.certificate.not_after);
    // Nobody knows when, or by another clock.
    if issued <= 0 || issued > now {
        return i64::MIN;
    }
    let pause = end.saturating_sub(issued).max(0) / LEFT_ALONE;
    issued.saturating_add(match reason {
        Reason::Window { .. } if !memory.hurried => 0,
        Reason::Window { .. } => pause.min(LEFT_ALONE_FOR),
        _ => pause,
    })
}

/// Renewal by dates alone. `fingerprint` spreads certificates of one age; `drawn` is the instant in the issuer's window.
fn by_dates(start: i64, end: i64, fingerprint: &str, drawn: Option<(i64, Option<String>)>) -> Renewal {
    let life = end.saturating_sub(start).max(0);
    let last = end.saturating_sub(life / LAST_PART);
    match drawn {
        Some((at, explanation)) if at <= last => Renewal { at, reason: Reason::Window { explanation } },
        Some(_) => Renewal { at: last, reason: Reason::LastPart },
        None => {
            let earlier = (life as f64 * SPREAD * fraction(fingerprint)) as i64;
            Renewal { at: end.saturating_sub(life / PART_LEFT).saturating_sub(earlier), reason: Reason::ThirdOfLife }
        }
    }
}

/// A number from 0 to 1 that a certificate keeps over restarts, and in all processes.
fn fraction(fingerprint: &str) -> f64 {
    let digits = fingerprint.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or_default();
    f64::from(digits) / f64::from(u32::MAX)
}

/// What stands for an issuer whatever its name.
pub(super) fn authority(issuer: &Issuer) -> String {
    match &issuer.kind {
        IssuerKind::Acme(acme) => acme.directory.clone(),
        IssuerKind::Local { folder, .. } => format!("{LOCAL}{}", folder.display()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::memory::Window;
    use super::super::store::Meta;
    use super::super::stored::{self, tests::make};
    use super::*;
    use crate::snapshot::issuance::{Identifier, KeyKind};

    const DAY: i64 = 86_400;
    const HOUR: i64 = 3600;

    #[test]
    fn dates_decide() {
        let window = |at| Some((at, Some("https://ca/why".to_owned())));
        let because = || Reason::Window { explanation: Some("https://ca/why".to_owned()) };
        for (what, life, drawn, spread, expected) in [
            ("90 days", 90 * DAY, None, "00000000", (60 * DAY, Reason::ThirdOfLife)),
            ("90 days, spread", 90 * DAY, None, "ffffffff", (57 * DAY, Reason::ThirdOfLife)),
            ("160 hours", 160 * HOUR, None, "00000000", (160 * HOUR - 192_000, Reason::ThirdOfLife)),
            ("12 hours", 12 * HOUR, None, "00000000", (8 * HOUR, Reason::ThirdOfLife)),
            ("a window", 90 * DAY, window(30 * DAY), "00000000", (30 * DAY, because())),
            ("a window late in life", 90 * DAY, window(80 * DAY), "00000000", (80 * DAY, because())),
            ("a window that is too late", 100 * DAY, window(99 * DAY), "00000000", (95 * DAY, Reason::LastPart)),
            ("a window after the end", 100 * DAY, window(900 * DAY), "00000000", (95 * DAY, Reason::LastPart)),
            ("a window in the past", 100 * DAY, window(-DAY), "00000000", (-DAY, because())),
            ("no life", 0, None, "00000000", (0, Reason::ThirdOfLife)),
        ] {
            let renewal = by_dates(0, life, spread, drawn);
            assert_eq!((renewal.at, renewal.reason), expected, "{what}");
        }
    }

    #[test]
    fn what_is_wrong_with_it_is_put_right_at_once() {
        let dns = |name: &str| Identifier::Dns(name.into());
        let issuer = |folder: &str| Issuer { name: "ca".into(), kind: IssuerKind::Local { folder: folder.into() } };
        let (ours, theirs) = (issuer("/a"), issuer("/b"));
        let wanted = Wanted {
            folder: "hosts/a.com".into(),
            identifiers: vec![dns("a.com")],
            issuers: vec!["ca".into()],
            key: KeyKind::EcdsaP256,
            profile: None,
        };
        let issued = make(&wanted.identifiers, KeyKind::EcdsaP256, 0, 90 * DAY);
        let meta = Meta { authority: authority(&ours), ..Meta::default() };
        let (stored, _) = stored::read(&issued.chain, &issued.key, meta).unwrap();
        let memory = Memory::default();
        let reason = |stored, wanted: &Wanted, issuer, now| due(stored, wanted, &[issuer], &memory, now).reason;
        let fine = due(Some(&stored), &wanted, &[&theirs, &ours], &memory, 0);
        assert!((57 * DAY..=60 * DAY).contains(&fine.at) && fine.reason == Reason::ThirdOfLife);
        assert_eq!(reason(None, &wanted, &ours, 0), Reason::Missing);
        assert_eq!(reason(Some(&stored), &wanted, &ours, 90 * DAY), Reason::Expired);
        assert_eq!(reason(Some(&stored), &wanted, &theirs, 0), Reason::OtherIssuer);
        let more = Wanted { identifiers: vec![dns("a.com"), dns("b.com")], ..wanted.clone() };
        assert_eq!(reason(Some(&stored), &more, &ours, 0), Reason::NamesMissing { names: vec!["b.com".into()] });
        let other = Wanted { key: KeyKind::Rsa2048, ..wanted.clone() };
        assert_eq!(reason(Some(&stored), &other, &ours, 0), Reason::OtherKey);
        let by_hand = Stored { meta: Meta::default(), ..stored.clone() };
        assert_eq!(reason(Some(&by_hand), &wanted, &ours, 0), Reason::ThirdOfLife);

        let mut memory = Memory::default();
        let window = Window { start: 5, end: 9, drawn: 7, explanation: None };
        memory.ari.leaf = stored.certificate.sha256.clone();
        memory.ari.window = Some(window);
        assert_eq!(due(Some(&stored), &wanted, &[&ours], &memory, 0).at, 7);
        // A CA that wants every certificate renewed at once gets no endless orders; nor does a clock that is wrong.
        let at = |issued, memory: &Memory, now| {
            let fresh = Stored { meta: Meta { issued, ..stored.meta.clone() }, ..stored.clone() };
            due(Some(&fresh), &wanted, &[&ours], memory, now).at
        };
        assert_eq!(at(5, &memory, 6), 7);
        memory.hurried = true;
        assert_eq!((at(5, &memory, 6), at(9, &memory, 6)), (3605, 7));
        assert_eq!(at(70 * DAY, &Memory::default(), 70 * DAY), 75 * DAY);
        let disowned = Stored { is_disowned: true, ..stored.clone() };
        assert_eq!(reason(Some(&disowned), &wanted, &ours, 0), Reason::OtherIssuer);
        memory.ari.leaf = "another".into();
        assert_eq!(due(Some(&stored), &wanted, &[&ours], &memory, 0).reason, Reason::ThirdOfLife);
    }

    proptest! {
        #[test]
        fn always_within_life_and_never_in_its_last_part(
            life in 0..4000 * DAY, drawn in proptest::option::of(0..5000 * DAY), fingerprint in "[0-9a-f]{8}"
        ) {
            let at = by_dates(0, life, &fingerprint, drawn.map(|at| (at, None))).at;
            prop_assert!(at >= 0 && at <= life - life / LAST_PART);
            if drawn.is_none() {
                prop_assert!(at * 10 >= life * 6, "at least six tenths of its life are used");
            }
        }
    }
}
