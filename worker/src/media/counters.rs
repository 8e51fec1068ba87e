//! What a loop counts. Written by the loop, read by the metrics endpoint: relaxed atomics, nothing is ordered by them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use streamfleet_rtp::srtp::Refused;

/// Why something was dropped. A closed set: it is a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Drop {
    /// Not STUN, DTLS, RTP or RTCP.
    NotMedia,
    /// Names no session, or comes from an address of none.
    UnknownPeer,
    /// From a relay, and not sealed for the session that it names, or for none.
    NotRelayed,
    /// STUN that is malformed.
    StunMalformed,
    /// STUN without valid MESSAGE-INTEGRITY.
    StunIntegrity,
    /// STUN that is neither a request nor an answer to one of ours.
    StunUnasked,
    /// DTLS that no client sends, or more of a handshake than one has.
    DtlsRefused,
    /// What would have been more than three times what an unproven address sent.
    Unaffordable,
    /// RTP before there were keys.
    EarlyRtp,
    /// RTP that is malformed.
    RtpMalformed,
    /// RTP with a wrong tag.
    RtpAuth,
    /// RTP that was received before.
    RtpReplay,
    /// RTP from more sources than a client may have.
    RtpSources,
    /// RTP with a payload type that was not negotiated.
    UnknownPayloadType,
    /// RTP of a track that the handler has no use for.
    UnwantedTrack,
    /// Packets of a handler that could not be sent.
    HandlerPackets,
    /// Messages that a handler did not take in time.
    HandlerMessages,
    /// Messages that a client did not take, or has no channel for.
    ClientMessages,
    /// Audio that a slow handler did not take in time.
    HandlerAudio,
}

impl Drop {
    /// Every reason, for the metrics endpoint.
    pub const ALL: [Drop; 19] = [
        Drop::NotMedia,
        Drop::UnknownPeer,
        Drop::NotRelayed,
        Drop::StunMalformed,
        Drop::StunIntegrity,
        Drop::StunUnasked,
        Drop::DtlsRefused,
        Drop::Unaffordable,
        Drop::EarlyRtp,
        Drop::RtpMalformed,
        Drop::RtpAuth,
        Drop::RtpReplay,
        Drop::RtpSources,
        Drop::UnknownPayloadType,
        Drop::UnwantedTrack,
        Drop::HandlerPackets,
        Drop::HandlerMessages,
        Drop::ClientMessages,
        Drop::HandlerAudio,
    ];

    /// The metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Drop::NotMedia => "not_media",
            Drop::UnknownPeer => "unknown_peer",
            Drop::NotRelayed => "not_relayed",
            Drop::StunMalformed => "stun_malformed",
            Drop::StunIntegrity => "stun_integrity",
            Drop::StunUnasked => "stun_unasked",
            Drop::DtlsRefused => "dtls_refused",
            Drop::Unaffordable => "unaffordable",
            Drop::EarlyRtp => "early_rtp",
            Drop::RtpMalformed => "rtp_malformed",
            Drop::RtpAuth => "rtp_auth",
            Drop::RtpReplay => "rtp_replay",
            Drop::RtpSources => "rtp_sources",
            Drop::UnknownPayloadType => "unknown_payload_type",
            Drop::UnwantedTrack => "unwanted_track",
            Drop::HandlerPackets => "handler_packets",
            Drop::HandlerMessages => "handler_messages",
            Drop::ClientMessages => "client_messages",
            Drop::HandlerAudio => "handler_audio",
        }
    }
}

impl From<Refused> for Drop {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Malformed => Drop::RtpMalformed,
            Refused::Replay => Drop::RtpReplay,
            Refused::Forged => Drop::RtpAuth,
            Refused::TooManySources => Drop::RtpSources,
        }
    }
}

/// The counters of one loop.
#[derive(Debug, Default)]
pub struct Counters {
    drops: [AtomicU64; Drop::ALL.len()],
    packets_in: AtomicU64,
    octets_in: AtomicU64,
    packets_out: AtomicU64,
    send_dropped: AtomicU64,
    messages: AtomicU64,
    moved: AtomicU64,
    sessions: AtomicU64,
    wakes: AtomicU64,
}

/// A reading of [`Counters`].
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is named as its metric")]
pub struct Reading {
    pub packets_in: u64,
    pub octets_in: u64,
    pub packets_out: u64,
    pub send_dropped: u64,
    pub messages: u64,
    pub moved: u64,
    pub sessions: u64,
    pub wakes: u64,
}

impl Counters {
    pub(crate) fn dropped(&self, reason: Drop) {
        self.drops[reason as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn dropped_many(&self, reason: Drop, n: u64) {
        if n > 0 {
            self.drops[reason as usize].fetch_add(n, Relaxed);
        }
    }

    pub(crate) fn received(&self, octets: usize) {
        self.packets_in.fetch_add(1, Relaxed);
        self.octets_in.fetch_add(octets as u64, Relaxed);
    }

    pub(crate) fn report(&self, report: streamfleet_net::SendReport) {
        self.packets_out.fetch_add(report.sent.into(), Relaxed);
        self.send_dropped.fetch_add(report.dropped.into(), Relaxed);
    }

    pub(crate) fn message(&self) {
        self.messages.fetch_add(1, Relaxed);
    }

    pub(crate) fn moved(&self) {
        self.moved.fetch_add(1, Relaxed);
    }

    pub(crate) fn woke(&self) {
        self.wakes.fetch_add(1, Relaxed);
    }

    pub(crate) fn set_sessions(&self, n: usize) {
        self.sessions.store(n as u64, Relaxed);
    }

    /// How often something was dropped for this reason.
    pub fn drops(&self, reason: Drop) -> u64 {
        self.drops[reason as usize].load(Relaxed)
    }

    /// All other counters.
    pub fn read(&self) -> Reading {
        Reading {
            packets_in: self.packets_in.load(Relaxed),
            octets_in: self.octets_in.load(Relaxed),
            packets_out: self.packets_out.load(Relaxed),
            send_dropped: self.send_dropped.load(Relaxed),
            messages: self.messages.load(Relaxed),
            moved: self.moved.load(Relaxed),
            sessions: self.sessions.load(Relaxed),
            wakes: self.wakes.load(Relaxed),
        }
    }
}
