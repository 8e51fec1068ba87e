//! Joining a session: gather, offer, answer, candidates, connected.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio_util::task::TaskTracker;
use webrtc::peer_connection::{RTCPeerConnectionState, RTCSessionDescription};

use crate::error::{ClientError, Remedy};
use crate::ice;
use crate::options::{ClientOptions, Gathering, IceServer, IceServers, Media, Resume, Ways};
use crate::peer::{Candidates, Peer, Status};
use crate::retry::Backoff;
use crate::sdp::{self, Description, Target};
use crate::signal::Signaling;
use crate::stats::{SetupTimes, Stopwatch};

/// A session that was joined.
pub(crate) struct Joined {
    pub(crate) peer: Peer,
    pub(crate) stopwatch: Stopwatch,
    pub(crate) setup: SetupTimes,
    /// The token for the next time.
    pub(crate) resume: Option<Resume>,
}

/// How stubborn to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Persistence {
    /// A first call: an unreachable server or a broken answer is an error at once.
    First,
    /// Joining again: the server may be down for as long as another takes over.
    Again,
}

/// Makes a connection to the service and waits until media can flow.
pub(crate) async fn join(
    options: &ClientOptions,
    signaling: &Signaling,
    resume: Option<&Resume>,
    persistence: Persistence,
    tasks: &TaskTracker,
) -> Result<Joined, ClientError> {
    let stopwatch = Stopwatch::new(Instant::now());
    let mut setup = SetupTimes::default();
    let servers = ice_servers(options, signaling, Patience::new(options, persistence)).await?;
    let (mut peer, candidates) = Peer::build(options, servers, &resolve(options).await, tasks).await?;

    let offer = peer.connection().create_offer(None).await?;
    let bare = offer.sdp.clone();
    peer.connection().set_local_description(offer).await?;
    let sdp = match options.gathering {
        Gathering::Trickle => bare.clone(),
        Gathering::Complete { deadline } => complete_offer(&peer, options.ways, deadline).await?,
    };
    setup.gathered = stopwatch.at(Instant::now());

    let mut patience = Patience::new(options, persistence);
    let limit = match persistence {
        Persistence::First => options.timeouts.answer,
        // By a connection that may lead to whoever has died.
        Persistence::Again => options.timeouts.request,
    };
    let answer = loop {
        match signaling.offer(&sdp, resume, limit).await {
            Ok(answer) => break answer,
            Err(error) => patience.wait(error).await?,
        }
    };
    setup.answered = stopwatch.at(Instant::now());
    let description = Description::parse(&answer.sdp)?;
    peer.negotiate(&description);
    if options.media != Media::None && peer.audio_codec().is_none() {
        return Err(ClientError::NoMedia);
    }
    peer.accept(RTCSessionDescription::answer(answer.sdp)?).await?;
    if options.gathering == Gathering::Trickle {
        let ufrag = bare.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).map(str::to_owned);
        let trickle =
            trickle(signaling.clone(), description.candidate_targets(), ufrag, candidates, peer.status.clone());
        let closed = peer.closed().clone();
        tasks.spawn(async move { closed.run_until_cancelled_owned(trickle).await });
    }

    let status = connected(&mut peer, options.timeouts.connect).await?;
    setup.ice = status.ice_at.map(|at| stopwatch.at(at));
    setup.connected = status.connected_at.map(|at| stopwatch.at(at));
    Ok(Joined { peer, stopwatch, setup, resume: answer.resume })
}

/// The addresses of the server, to see whether it is on this machine. Not knowing them is no error here: the request
/// that follows tells it better.
async fn resolve(options: &ClientOptions) -> Vec<IpAddr> {
    let (host, port) = options.url.authority();
    let found = tokio::time::timeout(options.timeouts.request, tokio::net::lookup_host((host, port))).await;
    found.ok().and_then(Result::ok).into_iter().flatten().map(|address| address.ip()).collect()
}

