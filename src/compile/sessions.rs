//! Under which keys are TLS sessions resumed? Tickets and remembered sessions never outlive the rules under which they
//! began, nor the keys of two epochs.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use aws_lc_rs::{constant_time, rand};
use rustls::ServerConfig;
use rustls::server::{NoServerSessionStorage, ProducesTickets, ServerSessionMemoryCache, StoresServerSessions};

use super::client_verifier::{Check, ClientPolicy, Pin};
use super::index::Index;
use super::memory::Memory;
use super::problems::Problems;
use crate::base::clock;
use crate::resource::codes;
use crate::resource::finding::Finding;

/// Seconds for which one key makes tickets; it reads them for as long again.
const EPOCH: i64 = 6 * 3600;
/// Sessions of TLS 1.2 clients without tickets that are remembered.
const REMEMBERED: usize = 4096;
/// Bytes of a secret, at least.
const LEAST_SECRET: usize = 32;
const NAME_LENGTH: usize = 16;

/// How the sessions of all servers are resumed. Kept over reloads while the secrets stay the same.
#[derive(Clone)]
pub(super) struct Sessions {
    keys: Arc<Keys>,
    /// For clients of TLS 1.2 that take no tickets.
    remembered: Arc<ServerSessionMemoryCache>,
}

impl Sessions {
    /// With keys that no other process has.
    pub(super) fn of_this_process() -> Sessions {
        Sessions::new(Origin::Chance)
    }

    /// With keys that every process with one of the same `secrets` has.
    pub(super) fn shared(secrets: &Secrets) -> Sessions {
        let salt = Salt::new(HKDF_SHA256, b"limani session tickets 1");
        Sessions::new(Origin::Secrets(secrets.0.iter().map(|secret| salt.extract(secret)).collect()))
    }

    /// Another one where the keys are others.
    pub(super) fn address(&self) -> usize {
        Arc::as_ptr(&self.keys).addr()
    }

    fn new(origin: Origin) -> Sessions {
        let keys = Keys { origin, now: clock::now, current: RwLock::default() };
        Sessions { keys: Arc::new(keys), remembered: ServerSessionMemoryCache::new(REMEMBERED) }
    }

    /// Lets clients of `config` resume sessions that began under the same `rules`.
    pub(super) fn allow(&self, config: &mut ServerConfig, rules: Rules) {
        config.ticketer = Arc::new(Tickets { keys: Arc::clone(&self.keys), rules });
        config.session_storage =
            Arc::new(Remembered { sessions: Arc::clone(&self.remembered), now: self.keys.now, rules });
    }
}

/// How sessions are resumed under the settings of now; `None`: not at all. What was made before stays while its secrets
/// are the same, or those of now cannot be used.
pub(super) fn of(index: &Index<'_>, memory: &mut Memory, problems: &mut Problems) -> Option<Sessions> {
    let settings = &index.settings.tls;
    if !settings.session_tickets {
        memory.sessions = None;
        return None;
    }
    let file = &settings.session_ticket_keys;
    let secret = index.secret(&format!("file:{file}"));
    let keys = secret.and_then(|secret| secret.spec.data.get("keys"));
    let secrets = match keys.map(|keys| Secrets::read(keys)) {
        _ if file.is_empty() => None,
        Some(Ok(secrets)) => Some(secrets),
        // That it cannot be read at all was told by who reads files.
        failed => {
            if let (Some(Err(reason)), Some(secret)) = (failed, secret) {
                problems.add(Finding::new(&codes::TICKET_KEYS, secret.origin.start(), reason));
            }
            memory.sessions.as_ref().and_then(|(known, _)| known.clone())
        }
    };
    let sessions = match memory.sessions.take() {
        Some((known, sessions)) if known == secrets => sessions,
        _ => secrets.as_ref().map_or_else(Sessions::of_this_process, Sessions::shared),
    };
    memory.sessions = Some((secrets, sessions.clone()));
    Some(sessions)
}

/// Lets no client of `config` resume a session.
pub(super) fn forbid(config: &mut ServerConfig) {
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
}

/// The lines of a file of secrets, the newest first: it makes tickets, all read them.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Secrets(Vec<Vec<u8>>);

