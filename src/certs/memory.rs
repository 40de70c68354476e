//! What is remembered of a certificate over restarts: failures, waits, and when its issuer wants it to be renewed.
//!
//! Processes that share a storage share it.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::issue::{FailureKind, RenewalWindow};

/// Bounds on when an issuer is asked again, in seconds (RFC 9773 section 4.3.2).
const ASK_AGAIN: (i64, i64) = (60, 86_400);
/// When an issuer that says nothing of renewals is asked again, in seconds.
const SAYS_NOTHING: i64 = 86_400;

/// So many orders in a row may end with their process before the next one waits.
const BEGUN_FREELY: u32 = 3;
/// No wait is longer, in seconds: an instant further off was written by a clock that was wrong.
const LONGEST_WAIT: i64 = 9 * 86_400;

/// Kept as JSON in `state/`. Times are seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Memory {
    /// Rounds over all issuers that failed since the last success.
    pub failures: u32,
    /// Not before then; 0: at any time.
    pub next_try: i64,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "if_known")]
    pub last_error: Option<LastError>,
    /// Issuers that want to be left alone with this certificate until then.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub held: BTreeMap<String, i64>,
    /// Orders in a row that did not end: the process did before.
    #[serde(skip_serializing_if = "is_zero")]
    pub begun: u32,
    /// What is there came early, because its issuer wished so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub hurried: bool,
    pub ari: Ari,
    /// When a name that is served on demand was last asked for.
    pub last_asked: i64,
}

/// The failure that was met last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastError {
    pub kind: FailureKind,
    pub message: String,
    pub issuer: String,
    pub at: i64,
}

/// What an issuer says of renewals (RFC 9773).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Ari {
    /// The certificate that it is about, as SHA-256 in hexadecimal.
    pub leaf: String,
    pub ask_again: i64,
    /// Questions that failed since the last answer.
    pub failures: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
}

/// When it should be renewed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Window {
    pub start: i64,
    pub end: i64,
    /// The instant in it that chance gave; kept, so that a restart gives no other one.
    pub drawn: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explanation: Option<String>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// An error that another version wrote may be of a kind that is not known here.
fn if_known<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<LastError>, D::Error> {
    Ok(serde_json::from_value(serde_json::Value::deserialize(deserializer)?).ok())
}

impl Memory {
    /// Without what no clock that is right can have written.
    pub(super) fn plausible(mut self, now: i64) -> Memory {
        let far = now.saturating_add(LONGEST_WAIT);
        if self.next_try > far {
            self.next_try = 0;
        }
        self.held.retain(|_, until| *until <= far);
        if self.ari.ask_again > now.saturating_add(ASK_AGAIN.1) {
            self.ari.ask_again = 0;
        }
        self.last_asked = self.last_asked.min(now);
        self
    }

    /// Takes note that an order begins at `now`. A process that ends again and again in the midst of orders waits ever
    /// longer before the next one; `wait` says how long after so many.
    pub(super) fn begins(&mut self, now: i64, wait: impl Fn(u32) -> i64) {
        self.begun = self.begun.saturating_add(1);
        if let Some(too_many) = self.begun.checked_sub(BEGUN_FREELY).filter(|too_many| *too_many > 0) {
            self.next_try = now.saturating_add(wait(too_many));
        }
    }

    /// The window of a certificate, if its issuer named one.
    pub(super) fn window_of(&self, leaf: &str) -> Option<&Window> {
        self.ari.window.as_ref().filter(|_| self.ari.leaf == leaf)
    }

    /// When the issuer of a certificate is to be asked about it.
    pub(super) fn ask_at(&self, leaf: &str) -> i64 {
        if self.ari.leaf == leaf { self.ari.ask_again } else { 0 }
    }

