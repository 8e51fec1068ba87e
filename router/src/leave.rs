//! What ends while a router leaves: it waits for its conversations and for media, but not for a part that is gone.

use std::future::{Future, pending};
use std::time::Instant;

use streamfleet_process::tasks::Subsystems;
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;

/// The part that takes requests.
pub(crate) const HTTP: &str = "http";
/// The part that passes media on.
pub(crate) const RELAY: &str = "relay";

/// What of a router that leaves has ended.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    http: CancellationToken,
    relay: CancellationToken,
}

impl Ended {
    /// Looks at how parts end, for as long as it is polled. Nothing but the end of requests is expected: of all else is told at once.
    pub(crate) async fn follow(&self, subsystems: &mut Subsystems) {
        while let Some(exit) = subsystems.next_exit().await {
            if exit.name != HTTP || !exit.is_clean() {
                tracing::warn!(%exit, "a part has ended before the router has left");
            }
            match exit.name {
                HTTP => self.http.cancel(),
                RELAY => self.relay.cancel(),
                _ => {}
            }
        }
        pending().await
    }

    /// Waits until no request is under way any more.
    pub(crate) async fn http(&self) {
        self.http.cancelled().await;
    }

    /// Waits until media has gone elsewhere, at most until `deadline`: without a relay nobody passes on what comes.
    pub(crate) async fn media(&self, has_gone: impl Future<Output = ()>, deadline: Instant) {
        tokio::select! {
            gone = timeout_at(deadline.into(), has_gone) => if gone.is_err() {
                tracing::warn!("clients still send media here: nothing before this router has taken them elsewhere");
            },
            () = self.relay.cancelled() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::time::Duration;

    use parking_lot::Mutex;
    use tokio::time::sleep;

    use super::*;

    /// The log of this thread.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// How long a router stays whose requests are done after 2 s, while `part` ends after one, and what it says.
    async fn leaves(
        part: &'static str,
        ending: Result<(), &'static str>,
        media: impl Future<Output = ()>,
    ) -> (u64, String) {
        let page = Page::default();
        let writer = page.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        // With one subscriber alone a line that another thread reaches first would be taken for one that nobody wants, for good.
        drop(tracing::subscriber::set_global_default(tracing_subscriber::registry()));
        let _guard = tracing::subscriber::set_default(subscriber);
        let (begun, ended) = (tokio::time::Instant::now(), Ended::default());
        let mut subsystems = Subsystems::new();
        let after = |seconds, ending| async move {
            sleep(Duration::from_secs(seconds)).await;
            ending
        };
        subsystems.spawn(part, after(1, ending));
        subsystems.spawn(HTTP, after(2, Ok(())));
        let left = async {
            ended.http().await;
            let said = String::from_utf8(page.0.lock().clone()).unwrap();
            ended.media(media, begun.into_std() + Duration::from_secs(9)).await;
            said
        };
        let said = tokio::select! {
            said = left => said,
            () = ended.follow(&mut subsystems) => unreachable!("it follows until it is dropped"),
        };
        (begun.elapsed().as_secs(), said)
    }

    #[tokio::test(start_paused = true)]
    async fn what_ends_is_told_at_once_and_nobody_waits_for_it() {
        let (stays, said) = leaves(RELAY, Err("no socket"), pending()).await;
        assert_eq!(stays, 2, "no media comes any more");
        assert!(said.contains("relay failed: no socket"), "{said}");
        let (stays, said) = leaves("addresses", Ok(()), pending()).await;
        assert_eq!(stays, 9, "to the deadline");
        assert!(said.contains("addresses finished") && !said.contains("http"), "{said}");
        let (stays, _) = leaves("addresses", Ok(()), sleep(Duration::from_secs(4))).await;
        assert_eq!(stays, 4, "until none comes");
    }
}
