//! From an offer to an answer and a peer connection that waits for the client's packets.
//!
//! Nothing here touches a socket: the addresses that clients may send to are configuration, so an answer can be made on
//! any thread and handed to the loop that will own the session. What is decided where: `choice`, which m-lines are taken
//! and with which codec; `transport`, who the client is to ICE and DTLS; `candidates`; and `description`, what core and
//! client are told of it.

mod candidates;
mod choice;
mod description;
mod factory;
mod transport;

use std::net::SocketAddr;
use std::time::Instant;

use rtc::peer_connection::RTCPeerConnection;
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::transport::RTCIceCandidateInit;
use rtc::shared::error::Error as CoreError;
use streamfleet_handler::{CodecName, TrackKind};
use streamfleet_rtp::keying::Keying;
use streamfleet_rtp::rtcp::RtcpInbox;
use streamfleet_session::candidate::RemoteCandidate;

pub(crate) use self::candidates::{LocalAddresses, MAX_REMOTE_CANDIDATES, add_remote};
pub use self::factory::{NoIdentity, PeerFactory};

use self::choice::Choice;
use self::factory::Connection;
use self::transport::Transport;
use super::sdp::{Description, InvalidOffer};

/// RFC 8445 5.3: what the client's checks must carry.
#[derive(Clone)]
pub(crate) struct IceCredentials {
    pub(crate) ufrag: String,
    pub(crate) pwd: String,
}

impl std::fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IceCredentials").field("ufrag", &self.ufrag).finish_non_exhaustive()
    }
}

/// What the handler of a session takes and gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wants {
    pub(crate) audio: bool,
    pub(crate) video: bool,
}

/// One m-line after negotiation.
#[derive(Clone, Debug)]
pub(crate) struct NegotiatedTrack {
    pub(crate) kind: TrackKind,
    pub(crate) mid: String,
    pub(crate) codec: CodecName,
    pub(crate) payload_type: u8,
    /// The SSRC that the worker sends with.
    pub(crate) ssrc: u32,
    /// The client sends.
    pub(crate) receives: bool,
    /// The client listens.
    pub(crate) sends: bool,
}

/// A peer connection with its answer applied; it has sent nothing yet.
pub(crate) struct Answered {
    pub(crate) pc: Box<RTCPeerConnection>,
    pub(crate) sdp: String,
    pub(crate) local: IceCredentials,
    pub(crate) remote: IceCredentials,
    pub(crate) keying: Keying,
    pub(crate) rtcp: RtcpInbox,
    pub(crate) tracks: Vec<NegotiatedTrack>,
    pub(crate) base: LocalAddresses,
    pub(crate) remote_candidates: usize,
}

/// Everything that an answer is made of.
pub(crate) struct AnswerRequest<'a> {
    pub(crate) offer: &'a str,
    pub(crate) credentials: IceCredentials,
    /// What clients are told to send to, best first: the UDP port is the owning loop's.
    pub(crate) advertised: &'a [SocketAddr],
    pub(crate) wants: Wants,
    /// Candidates that came before the offer.
    pub(crate) early: &'a [RemoteCandidate],
}

/// Answers an offer.
///
/// # Errors
/// The offer is malformed, has nothing that the handler could use, or could never connect.
pub(crate) fn answer(
    factory: &PeerFactory,
    request: AnswerRequest<'_>,
    now: Instant,
) -> Result<Answered, InvalidOffer> {
    let offer = Description::parse(request.offer)?;
    let choice = Choice::of(&offer, request.wants)?;
    let transport = Transport::of(&offer, &choice)?;

    let Connection { mut pc, keying, rtcp, tracks } =
        factory.connection(&request.credentials, &choice, now).map_err(unanswerable)?;
    let base = LocalAddresses::new(request.advertised);
    let theirs = description::for_core(&choice, &transport);
    let ours = negotiate(&mut pc, theirs, &base, now).map_err(unanswerable)?;
    let sdp = description::for_client(&ours, &choice, request.advertised)?;

    let mut remote_candidates = 0;
    for candidate in candidates::offered(&transport.candidates).iter().chain(request.early) {
        if remote_candidates < MAX_REMOTE_CANDIDATES && add_remote(&mut pc, &base, candidate) {
            remote_candidates += 1;
        }
    }
    Ok(Answered {
        sdp,
        pc: Box::new(pc),
        local: request.credentials,
        remote: transport.credentials,
        keying,
        rtcp,
        tracks,
        base,
        remote_candidates,
    })
}

/// The core's answer, applied.
fn negotiate(
    pc: &mut RTCPeerConnection,
    offer: String,
    base: &LocalAddresses,
    now: Instant,
) -> Result<String, CoreError> {
    pc.set_remote_description(now, RTCSessionDescription::offer(offer)?)?;
    for address in [base.v4, base.v6].into_iter().flatten() {
        let candidate = candidates::host_candidate(0, address);
        pc.add_local_candidate(RTCIceCandidateInit { candidate, ..Default::default() })?;
    }
    let answer = pc.create_answer(None)?;
    pc.set_local_description(now, answer)?;
    // Without a description now, the m-lines cannot be those that were taken.
    Ok(pc.local_description().map(|answer| answer.sdp).unwrap_or_default())
}

/// What the core says is for us: its words change with its release, and a client can do nothing about them.
fn unanswerable(error: CoreError) -> InvalidOffer {
    tracing::debug!(%error, "the WebRTC core refuses an offer");
    InvalidOffer::Unanswerable
}

#[cfg(test)]
mod tests;
