//! What a peer says: about our sources, and about its own.

use super::clock::{Ntp, WallClock, duration, from_middle};
use rtc::rtcp::Packet;
use rtc::rtcp::goodbye::Goodbye;
use rtc::rtcp::payload_feedbacks::full_intra_request::FullIntraRequest;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::receiver_report::ReceiverReport;
use rtc::rtcp::reception_report::ReceptionReport;
use rtc::rtcp::sender_report::SenderReport;
use rtc::rtcp::transport_feedbacks::transport_layer_nack::TransportLayerNack;
use std::time::{Duration, Instant};

/// A round trip beyond this is a peer's nonsense, or a report of a sender report from before a wrap of the clock.
const MAX_ROUND_TRIP: Duration = Duration::from_secs(60);

/// What a peer has received of one of our sources: the input of decisions about codec mode and repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feedback {
    /// Packets lost since the peer's last report, in 1/256.
    pub fraction_lost: u8,
    /// Packets lost in all. Zero where the peer received more than were sent (duplicates).
    pub total_lost: u32,
    /// Jitter at the peer, in ticks of the source's clock; see [`jitter_at`](Self::jitter_at).
    pub jitter: u32,
    /// The highest sequence number that the peer received, extended by its count of wraps.
    pub highest_sequence: u32,
    /// Round trip to the peer, once it has seen a sender report of ours.
    pub round_trip: Option<Duration>,
}

impl Feedback {
    /// Packets lost since the peer's last report, 0 to 1.
    pub fn loss(&self) -> f32 {
        f32::from(self.fraction_lost) / 256.0
    }

    /// Jitter as a time, for a source of this clock rate (Hz).
    pub fn jitter_at(&self, clock_rate: u32) -> Duration {
        duration(self.jitter, clock_rate)
    }

    fn new(block: &ReceptionReport, arrival: Ntp) -> Self {
        let sent_and_held = block.last_sender_report.wrapping_add(block.delay);
        let round_trip = from_middle(arrival.middle().wrapping_sub(sent_and_held));
        Self {
            fraction_lost: block.fraction_lost,
            // A signed field of 24 bits: the upper half is negative.
            total_lost: if block.total_lost & 0x80_0000 == 0 { block.total_lost } else { 0 },
            jitter: block.jitter,
            highest_sequence: block.last_sequence_number,
            // The peer's clock may run a little fast, which makes a short round trip a little negative: that is 0.
            round_trip: (block.last_sender_report != 0)
                .then(|| if round_trip > from_middle(u32::MAX - (1 << 16)) { Duration::ZERO } else { round_trip })
                .filter(|round_trip| *round_trip <= MAX_ROUND_TRIP),
        }
    }
}

/// How a key frame was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFrameRequest {
    /// Picture loss indication (RFC 4585 section 6.3.1).
    Pli,
    /// Full intra request (RFC 5104 section 4.3.1), with its command sequence number: a repetition asks for nothing new.
    Fir(u8),
}

/// One thing that a peer said.
#[derive(Debug)]
pub enum Event<'a> {
    /// What it received of our source `ssrc`.
    Feedback {
        /// Ours, if the peer tells the truth.
        ssrc: u32,
        /// Its account.
        feedback: Feedback,
    },
    /// Its source `ssrc` reported; [`super::Reception::sender_report`] wants to know.
    SenderReport {
        /// The peer's.
        ssrc: u32,
        /// The peer's wall clock when it sent this.
        ntp: Ntp,
    },
    /// It needs a key frame of our source `ssrc`.
    KeyFrame {
        /// Ours, if the peer tells the truth.
        ssrc: u32,
        /// How it asks.
        request: KeyFrameRequest,
    },
    /// It misses packets of our source `ssrc`.
    Nack {
        /// Ours, if the peer tells the truth.
        ssrc: u32,
        /// Which; [`TransportLayerNack::nacks`] lists up to 17 sequence numbers an entry.
        nack: &'a TransportLayerNack,
    },
    /// Its source sends no more.
    Bye {
        /// The peer's.
        ssrc: u32,
    },
}