impl Secrets {
    /// One secret in each line; empty lines and those that begin with `#` are none. Fails with a sentence that shows no
    /// secret.
    pub(super) fn read(file: &[u8]) -> Result<Secrets, String> {
        let lines = file.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let lines = lines.enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with(b"#"));
        let mut secrets = Vec::new();
        for (number, line) in lines {
            if line.len() < LEAST_SECRET {
                return Err(format!("the secret in line {} is shorter than {LEAST_SECRET} characters", number + 1));
            }
            secrets.push(line.to_vec());
        }
        match secrets.is_empty() {
            true => Err("it holds no secret".to_owned()),
            false => Ok(Secrets(secrets)),
        }
    }
}

/// What a session must have begun under to be resumed: a fingerprint that is the same in every process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Rules([u8; SHA256_OUTPUT_LEN]);

impl Rules {
    /// Of the server `server` (its Gateway, port and what is inside), that asks clients for `policy`, and believes these
    /// authorities with their revocation lists.
    pub(super) fn new<'a>(
        server: &[&str],
        policy: Option<&ClientPolicy>,
        authorities: impl Iterator<Item = &'a [u8]>,
    ) -> Rules {
        let mut digest = Digest(Context::new(&SHA256));
        digest.list(server.iter().map(|part| part.as_bytes()));
        match policy {
            None => digest.part(b"none"),
            Some(ClientPolicy { required, check }) => {
                digest.part(if *required { b"required" } else { b"optional" });
                match check {
                    Check::Nothing => digest.part(b"unverified"),
                    Check::Everything { names, pins } => {
                        digest.part(b"verified");
                        digest.list(names.iter().map(String::as_bytes));
                        digest.list(pins.iter().flat_map(|pin| match pin {
                            Pin::Key(text) => [b"key".as_slice(), text.as_bytes()],
                            Pin::Certificate(text) => [b"certificate".as_slice(), text.as_bytes()],
                        }));
                    }
                }
            }
        }
        digest.list(authorities);
        digest.finish()
    }
}

/// Parts with their lengths, so that no two lists of parts are the same bytes.
struct Digest(Context);

impl Digest {
    fn part(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    fn list<'a>(&mut self, parts: impl Iterator<Item = &'a [u8]>) {
        parts.for_each(|part| self.part(part));
        // No part is that long.
        self.0.update(&u64::MAX.to_be_bytes());
    }

    fn finish(self) -> Rules {
        let mut rules = [0; SHA256_OUTPUT_LEN];
        rules.copy_from_slice(self.0.finish().as_ref());
        Rules(rules)
    }
}

/// Where keys come from.
enum Origin {
    /// Thrown for each epoch, and forgotten after the next.
    Chance,
    /// Derived from these and the number of the epoch (HKDF, RFC 5869).
    Secrets(Vec<Prk>),
}

/// The keys of tickets, as time goes by.
struct Keys {
    origin: Origin,
    now: fn() -> i64,
    current: RwLock<Arc<Ring>>,
}

/// The keys of one epoch: the first makes tickets, all read them.
#[derive(Default)]
struct Ring {
    epoch: i64,
    keys: Vec<Arc<Key>>,
}

/// A key with the name by which tickets call it.
struct Key {
    name: [u8; NAME_LENGTH],
    key: RandomizedNonceKey,
}

impl Keys {
    /// The keys of now; `None` if they cannot be made.
    fn ring(&self) -> Option<Arc<Ring>> {
        let epoch = (self.now)().div_euclid(EPOCH);
        {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            if current.epoch == epoch && !current.keys.is_empty() {
                return Some(Arc::clone(&current));
            }
        }
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.epoch != epoch || current.keys.is_empty() {
            *current = Arc::new(Ring { epoch, keys: self.make(epoch, &current)? });
        }
        Some(Arc::clone(&current))
    }

    fn make(&self, epoch: i64, earlier: &Ring) -> Option<Vec<Arc<Key>>> {
        match &self.origin {
            Origin::Chance => {
                // A clock that steps back within the last epoch leaves its key as good as one that went on.
                let known = earlier.keys.first().filter(|_| (epoch - earlier.epoch).abs() == 1);
                Some([Key::random()?].into_iter().map(Arc::new).chain(known.cloned()).collect())
            }
            Origin::Secrets(secrets) => {
                // Another process may have a clock that runs before ours.
                let made = [epoch, epoch - 1, epoch + 1]
                    .into_iter()
                    .flat_map(|epoch| secrets.iter().map(move |secret| Some(Arc::new(Key::derived(secret, epoch)?))));
                made.collect()
            }
        }
    }
}

