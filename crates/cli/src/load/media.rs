//! The RTP of one session: numbered packets out every 20 ms, and an account of what comes back.

use std::rc::Rc;
use std::time::{Duration, Instant};

use streamfleet_net::Outbox;
use streamfleet_rtp::rtcp::{Event, Packets, Reception, RtcpInbox, Transmission, WallClock, compound, read};
use streamfleet_rtp::{Extensions, Index, Outgoing, Rx, Tx};

use super::clip::{Clip, number};
use super::histogram::Histogram;
use super::peer::{CLOCK_RATE, PAYLOAD_TYPE};
use super::probe::Probe;

/// One packet.
const PACKET: Duration = Duration::from_millis(20);
/// The same in ticks of the RTP clock.
const PACKET_TICKS: u32 = CLOCK_RATE / 50;
/// How far behind its schedule a session may be before it gives packets up instead of sending them in a burst, which
/// would measure the server's treatment of bursts.
pub(super) const MAX_BEHIND: Duration = Duration::from_millis(200);
/// Packets whose sending is remembered: five seconds. What comes back later counts as lost.
const REMEMBERED: usize = 256;
/// Between reports, as browsers have it for audio.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// Whether what happens now counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// Sessions are being set up.
    #[default]
    Ramp,
    /// It counts.
    Measure,
    /// Nothing new counts, but what comes back may belong to what did.
    Drain,
}

/// Figures of all sessions together.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) phase: Phase,
    /// Packets sent while measuring.
    pub(super) sent: u64,
    /// Of those, what came back as it went.
    pub(super) matched: u64,
    /// Packets that came while measuring and were others'.
    pub(super) recoded: u64,
    /// Latencies of packets that came back as they went.
    pub(super) echo: Histogram,
    /// Latencies of the probes' bursts.
    pub(super) bursts: Histogram,
    /// How much later than its schedule each packet was sent: this program's own lateness.
    pub(super) late: Histogram,
    /// Packets that were not sent because this program was too late for them.
    pub(super) skipped: u64,
    /// Packets that SRTP refused, ever.
    pub(super) refused: u64,
    /// Packets that came, ever.
    pub(super) received: u64,
}

/// One session's share of the figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    /// Packets sent while measuring.
    pub(super) sent: u64,
    /// Packets that came back for them.
    pub(super) back: u64,
    /// The longest time without anything from the server while measuring.
    pub(super) pause: Duration,
    /// The longest run of packets of which none came back as it went.
    pub(super) outage: Duration,
}

/// How long a session hears nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pauses {
    heard: Option<Instant>,
    longest: Duration,
}

impl Pauses {
    /// Something came.
    pub(super) fn hear(&mut self, now: Instant, phase: Phase) {
        if phase == Phase::Measure {
            self.longest = self.until(now);
        }
        if phase != Phase::Drain {
            self.heard = Some(now);
        }
    }

    /// The longest so far, if nothing comes before `now`.
    pub(super) fn until(&self, now: Instant) -> Duration {
        self.heard.map_or(self.longest, |heard| self.longest.max(now.saturating_duration_since(heard)))
    }
}

#[derive(Clone, Copy, Debug)]
struct Sending {
    number: u32,
    at: Instant,
    counts: Counts,
}

/// The longest run of packets that are lost. Unlike a pause it is not longer where this machine stands still.
#[derive(Clone, Copy, Debug, Default)]
struct Outages {
    run: u32,
    longest: u32,
}

impl Outages {
    /// Nothing comes back any more of this one, in the order of sending.
    fn settle(&mut self, sending: &Sending) {
        self.run = if sending.counts == Counts::Yes { self.run + 1 } else { 0 };
        self.longest = self.longest.max(self.run);
    }

