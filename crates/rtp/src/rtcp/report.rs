//! What is sent: reports, key frame requests, goodbyes.

use super::clock::{WallClock, ticks};
use super::reception::Reception;
use super::tap::Packets;
use rtc::rtcp::goodbye::Goodbye;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::receiver_report::ReceiverReport;
use rtc::rtcp::sender_report::SenderReport;
use rtc::rtcp::source_description::{SdesType, SourceDescription, SourceDescriptionChunk, SourceDescriptionItem};
use std::time::Instant;

/// Report blocks in one packet: the count has five bits (RFC 3550 section 6.4.1).
const MAX_BLOCKS: usize = 31;
/// Octets of an SDES item: its length has eight bits.
const MAX_CNAME: usize = 255;

/// What a sender counts of one outgoing source.
#[derive(Clone, Debug)]
pub struct Transmission {
    ssrc: u32,
    clock_rate: u32,
    packets: u64,
    octets: u64,
    last: Option<(u32, Instant)>,
}

impl Transmission {
    /// A source that has sent nothing. `clock_rate` is the payload type's, in Hz.
    pub fn new(ssrc: u32, clock_rate: u32) -> Self {
        Self { ssrc, clock_rate, packets: 0, octets: 0, last: None }
    }

    /// The source.
    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// Counts a packet with `octets` of payload.
    pub fn packet(&mut self, timestamp: u32, octets: usize, now: Instant) {
        self.packets += 1;
        self.octets += octets as u64;
        self.last = Some((timestamp, now));
    }

    /// Packets sent.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Octets of payload sent.
    pub fn octets(&self) -> u64 {
        self.octets
    }

    /// The timestamp of the latest packet, and when it was sent.
    pub fn last(&self) -> Option<(u32, Instant)> {
        self.last
    }

    /// `None` before the first packet: a timestamp could only be invented.
    fn report(&self, now: Instant, clock: &WallClock) -> Option<SenderReport> {
        let (timestamp, at) = self.last?;
        Some(SenderReport {
            ssrc: self.ssrc,
            ntp_time: clock.ntp(now).0,
            rtp_time: timestamp.wrapping_add(ticks(now.saturating_duration_since(at), self.clock_rate)),
            // Both counters wrap on the wire.
            packet_count: self.packets as u32,
            octet_count: self.octets as u32,
            ..Default::default()
        })
    }
}

/// A compound packet: a sender report for each source that has sent, else one receiver report; with the blocks of up to
/// 31 sources that were received; and the canonical name (RFC 3550 section 6.1), of which the first 255 octets count.
///
/// `None` if there is neither an outgoing source to report from nor anything to report.
pub fn compound(
    cname: &str,
    sent: &[&Transmission],
    received: &mut [&mut Reception],
    now: Instant,
    clock: &WallClock,
) -> Option<Packets> {
    let first = sent.first()?.ssrc;
    let mut blocks: Vec<_> = received.iter_mut().take(MAX_BLOCKS).map(|reception| reception.report(now)).collect();
    let mut packets: Packets = Vec::new();
    for report in sent.iter().filter_map(|source| source.report(now, clock)) {
        let reports = std::mem::take(&mut blocks);
        packets.push(Box::new(SenderReport { reports, ..report }));
    }
    if packets.is_empty() {
        if blocks.is_empty() {
            return None;
        }
        packets.push(Box::new(ReceiverReport { ssrc: first, reports: blocks, ..Default::default() }));
    }
    let mut end = cname.len().min(MAX_CNAME);
    while !cname.is_char_boundary(end) {
        end -= 1;
    }
    let text = bytes::Bytes::copy_from_slice(&cname.as_bytes()[..end]);
    let chunk = |source: &&Transmission| SourceDescriptionChunk {
        source: source.ssrc,
        items: vec![SourceDescriptionItem { sdes_type: SdesType::SdesCname, text: text.clone() }],
    };
    packets.push(Box::new(SourceDescription { chunks: sent.iter().take(MAX_BLOCKS).map(chunk).collect() }));
    Some(packets)
}

/// Asks the source `media` for a key frame (PLI, RFC 4585 section 6.3.1), in the name of our source `sender`.
pub fn pli(sender: u32, media: u32) -> Packets {
    vec![Box::new(PictureLossIndication { sender_ssrc: sender, media_ssrc: media })]
}

