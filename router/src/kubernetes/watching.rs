//! A watch that goes on, whatever becomes of the API server.

use std::fmt::Debug;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep_until};

use super::contact::Line;

/// After how long the API server ends a watch, in seconds; it is begun again where it was. A connection that leads nowhere is found out
/// when the next request on it is not answered.
const ENDS: u32 = 25;
/// The first pause after a failure, and the longest.
const PAUSE: Duration = Duration::from_millis(500);
pub(super) const LONGEST: Duration = Duration::from_secs(10);
/// So many refusals in a row are meant: an API server that begins refuses what it will allow a moment later.
const MEANT: u32 = 4;

/// What is watched must not be read, or is no more: what the API server says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) String);

/// The objects of one kind that a selector has, as they are told of.
pub(crate) struct Watch<K: 'static> {
    stream: BoxStream<'static, watcher::Result<Event<K>>>,
    line: Line,
    failures: u32,
    refusals: u32,
    /// Until then nobody is asked.
    rests: Option<Instant>,
}

impl<K: Resource + Clone + DeserializeOwned + Debug + Send + 'static> Watch<K> {
    pub(crate) fn new(api: Api<K>, config: watcher::Config, line: Line) -> Self {
        let stream = watcher::watcher(api, config.timeout(ENDS)).boxed();
        Self { stream, line, failures: 0, refusals: 0, rests: None }
    }

    /// What is told next. Failures are noted, and asked past; may be dropped at any time.
    pub(crate) async fn next(&mut self) -> Event<K> {
        loop {
            if let Ok(event) = self.heard().await {
                return event;
            }
        }
    }

    /// Likewise; a refusal that is meant is an answer, too, each time. The next call asks again.
    pub(crate) async fn heard(&mut self) -> Result<Event<K>, Refused> {
        loop {
            if let Some(until) = self.rests {
                sleep_until(until).await;
                self.rests = None;
            }
            match self.stream.next().await {
                Some(Ok(event)) => {
                    // The beginning of a list is said before anybody is asked.
                    if matches!(event, Event::InitDone | Event::Apply(_) | Event::Delete(_)) {
                        (self.failures, self.refusals) = (0, 0);
                        self.line.heard();
                    }
                    return Ok(event);
                }
                Some(Err(error)) => {
                    let refused = refused(&error);
                    self.refusals = if refused.is_some() { self.refusals.saturating_add(1) } else { 0 };
                    let refused = refused.filter(|_| self.refusals >= MEANT);
                    if let Some(Refused(why)) = refused.as_ref().filter(|_| self.refusals == MEANT) {
                        tracing::warn!(why, "the API server refuses what is watched");
                    }
                    match refused {
                        Some(_) => self.line.refused(),
                        None => self.line.failed(std::time::Instant::now()),
                    }
                    tracing::debug!(%error, kind = %std::any::type_name::<K>(), "a watch failed");
                    self.rests = Some(Instant::now() + pause(self.failures, rand::random()));
                    self.failures = self.failures.saturating_add(1);
                    if let Some(refused) = refused {
                        return Err(refused);
                    }
                }
                // It has no end.
                None => std::future::pending().await,
            }
        }
    }
}

/// What an API server says that answers and does not let this be read: the right is gone, or what it is about; or what it says of it cannot be
/// read here.
fn refused(error: &watcher::Error) -> Option<Refused> {
    use watcher::Error::{InitialListFailed, WatchError, WatchFailed, WatchStartFailed};
    let status = match error {
        InitialListFailed(kube::Error::Api(status))
        | WatchStartFailed(kube::Error::Api(status))
        | WatchFailed(kube::Error::Api(status))
        | WatchError(status) => status,
        InitialListFailed(error @ kube::Error::SerdeError(_)) => return Some(Refused(error.to_string())),
        _ => return None,
    };
    matches!(status.code, 403 | 404).then(|| Refused(status.message.clone()))
}

/// How long to wait after the nth failure: twice as long each time, and less than that by chance, so that routers do not ask together.
fn pause(failures: u32, chance: f32) -> Duration {
    let longest = PAUSE.saturating_mul(1 << failures.min(8)).min(LONGEST);
    longest.mul_f32(0.5 + chance / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_have_an_end() {
        let millis = |failures, chance| pause(failures, chance).as_millis();
        assert_eq!([millis(0, 0.0), millis(0, 1.0), millis(1, 1.0), millis(3, 0.0)], [250, 500, 1_000, 2_000]);
        assert_eq!([millis(5, 1.0), millis(u32::MAX, 1.0), millis(u32::MAX, 0.0)], [10_000, 10_000, 5_000]);
    }

    /// One namespace whose list could not be read kept a router that had begun from being ready, and all others from being served.
    #[test]
    fn what_cannot_be_read_is_not_waited_for() {
        let unread = || kube::Error::SerdeError(serde_json::from_str::<u8>("{").unwrap_err());
        assert!(refused(&watcher::Error::InitialListFailed(unread())).is_some());
        assert_eq!(refused(&watcher::Error::WatchFailed(unread())), None, "the next word may be one");
        let refusal = |code| {
            let status = kube::core::Status { code, ..kube::core::Status::default() };
            refused(&watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)))).is_some()
        };
        assert_eq!([401, 403, 404, 410, 500, 503].map(refusal), [false, true, true, false, false, false]);
    }
}
