//! The RTP of one session, from the moment DTLS has made its keys: what comes in is opened where it lies, what goes out
//! is sealed where it will be sent from; nothing is allocated for a packet.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use streamfleet_handler::{CodecName, Packet, TrackKind};
use streamfleet_rtp::Index;
use streamfleet_rtp::header::Extensions;
use streamfleet_rtp::rtcp::{self, Event, Feedback, Packets, Reception, RtcpInbox, Transmission, WallClock};
use streamfleet_rtp::srtp::{Outgoing, Refused, Rx, Tx};

use super::answer::NegotiatedTrack;
use super::outlet::Outlet;
use super::path::Newest;
use super::shared::{TrackView, millis};

/// Reports leave this often (RFC 3550 6.2 with a fixed, small membership), each session at a phase of its own.
pub(crate) const REPORT_EVERY: Duration = Duration::from_secs(5);
/// The first report leaves sooner: it brings the first round-trip time and loss figures.
const FIRST_REPORT: Duration = Duration::from_millis(500);
/// Requests for a key frame reach the client at most this often; each costs it a large frame.
const KEY_FRAME_EVERY: Duration = Duration::from_millis(500);
/// After a change of source the stream goes on one frame later (20 ms of audio at 48 kHz; a third of a video frame).
const SOURCE_GAP: u32 = 960;
/// RFC 3550 6.5.1; the session's ids are nobody's business on the wire.
const CNAME: &str = "streamfleet";

/// An authenticated packet and the track it belongs to.
pub(crate) struct Inbound {
    pub(crate) track: usize,
    pub(crate) ssrc: u32,
    pub(crate) newest: Newest,
    /// The source was not known before.
    pub(crate) new_source: bool,
    pub(crate) index: u64,
    pub(crate) timestamp: u32,
    pub(crate) marker: bool,
    /// Where in the datagram the payload is; empty for a padding-only probe.
    pub(crate) payload: Range<usize>,
}

pub(crate) struct Track {
    pub(crate) negotiated: NegotiatedTrack,
    reception: Option<Reception>,
    /// The source that is heard now and how its indices and timestamps continue those of the source before it.
    source: Option<Source>,
    newest: Option<(u64, u32)>,
    transmission: Transmission,
    /// What is added to a handler's index to get ours: fixed by the first packet.
    offset: Option<i64>,
    feedback: Option<Feedback>,
    key_frame_asked: Option<Instant>,
    pub(crate) closed: bool,
}

#[derive(Clone, Copy)]
struct Source {
    ssrc: u32,
    index_shift: i64,
    timestamp_shift: u32,
}

/// All tracks of a session, their keys and their reports.
pub(crate) struct Media {
    rx: Rx,
    tx: Tx,
    pub(crate) tracks: Vec<Track>,
    pub(crate) report_at: Instant,
    pub(crate) round_trip: Option<Duration>,
}

impl Media {
    /// `phase` in 0..1 spreads the reports of sessions that began together.
    pub(crate) fn new(rx: Rx, tx: Tx, tracks: &[NegotiatedTrack], phase: f64, now: Instant) -> Self {
        let tracks = tracks
            .iter()
            .map(|negotiated| Track {
                transmission: Transmission::new(negotiated.ssrc, negotiated.codec.clock_rate()),
                negotiated: negotiated.clone(),
                reception: None,
                source: None,
                newest: None,
                offset: None,
                feedback: None,
                key_frame_asked: None,
                closed: false,
            })
            .collect();
        Media { rx, tx, tracks, report_at: now + FIRST_REPORT.mul_f64(1.0 + phase), round_trip: None }
    }

    /// Authenticates and decrypts a datagram in place. `Ok(None)`: authentic, but of no track.
    pub(crate) fn open(&mut self, datagram: &mut [u8], now: Instant) -> Result<Option<Inbound>, Refused> {
        let opened = self.rx.open(datagram)?;
        let header = &opened.header;
        // One codec was negotiated for each m-line, so the payload type names the track (RFC 8843 9.2).
        let Some(i) = self
            .tracks
            .iter()
            .position(|t| t.negotiated.receives && !t.closed && t.negotiated.payload_type == header.payload_type)
        else {
            return Ok(None);
        };
        let track = &mut self.tracks[i];
        let reception = match &mut track.reception {
            Some(r) if r.ssrc() == header.ssrc => r,
            other => other.insert(Reception::new(header.ssrc, track.negotiated.codec.clock_rate(), opened.index, now)),
        };
        reception.packet(opened.index, header.timestamp, opened.payload.len(), now);
        let (source, new_source) = match track.source {
            Some(s) if s.ssrc == header.ssrc => (s, false),
            _ => (track.continue_with(header.ssrc, opened.index.get(), header.timestamp), true),
        };
        // A packet that was overtaken by the change of source may lie before the stream's beginning.
        let Some(index) = opened.index.get().checked_add_signed(source.index_shift) else { return Ok(None) };
        let timestamp = header.timestamp.wrapping_add(source.timestamp_shift);
        let newest = if track.newest.is_none_or(|(top, _)| index > top) {
            track.newest = Some((index, timestamp));
            Newest::Yes
        } else {
            Newest::No
        };
        Ok(Some(Inbound {
            track: i,
            ssrc: header.ssrc,
            newest,
            new_source,
            index,
            timestamp,
            marker: header.marker,
            payload: opened.payload,
        }))
    }