/// The offer with all its candidates, or with those that are known at the deadline.
async fn complete_offer(peer: &Peer, ways: Ways, deadline: Duration) -> Result<String, ClientError> {
    let mut status = peer.status.clone();
    // The driver lives as long as the peer, so the watch cannot close; a deadline that passes is no error.
    let _ = tokio::time::timeout(deadline, status.wait_for(|status| status.gathered)).await;
    let sdp = peer.connection().local_description().await.map(|description| description.sdp).unwrap_or_default();
    let sdp = sdp::without_rtcp_candidates(&sdp);
    match ways {
        _ if sdp::candidates(&sdp) > 0 => Ok(sdp),
        Ways::Any => Err(ClientError::NoAddress),
        Ways::Relayed => Err(ClientError::NoRelay),
    }
}

/// The STUN and TURN servers of a connection.
async fn ice_servers(
    options: &ClientOptions,
    signaling: &Signaling,
    mut patience: Patience,
) -> Result<Vec<IceServer>, ClientError> {
    let servers = match &options.ice_servers {
        IceServers::Given(servers) => ice::usable(servers),
        IceServers::Told => loop {
            match signaling.ice_servers().await {
                Ok(told) => break ice::usable(&told),
                Err(error) => patience.wait(error).await?,
            }
        },
    };
    let has_turn = servers.iter().flat_map(|server| &server.urls).any(|url| url.starts_with("turn:"));
    if options.ways == Ways::Relayed && !has_turn { Err(ClientError::NoTurn) } else { Ok(servers) }
}

/// How long a service is asked again and again, while its refusal is of a kind that passes.
struct Patience {
    began: Instant,
    backoff: Backoff,
    persistence: Persistence,
}

impl Patience {
    fn new(options: &ClientOptions, persistence: Persistence) -> Self {
        let limit = match persistence {
            Persistence::First => options.timeouts.admission,
            Persistence::Again => options.timeouts.rejoin,
        };
        Self { began: Instant::now(), backoff: Backoff::new(limit), persistence }
    }

    /// Waits until it is worth asking again; gives the error back where it is not.
    async fn wait(&mut self, error: ClientError) -> Result<(), ClientError> {
        let asked = match (&error, self.persistence) {
            (ClientError::Refused(refusal), _) if refusal.remedy() == Remedy::Wait => refusal.retry_after,
            (ClientError::Unreachable { .. } | ClientError::NotAnAnswer { .. }, Persistence::Again) => None,
            _ => return Err(error),
        };
        let pause = self.backoff.pause(self.began.elapsed(), asked, rand::random());
        let Some(pause) = pause else { return Err(error) };
        tracing::debug!(%error, ?pause, "the service is asked again");
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// Posts candidates as they are found, then their end. They wait for the answer, because servers that keep no early
/// candidates refuse those that overtake their offer.
async fn trickle(
    signaling: Signaling,
    targets: Vec<Target>,
    ufrag: Option<String>,
    mut candidates: Candidates,
    mut status: tokio::sync::watch::Receiver<Status>,
) {
    loop {
        let line = tokio::select! {
            biased;
            line = candidates.recv() => line,
            _ = status.wait_for(|status| status.gathered) => None,
        };
        let line = line.unwrap_or_default();
        for target in &targets {
            // One lost candidate is not the call: another may connect it, and if none does, that is reported.
            if let Err(error) = signaling.candidate(&line, target, ufrag.as_deref()).await {
                tracing::debug!(%error, "a candidate was not taken");
            }
        }
        if line.is_empty() {
            return;
        }
    }
}

async fn connected(peer: &mut Peer, deadline: Duration) -> Result<Status, ClientError> {
    let done = |status: &Status| {
        matches!(
            status.peer,
            RTCPeerConnectionState::Connected | RTCPeerConnectionState::Failed | RTCPeerConnectionState::Closed
        )
    };
    let start = Instant::now();
    let waited =
        tokio::time::timeout(deadline, peer.status.wait_for(done)).await.map(|found| found.map(|status| *status));
    if let Ok(Ok(status)) = waited
        && status.peer == RTCPeerConnectionState::Connected
    {
        return Ok(status);
    }
    let status = *peer.status.borrow();
    let state = format!("ICE {}, connection {}", status.ice, status.peer);
    Err(ClientError::NotConnected { after: start.elapsed(), state })
}