    /// Those that are remembered are settled last, the oldest first; `next` is the number after the newest.
    fn with(mut self, remembered: &[Sending], next: u32) -> Duration {
        let oldest = if remembered.len() < REMEMBERED { 0 } else { next as usize % REMEMBERED };
        let (newer, older) = remembered.split_at(oldest);
        older.iter().chain(newer).for_each(|sending| self.settle(sending));
        PACKET * self.longest
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counts {
    Yes,
    No,
    /// It came back.
    Matched,
}

/// What a session needs to speak.
#[derive(Debug)]
pub(super) struct Voice {
    pub(super) ssrc: u32,
    pub(super) clip: Rc<Clip>,
    pub(super) probe: Option<Box<Probe>>,
}

/// A session's media, from the handshake's end on.
#[derive(Debug)]
pub(super) struct Media {
    rx: Rx,
    tx: Tx,
    voice: Voice,
    /// Memory for one payload.
    payload: Vec<u8>,
    index: Option<Index>,
    timestamp: u32,
    number: u32,
    due: Instant,
    report_due: Instant,
    remembered: Vec<Sending>,
    transmission: Transmission,
    reception: Option<Reception>,
    first: Option<Instant>,
    pauses: Pauses,
    outages: Outages,
    share: Share,
}

impl Media {
    /// Begins to speak at `now`. `seed` makes this session's sequence numbers, timestamps and reports start elsewhere than
    /// others'.
    pub(super) fn new(rx: Rx, tx: Tx, voice: Voice, seed: u32, now: Instant) -> Self {
        let transmission = Transmission::new(voice.ssrc, CLOCK_RATE);
        Self {
            rx,
            tx,
            voice,
            payload: Vec::new(),
            // In the lower half, so that a loss of the first packets cannot hide a wrap (RFC 3711 section 3.3.1).
            index: Some(Index::first(seed as u16 & 0x7FFF)),
            timestamp: seed,
            number: 0,
            due: now,
            report_due: now + REPORT_EVERY * (seed >> 16) / (1 << 16),
            remembered: Vec::with_capacity(REMEMBERED),
            transmission,
            reception: None,
            first: None,
            pauses: Pauses::default(),
            outages: Outages::default(),
            share: Share::default(),
        }
    }

    /// When the first packet came.
    pub(super) fn first(&self) -> Option<Instant> {
        self.first
    }

    /// Its figures, of which nothing counts after `end`.
    pub(super) fn share(&self, end: Instant) -> Share {
        let outage = self.outages.with(&self.remembered, self.number);
        Share { pause: self.pauses.until(end), outage, ..self.share }
    }

    /// When [`send`](Self::send) or [`report`](Self::report) has something to do.
    pub(super) fn poll_timeout(&self) -> Instant {
        self.due.min(self.report_due)
    }

    /// Sends the packets that are due; none while draining.
    pub(super) fn send(&mut self, to: std::net::SocketAddr, now: Instant, out: &mut Outbox, tally: &mut Tally) {
        if tally.phase == Phase::Drain {
            self.due = now + PACKET;
            return;
        }
        while self.due <= now {
            let behind = now - self.due;
            if behind > MAX_BEHIND {
                let missed = (behind.as_nanos() / PACKET.as_nanos()) as u32;
                self.due += PACKET * missed;
                self.timestamp = self.timestamp.wrapping_add(PACKET_TICKS.wrapping_mul(missed));
                tally.skipped += u64::from(missed);
                continue;
            }
            self.due += PACKET;
            self.send_one(to, now, behind, out, tally);
        }
    }

    fn send_one(
        &mut self,
        to: std::net::SocketAddr,
        now: Instant,
        behind: Duration,
        out: &mut Outbox,
        tally: &mut Tally,
    ) {
        // 2^48 packets are a hundred thousand years.
        let Some(index) = self.index else { return };
        self.index = index.next();
        let (number, timestamp) = (self.number, self.timestamp);
        self.number = number.wrapping_add(1);
        self.timestamp = timestamp.wrapping_add(PACKET_TICKS);
        let mut payload = std::mem::take(&mut self.payload);
        payload.clear();
        self.voice.clip.write(number, &mut payload);
        let packet = Outgoing {
            ssrc: self.voice.ssrc,
            index,
            marker: number == 0,
            payload_type: PAYLOAD_TYPE,
            timestamp,
            extensions: Extensions::NONE,
            payload: &payload,
        };
        let pushed = out.push(to, |octets| self.tx.seal(octets, &packet).is_ok());
        self.payload = payload;
        if !pushed {
            return;
        }
        self.transmission.packet(timestamp, self.payload.len(), now);
        let counts = if tally.phase == Phase::Measure { Counts::Yes } else { Counts::No };
        if counts == Counts::Yes {
            tally.sent += 1;
            self.share.sent += 1;
            tally.late.record(behind);
        }
        let sending = Sending { number, at: now, counts };
        match self.remembered.get_mut(number as usize % REMEMBERED) {
            Some(slot) => self.outages.settle(&std::mem::replace(slot, sending)),
            None => self.remembered.push(sending),
        }
        if let Some(probe) = &mut self.voice.probe {
            probe.sent(number, now);
        }
    }

    /// An RTP packet came; it is decrypted in place.
    pub(super) fn receive(&mut self, packet: &mut [u8], now: Instant, tally: &mut Tally) {
        let Ok(opened) = self.rx.open(packet) else {
            tally.refused += 1;
            return;
        };
        let payload = &packet[opened.payload];
        if payload.is_empty() || opened.header.payload_type != PAYLOAD_TYPE {
            return;
        }
        tally.received += 1;
        self.first.get_or_insert(now);
        self.pauses.hear(now, tally.phase);
        let ssrc = opened.header.ssrc;
        let reception = match &mut self.reception {
            Some(reception) if reception.ssrc() == ssrc => reception,
            other => other.insert(Reception::new(ssrc, CLOCK_RATE, opened.index, now)),
        };
        reception.packet(opened.index, opened.header.timestamp, payload.len(), now);
        match number(payload) {
            Some(number) => self.matched(number, now, tally),
            None => {
                if tally.phase == Phase::Measure {
                    tally.recoded += 1;
                    self.share.back += 1;
                }
                if let Some(probe) = &mut self.voice.probe
                    && let Some(latency) = probe.received(opened.index.get(), payload, now)
                    && tally.phase == Phase::Measure
                {
                    tally.bursts.record(latency);
                }
            }
        }
    }

    fn matched(&mut self, number: u32, now: Instant, tally: &mut Tally) {
        let Some(sending) = self.remembered.get_mut(number as usize % REMEMBERED) else { return };
        if sending.number != number || sending.counts != Counts::Yes {
            return;
        }
        sending.counts = Counts::Matched;
        tally.matched += 1;
        self.share.back += 1;
        tally.echo.record(now.saturating_duration_since(sending.at));
    }

    /// The reports that are due, if any.
    pub(super) fn report(&mut self, now: Instant, clock: &WallClock) -> Option<Packets> {
        if now < self.report_due {
            return None;
        }
        self.report_due = now + REPORT_EVERY;
        let mut received: Vec<&mut Reception> = self.reception.iter_mut().collect();
        compound("load", &[&self.transmission], &mut received, now, clock)
    }

    /// Takes in what the server reported.
    pub(super) fn hear(&mut self, inbox: &RtcpInbox, clock: &WallClock) {
        while let Some((at, packets)) = inbox.pop() {
            read(&packets, at, clock, |event| {
                if let Event::SenderReport { ssrc, ntp } = event
                    && let Some(reception) = self.reception.as_mut().filter(|reception| reception.ssrc() == ssrc)
                {
                    reception.sender_report(ntp, at);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtc::crypto::default_provider;
    use std::net::SocketAddr;
    use streamfleet_rtp::srtp::Role;
    use streamfleet_rtp::{Keys, Profile};

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// A session's media and a server that can read and write it.
    struct World {
        now: Instant,
        media: Media,
        tally: Tally,
        out: Outbox,
        server_rx: Rx,
        server_tx: Tx,
        /// Packets that the server has, with their indices.
        arrived: Vec<(Index, Vec<u8>)>,
    }

    fn ends(role: Role) -> (Rx, Tx) {
        let provider = default_provider().unwrap();
        let keys = Keys::from_exporter(&[9; 64], Profile::AeadAes128Gcm, role).unwrap();
        (Rx::new(provider.crypto(), &keys).unwrap(), Tx::new(provider.crypto(), &keys).unwrap())
    }

    impl World {
        fn new() -> Self {
            let now = Instant::now();
            let ((rx, tx), (server_rx, server_tx)) = (ends(Role::Client), ends(Role::Server));
            let voice = Voice { ssrc: 1, clip: Rc::new(Clip::speech().unwrap()), probe: None };
            let media = Media::new(rx, tx, voice, 0xFFFF_FFFF, now);
            let (tally, out) = (Tally::default(), Outbox::new());
            Self { now, media, tally, out, server_rx, server_tx, arrived: vec![] }
        }

        fn run(&mut self, time: Duration) {
            let end = self.now + time;
            while self.media.due <= end {
                self.now = self.media.due.max(self.now);
                self.send();
            }
            self.now = end;
        }

        fn send(&mut self) {
            let server = SocketAddr::from(([192, 0, 2, 1], 9));
            self.media.send(server, self.now, &mut self.out, &mut self.tally);
            for (to, packet) in self.out.iter() {
                assert_eq!(to, server);
                let mut packet = packet.to_vec();
                let opened = self.server_rx.open(&mut packet).unwrap();
                self.arrived.push((opened.index, packet[opened.payload].to_vec()));
            }
            self.out.clear();
        }

        fn reply(&mut self, index: Index, payload: &[u8]) {
            let mut packet = vec![];
            let outgoing = Outgoing {
                ssrc: 2,
                index,
                marker: false,
                payload_type: PAYLOAD_TYPE,
                timestamp: 0,
                extensions: Extensions::NONE,
                payload,
            };
            self.server_tx.seal(&mut packet, &outgoing).unwrap();
            self.media.receive(&mut packet, self.now, &mut self.tally);
        }

        /// The server sends back what it has got.
        fn echo(&mut self) {
            for (index, payload) in std::mem::take(&mut self.arrived) {
                self.reply(index, &payload);
            }
        }
    }

    #[test]
    fn packets_go_every_20_ms_and_are_counted_while_measuring() {
        let mut world = World::new();
        world.run(99 * MILLISECOND);
        assert_eq!((world.arrived.len(), world.tally.sent), (5, 0));
        world.tally.phase = Phase::Measure;
        world.run(1_000 * MILLISECOND);
        assert_eq!((world.arrived.len(), world.tally.sent), (55, 50));
        let indices: Vec<u64> = world.arrived.iter().map(|(index, _)| index.get() - 0x7FFF).collect();
        assert_eq!(indices, (0..55).collect::<Vec<u64>>());
        world.tally.phase = Phase::Drain;
        world.run(1_000 * MILLISECOND);
        assert_eq!(world.arrived.len(), 55);
        assert_eq!((world.tally.late.quantile(1.0), world.tally.skipped), (Duration::ZERO, 0));
    }

    #[test]
    fn what_comes_back_as_it_went_is_matched_once() {
        let mut world = World::new();
        world.run(99 * MILLISECOND);
        world.tally.phase = Phase::Measure;
        world.run(100 * MILLISECOND);
        world.tally.phase = Phase::Drain;
        world.now += 30 * MILLISECOND;
        world.echo();
        // The five of before measuring do not count; the five others came back after 31 to 111 ms.
        assert_eq!((world.tally.matched, world.tally.recoded, world.tally.received), (5, 0, 10));
        let Share { sent, back, .. } = world.media.share(world.now);
        assert_eq!((sent, back), (5, 5));
        assert_eq!(world.tally.echo.quantile(1.0), 129 * MILLISECOND);
        // A server that sends a packet twice does not make up for a lost one.
        let mut payload = vec![];
        world.media.voice.clip.write(7, &mut payload);
        world.reply(Index::new(33_000).unwrap(), &payload);
        assert_eq!((world.tally.matched, world.tally.received), (5, 11));
    }

    #[test]
    fn what_comes_back_late_is_lost() {
        let mut world = World::new();
        world.tally.phase = Phase::Measure;
        world.run(19 * MILLISECOND);
        let first = world.arrived.clone();
        world.run(PACKET * REMEMBERED as u32);
        world.arrived = first;
        world.echo();
        assert_eq!((world.tally.matched, world.tally.received), (0, 1));
    }

    #[test]
    fn recoded_packets_count_while_measuring() {
        let mut world = World::new();
        for (phase, counted) in [(Phase::Ramp, 0), (Phase::Measure, 1), (Phase::Drain, 1)] {
            world.tally.phase = phase;
            let index = Index::new(10 + world.tally.received).unwrap();
            world.reply(index, b"\xF8other");
            assert_eq!((world.tally.recoded, world.tally.matched), (counted, 0));
        }
        assert!(world.media.first().is_some());
    }

    /// Of a thousand packets, which are 20 s, some are lost: from which number on, and how many.
    fn outage(lost: &[(usize, usize)]) -> Duration {
        let mut world = World::new();
        world.run(19 * MILLISECOND);
        world.tally.phase = Phase::Measure;
        for number in 1..1_000 {
            world.run(PACKET);
            if lost.iter().any(|(first, count)| (*first..first + count).contains(&number)) {
                world.arrived.clear();
            }
            // The first is echoed with the second.
            world.echo();
        }
        world.tally.phase = Phase::Drain;
        world.media.share(world.now).outage
    }

    #[test]
    fn the_longest_outage_is_that_of_most_packets_in_a_row() {
        #[track_caller]
        fn check(lost: &[(usize, usize)], expected: u32) {
            assert_eq!(outage(lost), PACKET * expected);
        }
        check(&[], 0);
        check(&[(5, 1), (7, 1), (9, 1)], 1);
        check(&[(100, 10), (500, 30)], 30);
        check(&[(100, 30), (500, 10)], 30);
        check(&[(200, 500)], 500);
        // Beyond those that are remembered, and among them, where the oldest is not the first.
        check(&[(740, 20)], 20);
        check(&[(960, 40)], 40);
    }

    #[test]
    fn the_longest_pause_is_one_while_measuring() {
        let mut world = World::new();
        let start = world.now;
        let pause = |world: &World, ms| world.media.share(start + ms * MILLISECOND).pause;
        for (at, phase) in [
            (0, Phase::Ramp),
            (900, Phase::Ramp),
            (1_000, Phase::Measure),
            (1_300, Phase::Measure),
            (1_400, Phase::Measure),
        ] {
            world.tally.phase = phase;
            world.now = start + at * MILLISECOND;
            world.reply(Index::new(10 + world.tally.received).unwrap(), b"\xF8other");
        }
        assert_eq!(pause(&world, 1_500), 300 * MILLISECOND, "not the one of before measuring");
        assert_eq!(pause(&world, 2_000), 600 * MILLISECOND, "nothing came up to the end");
        world.tally.phase = Phase::Drain;
        world.now = start + 2_500 * MILLISECOND;
        world.reply(Index::new(100).unwrap(), b"\xF8other");
        assert_eq!(pause(&world, 2_000), 600 * MILLISECOND, "and what came later is too late");
    }

    #[test]
    fn forgeries_are_refused() {
        let mut world = World::new();
        let mut packet = vec![0x80; 60];
        world.media.receive(&mut packet, world.now, &mut world.tally);
        assert_eq!((world.tally.refused, world.tally.received), (1, 0));
        assert_eq!(world.media.first(), None);
    }

    #[test]
    fn a_late_client_says_so_and_gives_up_what_is_too_late() {
        let mut world = World::new();
        world.tally.phase = Phase::Measure;
        world.now += 50 * MILLISECOND;
        world.send();
        assert_eq!((world.arrived.len(), world.tally.skipped), (3, 0));
        assert_eq!(world.tally.late.quantile(1.0), 50 * MILLISECOND);
        world.now += 1_000 * MILLISECOND;
        world.send();
        // 48 were due to be sent; all but the one that is at its time are given up.
        assert_eq!((world.arrived.len(), world.tally.skipped), (4, 49));
        assert!(world.media.poll_timeout() > world.now);
    }
}
