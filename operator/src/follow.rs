//! A watch that goes on, whatever becomes of the API server.

use std::fmt::Debug;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use kube::api::{Api, Resource};
use kube::runtime::watcher::{self, Event};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep_until, timeout};

use crate::program::{CONNECT, SILENCE};

/// After how long the API server ends a watch, in seconds; it is begun again where it was. One that ends later than that has not been
/// ended by anybody: its connection leads nowhere.
const ENDS: u32 = 30;
/// The first pause after a failure, and the longest. kube's own grow to half a minute and more, which is how late the operator would
/// be when the API server is back.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(8);
/// Whoever is asked and does not refuse within this has begun to tell: longer than a connection may take to be made, and to say
/// nothing. That a watch has begun again is told by nothing else, where nothing happens.
const BEGUN: Duration = CONNECT.saturating_add(SILENCE).saturating_add(Duration::from_secs(5));

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
    /// What is told next, or why nothing is; then it is asked again later. `None`: there is nothing to tell, and whoever did not tell
    /// before would. May be dropped at any time.
    ///
    /// # Errors
    /// The API server does not answer, or does not tell.
    pub async fn next(&mut self) -> watcher::Result<Option<Event<K>>> {
        if let Some(until) = self.rests {
            sleep_until(until).await;
            self.rests = None;
        }
        let told = if self.failures == 0 {
            self.stream.next().await
        } else if let Ok(told) = timeout(BEGUN, self.stream.next()).await {
            told
        } else {
            self.failures = 0;
            return Ok(None);
        };
        // It has no end.
        let Some(told) = told else { return std::future::pending().await };
        match &told {
            // The beginning of a list is said before anybody is asked.
            Ok(Event::Init | Event::InitApply(_)) => {}
            Ok(_) => self.failures = 0,
            Err(_) => {
                self.rests = Some(Instant::now() + pause(self.failures, rand::random()));
                self.failures = self.failures.saturating_add(1);
            }
        }
        told.map(Some)
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
        while !matches!(follow.next().await, Ok(Some(Event::InitDone))) {}
        let passed = begun.elapsed();
        assert!(passed >= Duration::from_millis(7_875) && passed <= Duration::from_millis(15_760), "{passed:?}");
        let begun = Instant::now();
        assert!(follow.next().await.is_err());
        assert!(follow.next().await.is_ok());
        assert!(begun.elapsed() <= Duration::from_millis(251), "the next failure is the first one again");
    }

    /// A watch that begins again where it was says nothing before something happens: it was taken for one that is refused still.
    #[tokio::test(start_paused = true)]
    async fn who_does_not_refuse_any_more_is_told_of() {
        let failure = || Err(watcher::Error::NoResourceVersion);
        let told = stream::iter([failure(), failure()]).chain(stream::pending());
        let mut follow = Follow::<u8> { stream: told.boxed(), failures: 0, rests: None };
        assert!(follow.next().await.is_err() && follow.next().await.is_err());
        let begun = Instant::now();
        assert!(matches!(follow.next().await, Ok(None)));
        assert!(begun.elapsed() >= BEGUN && begun.elapsed() <= BEGUN + LONGEST, "{:?}", begun.elapsed());
        assert_eq!(follow.failures, 0);
        assert!(timeout(Duration::from_secs(3_600), follow.next()).await.is_err(), "once");
    }
}
