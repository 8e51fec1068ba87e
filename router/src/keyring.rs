//! The keys that verify a service's tokens: read once, or fetched from their issuer when they are due.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use streamfleet_identity::{KeyCache, Keys, MAX_DOCUMENT, MIN_SECRET_BYTES, Need, key_id};
use streamfleet_service::Service;
use streamfleet_service::secrets::MIN_TOKEN_SECRET;
use streamfleet_service::service::KeySource;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::secret::{NoSecret, Secrets};
use crate::web;

/// For an issuer to answer: a caller whose token names a new key waits for it.
const FETCH_TIME: Duration = Duration::from_secs(3);

/// Where the keys are.
#[derive(Debug, Clone)]
pub struct Keyring(Arc<Source>);

#[derive(Debug)]
enum Source {
    Fixed(Option<Keys>),
    Issuer { url: String, cache: Mutex<KeyCache>, turn: Semaphore, http: reqwest::Client, tasks: TaskTracker },
}

/// Why keys cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum NoKeyring {
    /// The key or secret is none.
    #[error(transparent)]
    Keys(#[from] streamfleet_identity::InvalidKeys),
    /// The secret cannot be had.
    #[error(transparent)]
    Secret(#[from] NoSecret),
}

impl Keyring {
    /// The keys that a service names; none for one that takes no tokens.
    ///
    /// # Errors
    /// [`NoKeyring`].
    pub fn new(
        service: &Service,
        secrets: &Secrets,
        http: &reqwest::Client,
        tasks: &TaskTracker,
    ) -> Result<Self, NoKeyring> {
        match source(service) {
            Some(KeySource::Jwks(url)) => Ok(Self::of_issuer(url, http, tasks)),
            _ => Ok(Self(Arc::new(Source::Fixed(given(service, secrets)?)))),
        }
    }

    /// The keys that an issuer has at this URL.
    #[must_use]
    pub fn of_issuer(url: &str, http: &reqwest::Client, tasks: &TaskTracker) -> Self {
        Self(Arc::new(Source::Issuer {
            url: url.to_owned(),
            cache: Mutex::default(),
            turn: Semaphore::new(1),
            http: http.clone(),
            tasks: tasks.clone(),
        }))
    }

    /// Whether the keys that a service of a file names can be used, as far as nobody has to be asked.
    ///
    /// # Errors
    /// [`NoKeyring`].
    pub fn check(service: &Service) -> Result<(), NoKeyring> {
        given(service, &Secrets::local()).map(drop)
    }

    /// Keys for a token, fetched first if that is due. `None` if none can be had.
    pub async fn keys_for(&self, token: &str) -> Option<Keys> {
        let cache = match &*self.0 {
            Source::Fixed(keys) => return keys.clone(),
            Source::Issuer { cache, .. } => cache,
        };
        // What is no token is refused with any key, and costs its issuer nothing.
        let id = key_id(token).ok()?;
        let need = cache.lock().need(Instant::now(), id.as_deref());
        match need {
            Need::Nothing => {
                let (keys, knows) = {
                    let cache = cache.lock();
                    (cache.keys().cloned(), cache.keys().is_some_and(|keys| keys.knows(id.as_deref())))
                };
                if knows {
                    return keys;
                }
                // Somebody else may be fetching them now.
                self.wait().await;
                cache.lock().keys().cloned()
            }
            Need::Refresh => {
                let (this, now) = (self.clone(), cache.lock().keys().cloned());
                if let Source::Issuer { tasks, .. } = &*self.0 {
                    tasks.spawn(async move { this.fetch().await });
                }
                now
            }
            Need::Fetch => {
                self.fetch().await;
                cache.lock().keys().cloned()
            }
        }
    }

    async fn wait(&self) {
        if let Source::Issuer { turn, .. } = &*self.0 {
            let _ = timeout(FETCH_TIME, turn.acquire()).await;
        }
    }

    async fn fetch(&self) {
        let Source::Issuer { url, cache, turn, http, .. } = &*self.0 else { return };
        let Ok(_turn) = turn.acquire().await else { return };
        match timeout(FETCH_TIME, download(http, url)).await {
            Ok(Ok(keys)) => cache.lock().fetched(Instant::now(), keys),
            Ok(Err(error)) => tracing::warn!(url, error, "the issuer's keys cannot be had"),
            Err(_) => tracing::warn!(url, "the issuer does not answer"),
        }
    }
}

fn source(service: &Service) -> Option<&KeySource> {
    service.identity.tokens.as_ref().map(|tokens| &tokens.keys)
}

/// Keys that are there already; `None` for those of an issuer, and of nobody.
fn given(service: &Service, secrets: &Secrets) -> Result<Option<Keys>, NoKeyring> {
    match source(service) {
        None | Some(KeySource::Jwks(_)) => Ok(None),
        Some(KeySource::Pem(pem)) => Ok(Some(Keys::from_pem(pem.as_bytes())?)),
        Some(KeySource::Secret(source)) => {
            let namespace = service.name.namespace().unwrap_or_default();
            Ok(Some(Keys::from_secret(&secrets.read(namespace, source)?)?))
        }
    }
}

/// The operator tells of what this takes.
const _: () = assert!(MIN_SECRET_BYTES == MIN_TOKEN_SECRET);

async fn download(http: &reqwest::Client, url: &str) -> Result<Keys, Box<dyn std::error::Error + Send + Sync>> {
    web::check(url)?;
    let mut response = http.get(url).send().await?.error_for_status()?;
    let mut document = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if document.len() + chunk.len() > MAX_DOCUMENT {
            return Err(streamfleet_identity::InvalidKeys::TooLarge.into());
        }
        document.extend_from_slice(&chunk);
    }
    Ok(Keys::from_jwks(&document)?)
}
