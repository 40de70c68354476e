//! Which certificate is served for a name that nobody wrote down? One that is ordered at the name's first handshake, if
//! the `ask` URL lets it.
//!
//! Such certificates never become part of the configuration: a handshake is handed the key itself. They are kept in
//! `on-demand/`, which is the list of names at a restart, and renewed while somebody asked for them in the last 30 days.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::sign::CertifiedKey;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::store::ON_DEMAND;
use crate::base::{clock, kept_name};

/// How long a handshake waits for its certificate.
const WAIT_LIMIT: Duration = Duration::from_secs(180);
/// How long the `ask` URL may take, and how many questions are open at once.
const ASK_LIMIT: Duration = Duration::from_secs(10);
const QUESTIONS: usize = 16;
/// Names that may be waited for at once, and handshakes that may wait for one of them.
const MOST_NAMES: usize = 1000;
const MOST_WAITING: usize = 100;
/// Handshakes that may wait at once, whatever for: each holds a connection.
const MOST_HANDSHAKES: usize = 5000;
/// How long a refusal is remembered, in seconds, and how many are. Where nobody answers, it is asked again sooner.
const REFUSED_FOR: i64 = 60;
const UNANSWERED_FOR: i64 = 10;
const MOST_REFUSED: usize = 10_000;

/// Why a name gets no certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("no certificates are got on demand")]
    Off,
    #[error("this is no host name that a certificate can have")]
    NotAName,
    #[error("the `ask` URL does not allow the name")]
    NotAllowed,
    #[error("too many names are waited for")]
    Busy,
    #[error("no certificate could be got for the name")]
    Failed,
    #[error("its certificate took too long")]
    TooLate,
}

impl Refusal {
    /// As metrics name it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Refusal::Off => "off",
            Refusal::NotAName => "not_a_name",
            Refusal::NotAllowed => "not_allowed",
            Refusal::Busy => "busy",
            Refusal::Failed => "failed",
            Refusal::TooLate => "too_late",
        }
    }
}

/// Asked by handshakes, on any thread; cheap to clone.
#[derive(Clone)]
pub(crate) struct OnDemandDoor {
    known: Arc<Known>,
    demands: mpsc::Sender<Demand>,
}

/// Where the demands of a door arrive.
pub(crate) struct Arrivals {
    pub(super) known: Arc<Known>,
    pub(super) demands: mpsc::Receiver<Demand>,
}

/// A door for handshakes, and where its demands arrive.
pub(crate) fn door() -> (OnDemandDoor, Arrivals) {
    let (sender, demands) = mpsc::channel(MOST_NAMES);
    let known = Arc::new(Known::default());
    (OnDemandDoor { known: Arc::clone(&known), demands: sender }, Arrivals { known, demands })
}

/// A name that is waited for.
pub(super) struct Demand {
    pub name: String,
    pub reply: oneshot::Sender<Answer>,
}

/// A certificate with its key, or why there is none.
pub(super) type Answer = Result<Arc<CertifiedKey>, Refusal>;

/// The certificates that were asked for, by name.
#[derive(Default)]
pub(super) struct Known(RwLock<HashMap<String, Entry>>);

struct Entry {
    key: Arc<CertifiedKey>,
    not_after: i64,
    last_asked: AtomicI64,
}

impl OnDemandDoor {
    /// The certificate for a name, at once if it is known, else as soon as it is issued. One that has expired is better
    /// than none.
    pub(crate) async fn certificate(&self, name: &str) -> Result<Arc<CertifiedKey>, Refusal> {
        let name = name.to_ascii_lowercase();
        // A single label is no public name, and names of addresses come without one.
        if !kept_name::is_dns_name(&name) || !name.contains('.') {
            return Err(Refusal::NotAName);
        }
        let expired = match self.known.find(&name, clock::now()) {
            Some((key, true)) => return Ok(key),
            Some((key, false)) => Some(key),
            None => None,
        };
        let (reply, answer) = oneshot::channel();
        let asked = self.demands.try_send(Demand { name, reply });
        let answer = match asked {
            Err(mpsc::error::TrySendError::Full(_)) => Err(Refusal::Busy),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Refusal::Off),
            Ok(()) => match timeout(WAIT_LIMIT, answer).await {
                Ok(answer) => answer.unwrap_or(Err(Refusal::Off)),
                Err(_) => Err(Refusal::TooLate),
            },
        };
        answer.or_else(|refusal| expired.ok_or(refusal))
    }
}

