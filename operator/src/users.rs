//! The user that a service's workers log into the store as, where the installation has one for each.
//!
//! A store may forget its users: a Redis that begins anew has those of its configuration alone, and a replica was told of none. So they
//! are made again with each new connection, and now and then.

use std::time::{Duration, Instant};

use streamfleet_session::ServiceName;
use streamfleet_store::StoreError;
use tracing::field::Empty;
use tracing::info_span;

use crate::care::Care;
use crate::look::Seen;
use crate::operator::Operator;
use crate::reasons::Word;
use crate::status::Fault;
use crate::traces::part;

/// How long a user is believed to be there that nothing speaks against: one of a Cluster's nodes may have taken over from another, or
/// somebody have taken it away.
const BELIEVED: Duration = Duration::from_secs(60);

/// Where it could not be made, that is tried again after this.
const AGAIN: Duration = Duration::from_secs(5);

/// When a user was made, or could not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    /// By which connection to the store.
    connection: u64,
    at: Instant,
    /// One of its nodes has not answered.
    in_vain: bool,
}

impl Admitted {
    /// Whether nothing is to be done about it now.
    fn rests(&self, connection: u64, now: Instant) -> bool {
        let rest = if self.in_vain { AGAIN } else { BELIEVED };
        self.connection == connection && now.saturating_duration_since(self.at) < rest
    }
}

impl Operator {
    /// Sees to it that a service's workers can log in. What keeps them from it, but for a store that is away: that is told anyway.
    pub(crate) async fn admit(&self, service: &ServiceName, seen: &Seen, care: &mut Care) -> Option<Fault> {
        let users = self.users.as_ref()?;
        // Who makes it takes it away: not before there is a finalizer for that.
        let has_workers = seen.resource.is_finalized() || !seen.pods.is_empty();
        if !has_workers || !self.may_act() {
            return None;
        }
        // Before it is asked: what is made by the next connection is not believed of this one.
        let connection = users.connections();
        if care.admitted.is_some_and(|admitted| admitted.rests(connection, Instant::now())) {
            return None;
        }
        care.admitted = None;
        let password = self.installation.secret.store_password_of(service);
        match part(info_span!("user", outcome = Empty), users.admit(service, &password)).await {
            Ok(()) => {
                care.admitted = Some(Admitted { connection, at: Instant::now(), in_vain: false });
                None
            }
            Err(StoreError::Unavailable(why)) => {
                tracing::debug!(%service, why, "its user of the store is not made yet");
                care.admitted = Some(Admitted { connection, at: Instant::now(), in_vain: true });
                None
            }
            Err(error) => {
                let text = format!(
                    "no user of the store can be made for its workers, and without one they take no calls: {error}. \
                     redis.serviceUsers needs a login that may ACL SETUSER and ACL DELUSER"
                );
                Some(Fault::new(Word::StoreRefuses, text))
            }
        }
    }

