//! The Secrets that services name: read one by one, and again now and then.
//!
//! A router may read Secrets by their name and no others: it neither lists nor watches them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use parking_lot::Mutex;
use streamfleet_service::secrets::{MAX_SECRET, Unusable};
use streamfleet_service::spec::SecretKeyRef;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

/// How often a Secret is read again: what is mounted into a pod takes longer.
const AGAIN: Duration = Duration::from_secs(30);
/// How soon one that could not be read.
const SOON: Duration = Duration::from_secs(5);
/// Time between two reads, so that many Secrets are no burden: twenty a second.
const APART: Duration = Duration::from_millis(50);
/// For the API server to answer.
const ANSWERS: Duration = Duration::from_secs(5);
/// Secrets at most: more are a mistake.
const MAX_SECRETS: usize = 2_000;

/// Namespace and name of a Secret.
pub(crate) type Name = (String, String);

/// What is known of the Secrets that are wanted.
#[derive(Debug, Clone)]
pub(crate) struct Vault(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    table: Mutex<Table>,
    /// Somebody wants others.
    wanted: Notify,
    /// Counts changes.
    changes: watch::Sender<u64>,
}

/// A key of a Secret, and which version of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// What it says.
    Bytes(Vec<u8>),
    /// Nobody has been asked yet.
    NotYet,
    /// It cannot be had.
    Missing(String),
}

impl Vault {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared { table: Mutex::default(), wanted: Notify::new(), changes: watch::channel(0).0 }))
    }

    /// These are wanted from now on, and no others: namespace and key.
    pub(crate) fn want(&self, keys: BTreeSet<(String, SecretKeyRef)>) {
        if self.0.table.lock().want(keys, Instant::now()) {
            self.0.wanted.notify_one();
        }
    }

    /// What a key says.
    pub(crate) fn find(&self, namespace: &str, key: &SecretKeyRef) -> Found {
        self.0.table.lock().find(namespace, key)
    }

    /// How often what a Secret says has changed: whoever was made of another version has to be made again.
    pub(crate) fn version(&self, namespace: &str, key: &SecretKeyRef) -> u64 {
        let table = self.0.table.lock();
        table.secrets.get(&(namespace.to_owned(), key.name.clone())).map_or(0, |kept| kept.version)
    }

    /// Tells of changes.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Reads Secrets until it is dropped.
    pub(crate) async fn keep(self, client: Client) {
        loop {
            let next = self.0.table.lock().next();
            let Some((name, due)) = next else {
                self.0.wanted.notified().await;
                continue;
            };
            let wait = due.saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                // A Secret that is new is due at once.
                let _ = timeout(wait, self.0.wanted.notified()).await;
                continue;
            }
            let read = read(&client, &name).await;
            if self.0.table.lock().take(&name, read, Instant::now()) {
                self.0.changes.send_modify(|count| *count += 1);
            }
            sleep(APART).await;
        }
    }
}

/// What an API server says of a Secret.
#[derive(Debug)]
enum Read {
    /// Its keys.
    There(BTreeMap<String, Vec<u8>>),
    /// That there is none.
    Gone,
    /// Nothing, or that it must not be read: what was read before may be as it was.
    Unknown(String),
}

async fn read(client: &Client, (namespace, name): &Name) -> Read {
    let secrets = Api::<Secret>::namespaced(client.clone(), namespace);
    match timeout(ANSWERS, secrets.get_opt(name)).await {
        Ok(Ok(Some(secret))) => {
            Read::There(secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect())
        }
        Ok(Ok(None)) => Read::Gone,
        Ok(Err(kube::Error::Api(status))) => Read::Unknown(status.message.clone()),
        Ok(Err(error)) => Read::Unknown(error.to_string()),
        Err(_) => Read::Unknown("the API server does not answer".to_owned()),
    }
}

#[derive(Debug, Default)]
struct Table {
    secrets: BTreeMap<Name, Kept>,
}

#[derive(Debug)]
struct Kept {
    /// The keys that are wanted of it.
    wanted: BTreeSet<String>,
    state: State,
    version: u64,
    due: Instant,
}

