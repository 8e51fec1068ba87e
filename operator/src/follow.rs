//! A watch that goes on, whatever becomes of the API server.

use std::fmt::Debug;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use kube::api::{Api, Resource};
use kube::runtime::watcher::{self, Event};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep_until};

/// After how long the API server ends a watch, in seconds; it is begun again where it was. One that ends later than that has not been
/// ended by anybody: its connection leads nowhere.
const ENDS: u32 = 30;
/// The first pause after a failure, and the longest. kube's own grow to half a minute and more, which is how late the operator would
/// be when the API server is back.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(8);

/// The objects of one kind, as they are told of.
pub struct Follow<K: 'static> {
    stream: BoxStream<'static, watcher::Result<Event<K>>>,
    failures: u32,
    /// Until then nobody is asked.
    rests: Option<Instant>,
}

impl<K: Resource + Clone + DeserializeOwned + Debug + Send + 'static> Follow<K> {
    /// Nothing is asked before the first [`next`](Self::next).
    #[must_use]
    pub fn new(api: Api<K>, config: watcher::Config) -> Self {
        Self { stream: watcher::watcher(api, config.timeout(ENDS)).boxed(), failures: 0, rests: None }
    }
}

impl<K> Follow<K> {
    /// What is told next, or why nothing is; then it is asked again later. May be dropped at any time.
    ///
    /// # Errors
    /// The API server does not answer, or does not tell.
    pub async fn next(&mut self) -> watcher::Result<Event<K>> {
        if let Some(until) = self.rests {
            sleep_until(until).await;
            self.rests = None;
        }
        // It has no end.
        let Some(told) = self.stream.next().await else { return std::future::pending().await };
        match &told {
            // The beginning of a list is said before anybody is asked.
            Ok(Event::Init | Event::InitApply(_)) => {}
            Ok(_) => self.failures = 0,
            Err(_) => {
                self.rests = Some(Instant::now() + pause(self.failures, rand::random()));
                self.failures = self.failures.saturating_add(1);
            }
        }
        told
    }
}

/// How long to wait after the nth failure: twice as long each time, and less than that by chance, so that watches do not ask together.
fn pause(failures: u32, chance: f32) -> Duration {
    let longest = PAUSE.saturating_mul(1 << failures.min(8)).min(LONGEST);
    longest.mul_f32(0.5 + chance / 2.0)
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    fn follow(told: Vec<watcher::Result<Event<u8>>>) -> Follow<u8> {
        Follow { stream: stream::iter(told).boxed(), failures: 0, rests: None }
    }

    #[test]
    fn pauses_grow_and_have_an_end() {
        let millis = |failures| pause(failures, 1.0).as_millis();
        assert_eq!((0..7).map(millis).collect::<Vec<_>>(), [250, 500, 1_000, 2_000, 4_000, 8_000, 8_000]);
        assert_eq!(pause(u32::MAX, 0.0).as_secs(), 4);
    }

    /// A watch that begins its list says so before it has asked: that is no success, and is not hurried by.
    #[tokio::test(start_paused = true)]
    async fn who_fails_rests_until_something_is_heard() {
        let failure = || Err(watcher::Error::NoResourceVersion);
        let told =
            (0..6).flat_map(|_| [Ok(Event::Init), failure()]).chain([Ok(Event::InitDone), failure(), Ok(Event::Init)]);
        let mut follow = follow(told.collect());
        let begun = Instant::now();
        while !matches!(follow.next().await, Ok(Event::InitDone)) {}
        let passed = begun.elapsed();
        assert!(passed >= Duration::from_millis(7_875) && passed <= Duration::from_millis(15_760), "{passed:?}");
        let begun = Instant::now();
        assert!(follow.next().await.is_err());
        assert!(follow.next().await.is_ok());
        assert!(begun.elapsed() <= Duration::from_millis(251), "the next failure is the first one again");
    }
}
