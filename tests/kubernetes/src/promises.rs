//! What docs/kubernetes.md promises, read from its tables: whoever changes a promise there changes what is judged here.

use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::programs::root;

/// What becomes of calls when something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promise {
    /// Of those by WebRTC.
    pub webrtc: WebRtc,
    /// Of those by WebSocket.
    pub sockets: Sockets,
}

/// What becomes of calls by WebRTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebRtc {
    /// They go on, and hear nothing of it.
    GoOn,
    /// They go on, and may miss what was on its way until the load balancer notices.
    Interrupted,
    /// Those of the worker are lost; others may miss what was on its way until the load balancer notices.
    Lost,
}

/// What becomes of calls by WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sockets {
    /// They go on, and hear nothing of it.
    GoOn,
    /// Likewise, unless their router is on the node that is drained: then they come back by their token.
    GoOnUnlessDrained,
    /// They end, and come back by their token.
    ComeBack,
}

/// The promise for when this happens. It must be in exactly one row's first cell.
///
/// # Errors
/// When there is none, or one that nobody here understands.
pub fn promise(when: &str) -> Result<Promise> {
    let docs = fs::read_to_string(root().join("docs/kubernetes.md"))?;
    let rows = docs.lines().filter_map(|line| line.strip_prefix('|')).map(|row| row.split('|').map(str::trim));
    let mut found = rows.filter_map(|mut cells| {
        let about = cells.next()?;
        about.contains(when).then(|| (cells.next().map(str::to_owned), cells.next().map(str::to_owned)))
    });
    let (webrtc, sockets) = found.next().with_context(|| format!("docs/kubernetes.md says nothing of {when:?}"))?;
    if found.next().is_some() {
        bail!("docs/kubernetes.md has several rows about {when:?}");
    }
    understand(&webrtc.context("no promise")?, &sockets.unwrap_or_default())
}

/// What the two cells of a row mean, or the one of a row that is about all calls.
fn understand(webrtc: &str, sockets: &str) -> Result<Promise> {
    let all = if webrtc.starts_with("nothing") || webrtc.contains("calls are finished within the grace") {
        WebRtc::GoOn
    } else if webrtc.starts_with("what was on its way until the load balancer notices") {
        WebRtc::Interrupted
    } else if webrtc.starts_with("its calls are lost") {
        WebRtc::Lost
    } else {
        bail!("another promise than there was: {webrtc}")
    };
    let comes_back = "with their token clients go on at another worker";
    let sockets = match sockets {
        "nothing" => Sockets::GoOn,
        "" if all == WebRtc::GoOn => Sockets::GoOn,
        "likewise" if webrtc.contains(comes_back) => Sockets::ComeBack,
        said if said.starts_with("end, and come back by their token") => Sockets::ComeBack,
        said if said.starts_with("those that are longer than `router.drain.graceSeconds`")
            && said.ends_with("come back by their token") =>
        {
            Sockets::ComeBack
        }
        said if said.starts_with("nothing; those through a router on a node that is drained") => {
            Sockets::GoOnUnlessDrained
        }
        said => bail!("another promise to WebSockets than there was: {said}"),
    };
    Ok(Promise { webrtc: all, sockets })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_promises_are_understood() {
        let (stays, go_on) = (WebRtc::GoOn, Sockets::GoOn);
        for (when, webrtc, sockets) in [
            ("a StreamService scales down", stays, Sockets::GoOnUnlessDrained),
            ("workers get another image", stays, Sockets::GoOnUnlessDrained),
            ("a node is drained", stays, Sockets::GoOnUnlessDrained),
            ("`kubectl delete pod`", stays, go_on),
            ("a worker or its node dies", WebRtc::Lost, Sockets::ComeBack),
            ("a router dies", WebRtc::Interrupted, Sockets::ComeBack),
            ("the operator is away", stays, go_on),
            ("the API server is away", stays, go_on),
            ("Redis is away", stays, go_on),
            ("a StreamService is deleted", stays, go_on),
            ("`helm upgrade` or `rollback`", stays, Sockets::ComeBack),
        ] {
            assert_eq!(promise(when).unwrap(), Promise { webrtc, sockets }, "{when}");
        }
        assert!(promise("the sky falls").is_err());
        for (webrtc, sockets) in [
            ("its calls may be lost", "nothing"),
            ("nothing", "most of them"),
            ("nothing", "those that are longer than `router.drain.graceSeconds` end"),
            ("its calls are lost", ""),
            ("its calls are lost", "likewise"),
        ] {
            assert!(understand(webrtc, sockets).is_err(), "{webrtc} | {sockets}");
        }
    }
}