    /// Takes an issuer's answer about a certificate. `chance` lies between 0 and 1.
    pub(super) fn answered(&mut self, leaf: &str, answer: Option<RenewalWindow>, now: i64, chance: f64) {
        let before = self.window_of(leaf).cloned();
        let wait = answer.as_ref().map_or(SAYS_NOTHING, |answer| {
            i64::try_from(answer.ask_again.as_secs()).unwrap_or(ASK_AGAIN.1).clamp(ASK_AGAIN.0, ASK_AGAIN.1)
        });
        // A window that ends before it starts is none.
        let window = answer.filter(|answer| answer.start <= answer.end).map(|answer| {
            let same = before.filter(|before| (before.start, before.end) == (answer.start, answer.end));
            let width = answer.end.saturating_sub(answer.start) as f64;
            let drawn = same.map_or_else(|| answer.start.saturating_add((width * chance) as i64), |same| same.drawn);
            Window { start: answer.start, end: answer.end, drawn, explanation: answer.explanation }
        });
        self.ari = Ari { leaf: leaf.to_owned(), ask_again: now.saturating_add(wait), failures: 0, window };
    }

    /// Takes note of a question that was not answered, and asks again after `wait` seconds. What was answered before
    /// stays.
    pub(super) fn unanswered(&mut self, leaf: &str, now: i64, wait: i64) {
        if self.ari.leaf != leaf {
            self.ari = Ari { leaf: leaf.to_owned(), ..Ari::default() };
        }
        self.ari.failures = self.ari.failures.saturating_add(1);
        self.ari.ask_again = now.saturating_add(wait.clamp(ASK_AGAIN.0, ASK_AGAIN.1));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_instant_is_drawn_once_for_a_window() {
        let answer = |start, end, hours: u64| {
            let explanation = Some("https://ca/why".to_owned());
            Some(RenewalWindow { start, end, ask_again: Duration::from_secs(hours * 3600), explanation })
        };
        let mut memory = Memory::default();
        assert_eq!(memory.ask_at("one"), 0);
        memory.answered("one", answer(100, 200, 6), 50, 0.25);
        assert_eq!((memory.window_of("one").unwrap().drawn, memory.ask_at("one")), (125, 50 + 6 * 3600));
        let text = serde_json::to_string(&memory).unwrap();
        assert_eq!(serde_json::from_str::<Memory>(&text).unwrap(), memory, "the same after a restart");
        memory.answered("one", answer(100, 200, 0), 60, 0.99);
        assert_eq!((memory.window_of("one").unwrap().drawn, memory.ask_at("one")), (125, 60 + 60));
        memory.answered("one", answer(100, 300, 1000), 60, 0.5);
        assert_eq!((memory.window_of("one").unwrap().drawn, memory.ask_at("one")), (200, 60 + 86_400));
        memory.unanswered("one", 70, 5);
        assert_eq!((memory.window_of("one").unwrap().drawn, memory.ask_at("one")), (200, 70 + 60));
        assert!(memory.window_of("two").is_none());
        memory.unanswered("two", 80, 600);
        assert!(memory.window_of("one").is_none());
        memory.answered("two", answer(300, 100, 6), 90, 0.5);
        assert!(memory.window_of("two").is_none(), "no window");
        memory.answered("two", None, 100, 0.5);
        assert_eq!(memory.ask_at("two"), 100 + 86_400);
    }

    #[test]
    fn orders_that_end_with_their_process_come_ever_later() {
        let mut memory = Memory::default();
        let tries: Vec<i64> = (0..5)
            .map(|_| {
                memory.begins(100, |many| i64::from(many) * 60);
                memory.next_try
            })
            .collect();
        assert_eq!(tries, [0, 0, 0, 160, 220]);
    }

    #[test]
    fn clocks_that_were_wrong_and_other_versions_delay_nothing() {
        let text = r#"{"failures":3,"next_try":9223372036854775807,"held":{"a":2000000,"b":99},"ari":{"ask_again":99999999},
            "last_asked":5000,"last_error":{"kind":"of_tomorrow","message":"","issuer":"","at":0},"more":1}"#;
        let memory = serde_json::from_str::<Memory>(text).unwrap().plausible(100);
        assert_eq!((memory.failures, memory.next_try, memory.ari.ask_again, memory.last_asked), (3, 0, 0, 100));
        assert_eq!((memory.held.len(), memory.last_error), (1, None));
        let soon = Memory { next_try: 86_400, ..Memory::default() };
        assert_eq!(soon.clone().plausible(100), soon);
    }
}