    /// Nobody is left who logs in. A store that is away keeps no service from being deleted: who comes later finds a user without
    /// anybody, whose keys are gone a day later.
    pub(crate) async fn dismiss(&self, service: &ServiceName, care: &mut Care) {
        let Some(users) = self.users.as_ref().filter(|_| self.may_act()) else { return };
        care.admitted = None;
        if let Err(error) = part(info_span!("user", outcome = Empty), users.dismiss(service)).await {
            tracing::warn!(%service, %error, "its user of the store stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use async_trait::async_trait;
    use kube::client::Body;
    use parking_lot::Mutex;
    use serde_json::{Value, json};
    use streamfleet_store::Users;

    use super::*;
    use crate::doubles;
    use crate::names::FINALIZER;
    use crate::resource::Resource;

    /// What was asked of it, and what it answers.
    #[derive(Default)]
    struct Book {
        connections: AtomicU64,
        asked: Mutex<Vec<String>>,
        error: Mutex<Option<StoreError>>,
    }

    impl Book {
        fn answer(&self, asked: String) -> Result<(), StoreError> {
            self.asked.lock().push(asked);
            self.error.lock().clone().map_or(Ok(()), Err)
        }
    }

    #[async_trait]
    impl Users for Book {
        fn connections(&self) -> u64 {
            self.connections.load(Ordering::Relaxed)
        }

        async fn admit(&self, service: &ServiceName, password: &str) -> Result<(), StoreError> {
            self.answer(format!("{service} {password}"))
        }

        async fn dismiss(&self, service: &ServiceName) -> Result<(), StoreError> {
            self.answer(format!("-{service}"))
        }
    }

    #[test]
    fn how_long_a_user_is_believed_to_be_there() {
        let now = Instant::now();
        let check = |in_vain, connection, after, expected: bool| {
            let admitted = Admitted { connection: 2, at: now, in_vain };
            let rests = admitted.rests(connection, now + Duration::from_secs(after));
            assert_eq!(rests, expected, "{in_vain} {connection} {after}");
        };
        check(false, 2, 0, true);
        check(false, 2, 59, true);
        check(false, 2, 60, false);
        check(false, 3, 0, false);
        check(true, 2, 4, true);
        check(true, 2, 5, false);
        check(true, 3, 0, false);
    }

    #[tokio::test]
    async fn a_user_is_made_once_for_each_connection() {
        let server = tower::service_fn(|_: http::Request<Body>| async {
            Ok::<_, Infallible>(http::Response::builder().status(404).body(Body::empty()).unwrap())
        });
        let book = Arc::new(Book::default());
        let mut operator = doubles::operator(kube::Client::new(server, "voice"));
        let mut metadata = json!({ "namespace": "voice", "name": "s", "uid": "u", "generation": 1 });
        let spec = json!({ "handler": { "name": "echo" }, "limits": { "timeLimitSeconds": 60 } });
        let seen_as = |metadata: &Value| {
            let object = serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap();
            doubles::seen(Arc::new(Resource::of(&object).unwrap()))
        };
        let unfinalized = seen_as(&metadata);
        metadata["finalizers"] = json!([FINALIZER]);
        let seen = seen_as(&metadata);
        let service: ServiceName = "voice/s".parse().unwrap();
        let mut care = Care::default();
        assert_eq!(operator.admit(&service, &seen, &mut care).await, None);
        assert!(book.asked.lock().is_empty(), "services have no users here");

        operator.users = Some(book.clone());
        assert_eq!(operator.admit(&service, &unfinalized, &mut care).await, None);
        assert!(book.asked.lock().is_empty(), "nobody would take it away");
        let password = operator.installation.secret.store_password_of(&service);
        let made = format!("voice/s {password}");
        for _ in 0..3 {
            assert_eq!(operator.admit(&service, &seen, &mut care).await, None);
        }
        assert_eq!(*book.asked.lock(), [made.as_str()]);

        // It is another server, or the same without what it knew; at first it cannot be reached.
        book.connections.fetch_add(1, Ordering::Relaxed);
        *book.error.lock() = Some(StoreError::Unavailable("gone".to_owned()));
        for _ in 0..2 {
            assert_eq!(operator.admit(&service, &seen, &mut care).await, None);
        }
        assert_eq!(book.asked.lock().len(), 2, "it has a rest");
        book.connections.fetch_add(1, Ordering::Relaxed);
        *book.error.lock() = Some(StoreError::Refused("NOPERM no".to_owned()));
        let fault = operator.admit(&service, &seen, &mut care).await.unwrap();
        assert_eq!(fault.reason, Word::StoreRefuses.into());
        assert!(fault.message.contains("NOPERM no") && fault.message.contains("ACL SETUSER"), "{}", fault.message);
        *book.error.lock() = None;
        for _ in 0..2 {
            assert_eq!(operator.admit(&service, &seen, &mut care).await, None);
        }
        assert_eq!(book.asked.lock().len(), 4);

        operator.dismiss(&service, &mut care).await;
        assert_eq!(book.asked.lock().last().map(String::as_str), Some("-voice/s"));
        // It was not gone after all.
        operator.admit(&service, &seen, &mut care).await;
        assert_eq!(book.asked.lock().last(), Some(&made));
    }
}