#[derive(Debug)]
enum State {
    NotYet,
    /// The keys that are wanted and there, but for what is too large. `is_gone` when it was not there the last time: whoever replaces one may delete it first.
    There {
        keys: BTreeMap<String, Option<Vec<u8>>>,
        is_gone: bool,
    },
    Missing(String),
}

impl Table {
    /// Whether there is one to be read.
    fn want(&mut self, keys: BTreeSet<(String, SecretKeyRef)>, now: Instant) -> bool {
        let mut wanted: BTreeMap<Name, BTreeSet<String>> = BTreeMap::new();
        for (namespace, SecretKeyRef { name, key }) in keys {
            wanted.entry((namespace, name)).or_default().insert(key);
        }
        self.secrets.retain(|name, _| wanted.contains_key(name));
        let mut is_new = false;
        for (name, wanted) in wanted {
            let is_full = self.secrets.len() >= MAX_SECRETS;
            match self.secrets.get_mut(&name) {
                Some(kept) if kept.wanted == wanted => {}
                // What else it has has not been kept.
                Some(kept) => {
                    is_new |= !wanted.is_subset(&kept.wanted);
                    if !wanted.is_subset(&kept.wanted) {
                        (kept.state, kept.due) = (State::NotYet, now);
                    }
                    kept.wanted = wanted;
                }
                None if is_full => {
                    tracing::error!(secret = %format!("{}/{}", name.0, name.1), "more than {MAX_SECRETS} Secrets: it is not read");
                }
                None => {
                    is_new = true;
                    self.secrets.insert(name, Kept { wanted, state: State::NotYet, version: 0, due: now });
                }
            }
        }
        is_new
    }

    /// The Secret that is to be read next, and when: one that was never read before all others, which its service waits for; then the one
    /// that is due for the longest, so that each has its turn where more are due than can be read.
    fn next(&self) -> Option<(Name, Instant)> {
        let turn = |(_, kept): &(&Name, &Kept)| (!matches!(kept.state, State::NotYet), kept.due);
        let first = self.secrets.iter().min_by_key(turn)?;
        Some((first.0.clone(), first.1.due))
    }

    /// Whether what was read changes anything.
    fn take(&mut self, name: &Name, read: Read, now: Instant) -> bool {
        // Nobody may want it any more.
        let Some(kept) = self.secrets.get_mut(name) else { return false };
        kept.due = now + SOON;
        let named = format!("the Secret {}/{}", name.0, name.1);
        let state = match (read, &mut kept.state) {
            (Read::There(keys), state) => {
                kept.due = now + AGAIN;
                let wanted = keys.into_iter().filter(|(key, _)| kept.wanted.contains(key));
                let keys: BTreeMap<_, _> =
                    wanted.map(|(key, value)| (key, Some(value).filter(|value| value.len() <= MAX_SECRET))).collect();
                match state {
                    State::There { keys: before, is_gone } if *before == keys => {
                        *is_gone = false;
                        return false;
                    }
                    _ => State::There { keys, is_gone: false },
                }
            }
            (Read::Gone, State::There { is_gone, .. }) if !*is_gone => {
                *is_gone = true;
                return false;
            }
            (Read::Gone, _) => State::Missing(format!("{named} is not there")),
            // It is as it was, as far as anybody knows.
            (Read::Unknown(_), State::There { .. }) => return false,
            (Read::Unknown(why), _) => State::Missing(format!("{named} cannot be read: {why}")),
        };
        if let (State::Missing(before), State::Missing(now)) = (&kept.state, &state)
            && before == now
        {
            return false;
        }
        kept.state = state;
        kept.version += 1;
        true
    }