/// Says that our sources send no more (RFC 3550 section 6.6); at most 31 are named.
pub fn bye(sources: &[u32]) -> Packets {
    let sources: Vec<u32> = sources.iter().copied().take(MAX_BLOCKS).collect();
    // A compound packet begins with a report, be it an empty one.
    let ssrc = sources.first().copied().unwrap_or_default();
    vec![
        Box::new(ReceiverReport { ssrc, ..Default::default() }),
        Box::new(Goodbye { sources, reason: Default::default() }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Index;
    use rtc::rtcp::packet::{marshal, unmarshal};
    use std::time::{Duration, SystemTime};

    fn clock(now: Instant) -> WallClock {
        WallClock::new(now, SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000))
    }

    /// As the peer reads them.
    fn on_the_wire(packets: &Packets) -> Packets {
        unmarshal(&mut marshal(packets).unwrap().freeze()).unwrap()
    }

    #[test]
    fn a_source_that_sent_reports_as_sender() {
        let now = Instant::now();
        let mut sent = Transmission::new(7, 48_000);
        sent.packet(1_000, 80, now);
        sent.packet(1_960, 81, now);
        let mut received = Reception::new(9, 48_000, Index::first(5), now);
        received.packet(Index::first(5), 0, 80, now);
        let later = now + Duration::from_millis(10);
        let packets = compound("name", &[&sent], &mut [&mut received], later, &clock(now)).unwrap();
        let packets = on_the_wire(&packets);
        let report = packets[0].as_any().downcast_ref::<SenderReport>().unwrap();
        assert_eq!((report.ssrc, report.rtp_time, report.packet_count, report.octet_count), (7, 1_960 + 480, 2, 161));
        assert_eq!(report.ntp_time, clock(now).ntp(later).0);
        assert_eq!((report.reports.len(), report.reports[0].ssrc), (1, 9));
        let names = packets[1].as_any().downcast_ref::<SourceDescription>().unwrap();
        assert_eq!((names.chunks[0].source, &names.chunks[0].items[0].text[..]), (7, &b"name"[..]));
    }

    #[test]
    fn one_that_only_listens_reports_as_receiver() {
        let now = Instant::now();
        let sent = Transmission::new(7, 48_000);
        let mut received: Vec<Reception> =
            (0..40).map(|ssrc| Reception::new(ssrc, 48_000, Index::first(5), now)).collect();
        let mut received: Vec<&mut Reception> = received.iter_mut().collect();
        let packets = on_the_wire(&compound("name", &[&sent], &mut received, now, &clock(now)).unwrap());
        let report = packets[0].as_any().downcast_ref::<ReceiverReport>().unwrap();
        assert_eq!((report.ssrc, report.reports.len()), (7, 31));
        assert!(compound("name", &[&sent], &mut [], now, &clock(now)).is_none());
        assert!(compound("name", &[], &mut received, now, &clock(now)).is_none());
    }

    #[test]
    fn blocks_are_told_once_by_several_senders() {
        let now = Instant::now();
        let mut sent = [Transmission::new(7, 48_000), Transmission::new(8, 90_000), Transmission::new(9, 90_000)];
        sent[1].packet(0, 1, now);
        sent[2].packet(0, 1, now);
        let mut received = Reception::new(1, 48_000, Index::first(5), now);
        let sent: Vec<&Transmission> = sent.iter().collect();
        let packets = on_the_wire(&compound("name", &sent, &mut [&mut received], now, &clock(now)).unwrap());
        let reports: Vec<(u32, usize)> = packets
            .iter()
            .filter_map(|packet| packet.as_any().downcast_ref::<SenderReport>())
            .map(|report| (report.ssrc, report.reports.len()))
            .collect();
        assert_eq!(reports, [(8, 1), (9, 0)]);
    }

    #[test]
    fn names_and_lists_are_cut_to_what_fits() {
        let now = Instant::now();
        let mut sent = Transmission::new(7, 48_000);
        sent.packet(0, 1, now);
        let name = format!("{}ä", "x".repeat(254));
        let packets = on_the_wire(&compound(&name, &[&sent], &mut [], now, &clock(now)).unwrap());
        let names = packets[1].as_any().downcast_ref::<SourceDescription>().unwrap();
        assert_eq!(names.chunks[0].items[0].text.len(), 254);
        let packets = on_the_wire(&bye(&(0..40).collect::<Vec<u32>>()));
        assert_eq!(packets[1].as_any().downcast_ref::<Goodbye>().unwrap().sources.len(), 31);
        let packets = on_the_wire(&pli(1, 2));
        let request = packets[0].as_any().downcast_ref::<PictureLossIndication>().unwrap();
        assert_eq!((request.sender_ssrc, request.media_ssrc), (1, 2));
    }
}
