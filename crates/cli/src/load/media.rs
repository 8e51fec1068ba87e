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
mod tests;