    fn find(&self, namespace: &str, SecretKeyRef { name, key }: &SecretKeyRef) -> Found {
        let named = (namespace.to_owned(), name.clone());
        match self.secrets.get(&named).map(|kept| &kept.state) {
            None => Found::Missing(format!("the Secret {namespace}/{name} is not read: there are too many")),
            Some(State::NotYet) => Found::NotYet,
            Some(State::Missing(why)) => Found::Missing(why.clone()),
            Some(State::There { keys, .. }) => match keys.get(key) {
                // As of files: editors end them with a line.
                Some(Some(bytes)) => Found::Bytes(bytes.trim_ascii_end().to_vec()),
                Some(None) => {
                    Found::Missing(format!("the key {key} of the Secret {namespace}/{name} {}", Unusable::TooLarge))
                }
                None => Found::Missing(format!("the Secret {namespace}/{name} has no key {key}")),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, key: &str) -> SecretKeyRef {
        SecretKeyRef { name: name.to_owned(), key: key.to_owned() }
    }

    fn wanted(keys: &[(&str, &str)]) -> BTreeSet<(String, SecretKeyRef)> {
        keys.iter().map(|(name, part)| ("n".to_owned(), key(name, part))).collect()
    }

    fn there(keys: &[(&str, &str)]) -> Read {
        Read::There(keys.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect())
    }

    fn named(name: &str) -> Name {
        ("n".to_owned(), name.to_owned())
    }

    #[test]
    fn what_is_wanted_is_read_and_kept_and_nothing_else() {
        let mut table = Table::default();
        assert!(table.want(wanted(&[("a", "x"), ("a", "y"), ("b", "x")]), Instant::now()));
        assert!(!table.want(wanted(&[("a", "x"), ("a", "y"), ("b", "x")]), Instant::now()));
        let now = Instant::now();
        assert_eq!(table.find("n", &key("a", "x")), Found::NotYet);
        assert!(table.take(&named("a"), there(&[("x", "1\n"), ("z", "not wanted")]), now));
        assert_eq!(table.find("n", &key("a", "x")), Found::Bytes(b"1".to_vec()));
        let missing = |table: &Table, name: &str, part: &str| match table.find("n", &key(name, part)) {
            Found::Missing(why) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(missing(&table, "a", "y"), "the Secret n/a has no key y");
        let State::There { keys, .. } = &table.secrets[&named("a")].state else { panic!() };
        assert_eq!(keys.len(), 1, "a Secret's other keys are nobody's business");
        let large = "1".repeat(900_000);
        assert!(table.take(&named("a"), there(&[("x", "1"), ("y", &large)]), now));
        assert_eq!(missing(&table, "a", "y"), "the key y of the Secret n/a has more than 65536 bytes");
        assert!(table.take(&named("a"), there(&[("x", "1")]), now));
        assert_eq!(table.next().unwrap().0, named("b"));
        assert!(table.take(&named("b"), Read::Unknown("forbidden".to_owned()), now));
        assert!(!table.take(&named("b"), Read::Unknown("forbidden".to_owned()), now), "said once");
        assert_eq!(missing(&table, "b", "x"), "the Secret n/b cannot be read: forbidden");
        assert_eq!(table.next().unwrap(), (named("b"), now + SOON), "sooner than what is known");
        // A key more: what was not kept has to be read.
        assert!(table.want(wanted(&[("a", "x"), ("a", "z")]), Instant::now()));
        assert_eq!((table.secrets.len(), table.find("n", &key("a", "z"))), (1, Found::NotYet));
        // A key less has been read.
        assert!(table.take(&named("a"), there(&[("x", "1"), ("z", "2")]), now));
        assert!(!table.want(wanted(&[("a", "z")]), Instant::now()));
        assert_eq!(table.find("n", &key("a", "z")), Found::Bytes(b"2".to_vec()));
    }

    #[test]
    fn what_was_read_stays_until_it_is_surely_gone() {
        let mut table = Table::default();
        table.want(wanted(&[("a", "x")]), Instant::now());
        let now = Instant::now();
        let found = |table: &Table| table.find("n", &key("a", "x"));
        table.take(&named("a"), there(&[("x", "1")]), now);
        assert!(!table.take(&named("a"), there(&[("x", "1")]), now));
        let version = |table: &Table| table.secrets[&named("a")].version;
        assert_eq!(version(&table), 1);
        assert!(table.take(&named("a"), there(&[("x", "2")]), now));
        assert_eq!((version(&table), found(&table)), (2, Found::Bytes(b"2".to_vec())));
        // An API server that is away, or refuses for a moment.
        assert!(!table.take(&named("a"), Read::Unknown("away".to_owned()), now));
        // Replaced by being deleted first.
        assert!(!table.take(&named("a"), Read::Gone, now));
        assert!(!table.take(&named("a"), there(&[("x", "2")]), now));
        assert!(!table.take(&named("a"), Read::Gone, now));
        assert_eq!(found(&table), Found::Bytes(b"2".to_vec()));
        assert!(table.take(&named("a"), Read::Gone, now));
        assert_eq!(found(&table), Found::Missing("the Secret n/a is not there".to_owned()));
        assert!(table.take(&named("a"), there(&[("x", "3")]), now));
        assert_eq!(found(&table), Found::Bytes(b"3".to_vec()));
    }

    /// Each is read when more are due than can be read, and those that are not there keep nobody from being read.
    #[test]
    fn each_has_its_turn() {
        #[track_caller]
        fn check(gone: usize, there: usize) {
            let mut table = Table::default();
            // Those that are not there are the first by name.
            let names: Vec<String> =
                (0..gone).map(|n| format!("a{n}")).chain((0..there).map(|n| format!("b{n}"))).collect();
            let start = Instant::now();
            table.want(names.iter().map(|name| ("n".to_owned(), key(name, "x"))).collect(), start);
            let (mut now, mut late) = (start, None);
            let mut reads: BTreeMap<Name, Vec<Duration>> = BTreeMap::new();
            // As long as three turns of all take, at least.
            let turn = APART * u32::try_from(names.len() + 1).unwrap() + AGAIN;
            while now < start + turn * 3 {
                let (name, due) = table.next().unwrap();
                now = now.max(due);
                let read = if name.1.starts_with('a') { Read::Gone } else { there_is() };
                table.take(&name, read, now);
                reads.entry(name).or_default().push(now - start);
                now += APART;
                // One that comes late does not wait for the others.
                if late.is_none() && now > start + turn {
                    let names = names.iter().map(String::as_str).chain(["late"]);
                    assert!(table.want(names.map(|name| ("n".to_owned(), key(name, "x"))).collect(), now));
                    late = Some(now - start);
                }
            }
            let waited = reads[&named("late")][0] - late.unwrap();
            assert!(waited <= APART, "{waited:?}");
            for (name, at) in &reads {
                let longest = at.windows(2).map(|two| two[1] - two[0]).max().unwrap_or(Duration::MAX);
                assert!(at.len() >= 2 && longest <= turn, "{name:?} of {gone} and {there}: {at:?}");
            }
            assert_eq!(reads.len(), names.len() + 1);
        }
        fn there_is() -> Read {
            there(&[("x", "1")])
        }
        for (gone, there) in [(1, 1), (101, 3), (0, 700), (600, 100), (1_000, 999), (MAX_SECRETS - 1, 0)] {
            check(gone, there);
        }
    }

    #[test]
    fn there_is_an_end() {
        let mut table = Table::default();
        let many: Vec<String> = (0..MAX_SECRETS + 5).map(|n| format!("s{n}")).collect();
        table.want(many.iter().map(|name| ("n".to_owned(), key(name, "x"))).collect(), Instant::now());
        assert_eq!(table.secrets.len(), MAX_SECRETS);
        let left = many.iter().filter(|name| matches!(table.find("n", &key(name, "x")), Found::Missing(_))).count();
        assert_eq!(left, 5);
        let now = Instant::now();
        let mut small = Table::default();
        small.want(wanted(&[("a", "x")]), Instant::now());
        small.take(&named("a"), Read::There([("x".to_owned(), vec![b'a'; MAX_SECRET + 1])].into()), now);
        assert!(matches!(small.find("n", &key("a", "x")), Found::Missing(_)));
    }
}