impl Known {
    /// The key for a name, and whether it is in date.
    fn find(&self, name: &str, now: i64) -> Option<(Arc<CertifiedKey>, bool)> {
        let names = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let entry = names.get(name)?;
        entry.last_asked.store(now, Ordering::Relaxed);
        Some((Arc::clone(&entry.key), entry.not_after > now))
    }

    /// From now on handshakes find it by themselves.
    pub(super) fn put(&self, name: &str, key: Arc<CertifiedKey>, not_after: i64, now: i64) {
        let entry = Entry { key, not_after, last_asked: AtomicI64::new(now) };
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), entry);
    }

    /// When a name was last asked for; 0 if it was not since the start.
    pub(super) fn last_asked(&self, name: &str) -> i64 {
        let names = self.0.read().unwrap_or_else(PoisonError::into_inner);
        names.get(name).map_or(0, |entry| entry.last_asked.load(Ordering::Relaxed))
    }

    pub(super) fn retain(&self, stays: impl Fn(&str) -> bool) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).retain(|name, _| stays(name));
    }
}

/// Who waits for which name, and which names were refused lately.
#[derive(Default)]
pub(super) struct Demands {
    waiting: HashMap<String, Vec<oneshot::Sender<Answer>>>,
    refused: HashMap<String, i64>,
}

impl Demands {
    /// Takes a demand for a name that is not known. True: nobody waited for it before, so something is to be done.
    pub(super) fn wait(&mut self, demand: Demand, now: i64) -> bool {
        let Demand { name, reply } = demand;
        let refused = self.refused.get(&name).is_some_and(|until| (1..=REFUSED_FOR).contains(&(until - now)));
        // Who gave up waits no longer. What nobody waits for any more is begun anew: its work may have been lost.
        self.waiting.retain(|_, replies| {
            replies.retain(|reply| !reply.is_closed());
            !replies.is_empty()
        });
        let (names, handshakes) = (self.waiting.len(), self.waiting.values().map(Vec::len).sum::<usize>());
        let refusal = match self.waiting.get_mut(&name) {
            _ if refused => Refusal::NotAllowed,
            _ if handshakes >= MOST_HANDSHAKES => Refusal::Busy,
            Some(waiting) if waiting.len() < MOST_WAITING => {
                waiting.push(reply);
                return false;
            }
            None if names < MOST_NAMES => {
                self.waiting.insert(name, vec![reply]);
                return true;
            }
            _ => Refusal::Busy,
        };
        // Who asked may have gone.
        let _ = reply.send(Err(refusal));
        false
    }

    /// Whether a handshake waits for a name.
    pub(super) fn awaits(&self, name: &str) -> bool {
        self.waiting.get(name).is_some_and(|replies| replies.iter().any(|reply| !reply.is_closed()))
    }

    /// Answers one demand at once.
    pub(super) fn serve(&self, demand: Demand, answer: Answer) {
        let _ = demand.reply.send(answer);
    }

    /// Answers all who wait for a name.
    pub(super) fn answer(&mut self, name: &str, answer: &Answer) {
        for reply in self.waiting.remove(name).into_iter().flatten() {
            let _ = reply.send(answer.clone());
        }
    }

    /// Remembers a name that the `ask` URL did not allow; `answered`: that it said so.
    pub(super) fn refuse(&mut self, name: &str, answered: bool, now: i64) {
        if self.refused.len() >= MOST_REFUSED {
            self.refused.retain(|_, until| *until > now);
        }
        if self.refused.len() >= MOST_REFUSED {
            self.refused.clear();
        }
        let lasts = if answered { REFUSED_FOR } else { UNANSWERED_FOR };
        self.refused.insert(name.to_owned(), now.saturating_add(lasts));
        self.answer(name, &Err(Refusal::NotAllowed));
    }
}

