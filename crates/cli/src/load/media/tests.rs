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