/// Reads packets that came at `now`, and calls `each` for what they say. What is not known is passed over.
///
/// Nothing here is checked against the session's sources: a peer may name any. `clock` is the one that our sender reports
/// are made with.
pub fn read<'a>(packets: &'a [Box<dyn Packet>], now: Instant, clock: &WallClock, mut each: impl FnMut(Event<'a>)) {
    let arrival = clock.ntp(now);
    for packet in packets {
        let packet = packet.as_any();
        let mut blocks: &[ReceptionReport] = &[];
        if let Some(report) = packet.downcast_ref::<SenderReport>() {
            each(Event::SenderReport { ssrc: report.ssrc, ntp: Ntp(report.ntp_time) });
            blocks = &report.reports;
        } else if let Some(report) = packet.downcast_ref::<ReceiverReport>() {
            blocks = &report.reports;
        } else if let Some(pli) = packet.downcast_ref::<PictureLossIndication>() {
            each(Event::KeyFrame { ssrc: pli.media_ssrc, request: KeyFrameRequest::Pli });
        } else if let Some(fir) = packet.downcast_ref::<FullIntraRequest>() {
            for entry in &fir.fir {
                each(Event::KeyFrame { ssrc: entry.ssrc, request: KeyFrameRequest::Fir(entry.sequence_number) });
            }
        } else if let Some(nack) = packet.downcast_ref::<TransportLayerNack>() {
            each(Event::Nack { ssrc: nack.media_ssrc, nack });
        } else if let Some(bye) = packet.downcast_ref::<Goodbye>() {
            bye.sources.iter().for_each(|ssrc| each(Event::Bye { ssrc: *ssrc }));
        }
        for block in blocks {
            each(Event::Feedback { ssrc: block.ssrc, feedback: Feedback::new(block, arrival) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtc::rtcp::payload_feedbacks::full_intra_request::FirEntry;
    use rtc::rtcp::raw_packet::RawPacket;
    use rtc::rtcp::transport_feedbacks::transport_layer_nack::nack_pairs_from_sequence_numbers;
    use std::time::SystemTime;

    fn clock(now: Instant) -> WallClock {
        WallClock::new(now, SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000))
    }

    #[test]
    fn everything_that_is_known_is_told() {
        let now = Instant::now();
        #[track_caller]
        fn check(now: Instant, packet: Box<dyn Packet>, expected: &[&str]) {
            let mut got = vec![];
            read(&[packet], now, &clock(now), |event| got.push(format!("{event:?}")));
            assert_eq!(got.len(), expected.len(), "{got:?}");
            for (got, expected) in got.iter().zip(expected) {
                assert!(got.starts_with(expected), "{got}");
            }
        }
        let block = |ssrc| ReceptionReport { ssrc, ..Default::default() };
        let sender = SenderReport { ssrc: 1, ntp_time: 9, reports: vec![block(2), block(3)], ..Default::default() };
        check(
            now,
            Box::new(sender),
            &["SenderReport { ssrc: 1, ntp: Ntp(9)", "Feedback { ssrc: 2", "Feedback { ssrc: 3"],
        );
        let receiver = ReceiverReport { ssrc: 1, reports: vec![block(2)], ..Default::default() };
        check(now, Box::new(receiver), &["Feedback { ssrc: 2"]);
        let pli = PictureLossIndication { sender_ssrc: 1, media_ssrc: 2 };
        check(now, Box::new(pli), &["KeyFrame { ssrc: 2, request: Pli"]);
        let entry = |ssrc| FirEntry { ssrc, sequence_number: 7 };
        let fir = FullIntraRequest { sender_ssrc: 1, media_ssrc: 0, fir: vec![entry(2), entry(3)] };
        check(now, Box::new(fir), &["KeyFrame { ssrc: 2, request: Fir(7)", "KeyFrame { ssrc: 3, request: Fir(7)"]);
        let nacks = nack_pairs_from_sequence_numbers(&[5, 6, 300]);
        check(now, Box::new(TransportLayerNack { sender_ssrc: 1, media_ssrc: 2, nacks }), &["Nack { ssrc: 2"]);
        let bye = Goodbye { sources: vec![2, 3], ..Default::default() };
        check(now, Box::new(bye), &["Bye { ssrc: 2", "Bye { ssrc: 3"]);
        check(now, Box::new(RawPacket::default()), &[]);
    }

    /// A block that says when the sender report came to the peer, as delay before `now`, and how long it kept it.
    #[track_caller]
    fn check_round_trip(sent_before: Duration, held: Duration, expected: Option<Duration>) {
        let now = Instant::now();
        let clock = clock(now);
        let sent = now.checked_sub(sent_before).unwrap();
        let block = ReceptionReport {
            last_sender_report: clock.ntp(sent).middle(),
            delay: super::super::clock::to_middle(held),
            ..Default::default()
        };
        let got = Feedback::new(&block, clock.ntp(now)).round_trip;
        match (got, expected) {
            (Some(got), Some(expected)) => assert!(got.abs_diff(expected) < Duration::from_micros(50), "{got:?}"),
            _ => assert_eq!(got, expected),
        }
    }

    #[test]
    fn round_trips() {
        let ms = Duration::from_millis;
        check_round_trip(ms(1_030), ms(1_000), Some(ms(30)));
        check_round_trip(ms(0), ms(0), Some(ms(0)));
        check_round_trip(ms(1_000), ms(1_001), Some(ms(0))); // the peer's clock runs fast
        check_round_trip(ms(70_000), ms(0), None);
        check_round_trip(ms(1_000), ms(30_000), None); // nonsense
        let none = ReceptionReport { delay: 5, ..Default::default() };
        let now = Instant::now();
        assert_eq!(Feedback::new(&none, clock(now).ntp(now)).round_trip, None);
    }

    #[test]
    fn what_blocks_say_of_loss() {
        let check = |fraction_lost, total_lost, loss, total| {
            let block = ReceptionReport { fraction_lost, total_lost, jitter: 480, ..Default::default() };
            let feedback = Feedback::new(&block, Ntp(0));
            assert_eq!((feedback.loss(), feedback.total_lost), (loss, total));
            assert_eq!(feedback.jitter_at(48_000), Duration::from_millis(10));
        };
        check(0, 0, 0.0, 0);
        check(64, 0x7F_FFFF, 0.25, 0x7F_FFFF);
        check(0, 0xFF_FFFF, 0.0, 0); // -1: duplicates
    }
}