/// Who asks the `ask` URL.
#[derive(Clone)]
pub(super) struct Asker {
    client: reqwest::Client,
    open: Arc<Semaphore>,
}

impl Asker {
    /// # Errors
    /// There is no HTTP client: no TLS library was chosen.
    pub(super) fn new() -> Result<Asker, reqwest::Error> {
        let builder = reqwest::Client::builder().no_proxy().timeout(ASK_LIMIT).connect_timeout(ASK_LIMIT);
        let client = builder.redirect(reqwest::redirect::Policy::none()).build()?;
        Ok(Asker { client, open: Arc::new(Semaphore::new(QUESTIONS)) })
    }

    /// Whether a name may have a certificate; `None`: nobody answered. A host name needs no encoding.
    pub(super) async fn allows(&self, url: &str, name: &str) -> Option<bool> {
        let _one_of_few = self.open.acquire().await.ok()?;
        let separator = if url.contains('?') { '&' } else { '?' };
        match self.client.get(format!("{url}{separator}domain={name}")).send().await {
            Ok(answer) => Some(answer.status().is_success()),
            Err(error) => {
                // The URL may hold a password.
                let error = error.without_url();
                tracing::warn!(name, %error, "the `ask` URL of on-demand certificates does not answer");
                None
            }
        }
    }
}

/// The folder of a name.
pub(super) fn folder_of(name: &str) -> String {
    format!("{ON_DEMAND}/{name}")
}

/// The name of a folder of this kind.
pub(super) fn name_of(folder: &str) -> Option<&str> {
    folder.strip_prefix(ON_DEMAND)?.strip_prefix('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(name: &str) -> (Demand, oneshot::Receiver<Answer>) {
        let (reply, answer) = oneshot::channel();
        (Demand { name: name.to_owned(), reply }, answer)
    }

    #[test]
    fn one_name_is_worked_on_once_and_refusals_are_remembered() {
        let mut demands = Demands::default();
        let (first, answer) = demand("a.com");
        assert!(demands.wait(first, 100));
        let (second, other) = demand("a.com");
        assert!(!demands.wait(second, 100), "single-flighted");
        demands.refuse("a.com", true, 100);
        for mut answer in [answer, other] {
            assert_eq!(answer.try_recv().unwrap().unwrap_err(), Refusal::NotAllowed);
        }
        for (now, again) in [(101, false), (159, false), (160, true)] {
            let (third, _answer) = demand("a.com");
            assert_eq!(demands.wait(third, now), again, "{now}");
        }
    }

    #[test]
    fn a_name_whose_work_was_lost_is_begun_anew() {
        let mut demands = Demands::default();
        let (first, answer) = demand("a.com");
        assert!(demands.wait(first, 0) && demands.awaits("a.com"));
        // Nobody answers, and the handshake gives up.
        drop(answer);
        let (second, _answer) = demand("a.com");
        assert!(!demands.awaits("a.com") && demands.wait(second, 0));
    }

    #[test]
    fn memory_is_bounded() {
        let mut demands = Demands::default();
        let mut kept = Vec::new();
        for number in 0..MOST_NAMES + 10 {
            let (one, answer) = demand(&format!("{number}.com"));
            assert_eq!(demands.wait(one, 0), number < MOST_NAMES);
            kept.push(answer);
        }
        assert_eq!(kept.last_mut().unwrap().try_recv().unwrap().unwrap_err(), Refusal::Busy);
        for number in 0..MOST_REFUSED * 3 {
            demands.refuse(&format!("{number}.net"), true, i64::try_from(number).unwrap() / 100);
        }
        assert!(demands.refused.len() <= MOST_REFUSED);
    }

    #[tokio::test]
    async fn only_host_names_are_ever_looked_at() {
        let (door, Arrivals { mut demands, .. }) = super::door();
        for name in ["", "localhost", "a..com", "1.2.3.4", "::1", "*.a.com", "../a.com", "a_b.com", "ä.com"] {
            assert_eq!(door.certificate(name).await.unwrap_err(), Refusal::NotAName, "{name}");
        }
        assert!(demands.try_recv().is_err());
        drop(demands);
        assert_eq!(door.certificate("A.com").await.unwrap_err(), Refusal::Off);
    }
}