/// As many bytes as a key with its name has.
struct KeyLength;

impl KeyType for KeyLength {
    fn len(&self) -> usize {
        NAME_LENGTH + AES_256_GCM_SIV.key_len()
    }
}

impl Key {
    fn random() -> Option<Key> {
        let mut bytes = vec![0; KeyLength.len()];
        rand::fill(&mut bytes).ok()?;
        Key::new(&bytes)
    }

    fn derived(secret: &Prk, epoch: i64) -> Option<Key> {
        let mut bytes = vec![0; KeyLength.len()];
        let epoch = epoch.to_be_bytes();
        secret.expand(&[b"key of epoch", &epoch], KeyLength).ok()?.fill(&mut bytes).ok()?;
        Key::new(&bytes)
    }

    fn new(bytes: &[u8]) -> Option<Key> {
        let (name, key) = bytes.split_first_chunk()?;
        Some(Key { name: *name, key: RandomizedNonceKey::new(&AES_256_GCM_SIV, key).ok()? })
    }
}

/// Makes and reads the tickets of one server: the name of the key, the nonce, and the sealed session.
struct Tickets {
    keys: Arc<Keys>,
    rules: Rules,
}

impl Tickets {
    /// What a ticket is bound to beside its key.
    fn bound_to(&self, key: &Key) -> Aad<[u8; NAME_LENGTH + SHA256_OUTPUT_LEN]> {
        let mut bytes = [0; NAME_LENGTH + SHA256_OUTPUT_LEN];
        let parts = key.name.iter().chain(&self.rules.0);
        bytes.iter_mut().zip(parts).for_each(|(place, byte)| *place = *byte);
        Aad::from(bytes)
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(2 * EPOCH).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        let ring = self.keys.ring()?;
        let key = ring.keys.first()?;
        let mut sealed = session.to_vec();
        let nonce = key.key.seal_in_place_append_tag(self.bound_to(key), &mut sealed).ok()?;
        Some([&key.name[..], nonce.as_ref(), &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME_LENGTH>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let ring = self.keys.ring()?;
        let is_named = |key: &&Arc<Key>| constant_time::verify_slices_are_equal(&key.name, name).is_ok();
        let key = ring.keys.iter().find(is_named)?;
        let mut session = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = key.key.open_in_place(nonce, self.bound_to(key), &mut session).ok()?.len();
        session.truncate(length);
        Some(session)
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("rules", &self.rules).finish_non_exhaustive()
    }
}

/// The sessions of one server among those that are remembered for all.
#[derive(Debug)]
struct Remembered {
    sessions: Arc<ServerSessionMemoryCache>,
    now: fn() -> i64,
    rules: Rules,
}

impl Remembered {
    /// The names of a session that was put in this epoch, and in the one before.
    fn names(&self, id: &[u8]) -> [Vec<u8>; 2] {
        let epoch = (self.now)().div_euclid(EPOCH);
        [epoch, epoch - 1].map(|epoch| [&self.rules.0[..], &epoch.to_be_bytes(), id].concat())
    }
}

impl StoresServerSessions for Remembered {
    fn put(&self, id: Vec<u8>, session: Vec<u8>) -> bool {
        let [name, _] = self.names(&id);
        self.sessions.put(name, session)
    }

    fn get(&self, id: &[u8]) -> Option<Vec<u8>> {
        self.names(id).iter().find_map(|name| self.sessions.get(name))
    }

    fn take(&self, id: &[u8]) -> Option<Vec<u8>> {
        self.names(id).iter().find_map(|name| self.sessions.take(name))
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static NOW: Cell<i64> = const { Cell::new(100 * EPOCH) };
    }

    /// The tickets of a process with these secrets; with none: of its own keys.
    fn process(secrets: &str) -> Sessions {
        let mut sessions = match secrets.is_empty() {
            true => Sessions::of_this_process(),
            false => Sessions::shared(&Secrets::read(secrets.as_bytes()).unwrap()),
        };
        Arc::get_mut(&mut sessions.keys).unwrap().now = || NOW.get();
        sessions
    }

    fn rules(names: &[&str], authorities: &[&[u8]], lists: Option<&[u8]>) -> Rules {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let policy = ClientPolicy { required: true, check: Check::Everything { names, pins: Vec::new() } };
        Rules::new(&["ns/gateway", "443"], Some(&policy), authorities.iter().copied().chain(lists))
    }

    fn tickets(sessions: &Sessions, rules: Rules) -> Tickets {
        Tickets { keys: Arc::clone(&sessions.keys), rules }
    }

    const OLD: &str = "the old secret of at least 32 bytes";
    const NEW: &str = "the new secret of at least 32 bytes";

    #[test]
    fn who_has_the_secret_reads_the_tickets_of_others() {
        let rules = rules(&[], &[b"ca"], None);
        let ticket = |secrets: &str| tickets(&process(secrets), rules).encrypt(b"session").unwrap();
        let read = |secrets: &str, ticket: &[u8]| tickets(&process(secrets), rules).decrypt(ticket).is_some();
        let both = format!("# newest first\n\n  {NEW}\r\n{OLD}\n");
        assert_eq!(tickets(&process(OLD), rules).decrypt(&ticket(OLD)).unwrap(), b"session");
        assert!(read(&both, &ticket(OLD)) && read(&both, &ticket(NEW)));
        assert!(read(NEW, &ticket(&both)) && !read(OLD, &ticket(&both)), "the newest makes");
        assert!(!read(NEW, &ticket(OLD)) && !read("", &ticket(OLD)) && !read("", &ticket("")));
        let mut broken = ticket(OLD);
        for length in [0, 10, NAME_LENGTH + NONCE_LEN, broken.len() - 1] {
            assert!(!read(OLD, &broken[..length]));
        }
        broken[40] ^= 1;
        assert!(!read(OLD, &broken));
    }

    #[test]
    fn a_session_is_resumed_under_its_own_rules_alone() {
        let sessions = process(OLD);
        let all = [
            rules(&[], &[b"ca"], None),
            rules(&["a"], &[b"ca"], None),
            rules(&["a"], &[b"ca"], Some(b"")),
            rules(&["a"], &[b"ca"], Some(b"list")),
            rules(&["a"], &[b"other"], None),
            rules(&["a", "ca"], &[], None),
            Rules::new(&["ns/gateway", "443"], None, std::iter::empty()),
            Rules::new(&["ns/gateway443"], None, std::iter::empty()),
        ];
        for (place, made) in all.iter().enumerate() {
            let ticket = tickets(&sessions, *made).encrypt(b"session").unwrap();
            let remembered = |rules: &Rules| Remembered {
                sessions: Arc::clone(&sessions.remembered),
                now: || NOW.get(),
                rules: *rules,
            };
            remembered(made).put(vec![1], vec![2]);
            for (other, rules) in all.iter().enumerate() {
                assert_eq!(tickets(&sessions, *rules).decrypt(&ticket).is_some(), place == other, "{place} {other}");
                assert_eq!(remembered(rules).get(&[1]).is_some(), other <= place);
            }
        }
    }

    #[test]
    fn a_session_ends_with_the_epoch_after_its_own() {
        let rules = rules(&[], &[], None);
        for secrets in ["", OLD] {
            NOW.set(100 * EPOCH);
            let sessions = process(secrets);
            let ticket = tickets(&sessions, rules).encrypt(b"session").unwrap();
            let remembered = Remembered { sessions: Arc::clone(&sessions.remembered), now: || NOW.get(), rules };
            remembered.put(vec![1], vec![2]);
            for (now, expected) in [(101 * EPOCH - 1, true), (102 * EPOCH - 1, true), (102 * EPOCH, false)] {
                NOW.set(now);
                assert_eq!(tickets(&sessions, rules).decrypt(&ticket).is_some(), expected, "{now} `{secrets}`");
                assert_eq!(remembered.get(&[1]).is_some(), expected);
            }
            assert!(tickets(&sessions, rules).encrypt(b"session").is_some());
        }
        NOW.set(100 * EPOCH);
        let early = tickets(&process(OLD), rules).encrypt(b"session").unwrap();
        NOW.set(100 * EPOCH - 1);
        assert!(tickets(&process(OLD), rules).decrypt(&early).is_some(), "of a clock that runs before ours");
    }

    #[test]
    fn a_file_without_a_good_secret_is_refused_and_nothing_of_it_is_shown() {
        for (file, expected) in [("", "no secret"), ("# x\n", "no secret"), ("a\n", "line 1"), ("\nshort\n", "line 2")]
        {
            let error = Secrets::read(file.as_bytes()).err().unwrap();
            assert!(error.contains(expected) && !error.contains("short\n"), "{error}");
        }
    }
}