    /// Sends a packet on the track of its kind. False if there is none, its index was used, or the outbox is full.
    pub(crate) fn send(&mut self, packet: &Packet<'_>, to: SocketAddr, now: Instant, out: &mut Outlet) -> bool {
        let Some(track) = self.tracks.iter_mut().find(|t| {
            t.negotiated.sends && !t.closed && t.negotiated.kind == packet.kind && t.negotiated.codec == packet.codec
        }) else {
            return false;
        };
        let Ok(index) = i64::try_from(packet.index) else { return false };
        // RFC 3550 5.1: a random start; below 2^14, so that the first rollover is far, and not at zero, so that packets
        // from before the first one still have a place.
        let offset = *track.offset.get_or_insert_with(|| i64::from(rand::random::<u16>() >> 2) + 1024 - index);
        let Some(index) = index.checked_add(offset).and_then(|i| Index::new(u64::try_from(i).ok()?)) else {
            return false;
        };
        let outgoing = Outgoing {
            ssrc: track.negotiated.ssrc,
            index,
            marker: packet.marker,
            payload_type: track.negotiated.payload_type,
            timestamp: packet.timestamp,
            extensions: Extensions::NONE,
            payload: packet.payload,
        };
        let tx = &mut self.tx;
        let sealed = out.push(to, |buffer| tx.seal(buffer, &outgoing).is_ok());
        if sealed {
            track.transmission.packet(packet.timestamp, packet.payload.len(), now);
        }
        sealed
    }

    /// Takes in what the client reported.
    pub(crate) fn feedback(&mut self, inbox: &RtcpInbox, clock: &WallClock) -> Reported {
        let mut reported = Reported::default();
        while let Some((at, packets)) = inbox.pop() {
            reported.heard = true;
            rtcp::read(&packets, at, clock, |event| self.event(&event, at, &mut reported));
        }
        reported
    }

    fn event(&mut self, event: &Event<'_>, at: Instant, reported: &mut Reported) {
        match event {
            Event::Feedback { ssrc, feedback } => {
                let Some(track) = self.tracks.iter_mut().find(|t| t.negotiated.ssrc == *ssrc) else { return };
                if let Some(round_trip) = feedback.round_trip {
                    self.round_trip = Some(round_trip);
                }
                if track.negotiated.kind == TrackKind::Audio {
                    reported.audio_loss = Some(feedback.loss());
                }
                track.feedback = Some(*feedback);
            }
            Event::SenderReport { ssrc, ntp } => {
                for reception in self.tracks.iter_mut().filter_map(|t| t.reception.as_mut()) {
                    if reception.ssrc() == *ssrc {
                        reception.sender_report(*ntp, at);
                    }
                }
            }
            Event::KeyFrame { ssrc, .. } => {
                reported.key_frame |= self.tracks.iter().any(|t| t.negotiated.ssrc == *ssrc);
            }
            // Retransmission is not negotiated; a source that says goodbye may come back.
            Event::Nack { .. } | Event::Bye { .. } => {}
        }
    }

    /// A request to the client for a key frame, at most one every 500 ms (RFC 4585 6.3.1).
    pub(crate) fn key_frame_request(&mut self, now: Instant) -> Option<Packets> {
        let track = self.tracks.iter_mut().find(|t| t.negotiated.kind == TrackKind::Video)?;
        let source = track.source?.ssrc;
        if track.key_frame_asked.is_some_and(|at| now.saturating_duration_since(at) < KEY_FRAME_EVERY) {
            return None;
        }
        track.key_frame_asked = Some(now);
        Some(rtcp::pli(track.negotiated.ssrc, source))
    }

    /// The reports that are due, if any (RFC 3550 6.4).
    pub(crate) fn reports(&mut self, now: Instant, clock: &WallClock) -> Option<Packets> {
        if now < self.report_at {
            return None;
        }
        self.report_at = now + REPORT_EVERY;
        let mut sent = Vec::with_capacity(2);
        let mut received = Vec::with_capacity(2);
        for track in &mut self.tracks {
            sent.push(&track.transmission);
            received.extend(track.reception.as_mut());
        }
        rtcp::compound(CNAME, &sent, &mut received, now, clock)
    }

    /// The codec of the track of this kind, if it was negotiated.
    pub(crate) fn codec(&self, kind: TrackKind) -> Option<CodecName> {
        self.tracks.iter().find(|t| t.negotiated.kind == kind).map(|t| t.negotiated.codec)
    }
}

/// What a client's reports ask for.
#[derive(Default, Debug)]
pub(crate) struct Reported {
    /// Fraction of our audio packets that did not arrive since the last report, 0..=1.
    pub(crate) audio_loss: Option<f32>,
    pub(crate) key_frame: bool,
    /// There was any report at all.
    pub(crate) heard: bool,
}

impl Track {
    /// A new source goes on where the last one ended, so that handlers see one stream whatever the client does.
    fn continue_with(&mut self, ssrc: u32, index: u64, timestamp: u32) -> Source {
        let source = match self.newest {
            Some((top, last)) => Source {
                ssrc,
                index_shift: (top as i64 + 1).wrapping_sub(index as i64),
                timestamp_shift: last.wrapping_add(SOURCE_GAP).wrapping_sub(timestamp),
            },
            None => Source { ssrc, index_shift: 0, timestamp_shift: 0 },
        };
        self.source = Some(source);
        source
    }

    pub(crate) fn view(&self) -> TrackView {
        TrackView {
            mid: self.negotiated.mid.clone(),
            kind: match self.negotiated.kind {
                TrackKind::Audio => "audio",
                TrackKind::Video => "video",
            },
            codec: self.negotiated.codec.as_str(),
            packets_received: self.reception.as_ref().map_or(0, Reception::packets),
            packets_lost: self.reception.as_ref().map_or(0, Reception::lost),
            jitter_ms: self.reception.as_ref().map_or(0.0, |r| millis(r.jitter())),
            packets_sent: self.transmission.packets(),
            remote_fraction_lost: self.feedback.as_ref().map(Feedback::loss),
            closed: self.closed,
        }
    }
}
