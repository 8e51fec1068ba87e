//! Whatever arrives, in whatever order: no panic, no growth, and the stream recovers.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::time::{Duration, Instant};

use proptest::prelude::*;
use streamfleet_audio::jitter::{JitterBuffer, MAX_PACKETS, Step, Traits};
use streamfleet_audio::{AudioReceiver, AudioSender, Codec, DelayBounds, PcmFormat, PulledKind};

#[derive(Debug, Clone)]
struct Arrival {
    wait: Duration,
    index: u64,
    timestamp: u32,
    payload: Vec<u8>,
}

fn arrival() -> impl Strategy<Value = Arrival> {
    let index = prop_oneof![8 => 0u64..2_000, 1 => any::<u64>(), 1 => Just(u64::MAX)];
    let timestamp =
        prop_oneof![8 => (0u32..2_000).prop_map(|n| n.wrapping_mul(960).wrapping_sub(480_000)), 2 => any::<u32>()];
    let payload = prop_oneof![
        6 => proptest::collection::vec(any::<u8>(), 0..100),
        1 => proptest::collection::vec(any::<u8>(), 1_400..1_700),
        1 => Just(vec![0xf8, 0xff, 0xfe]),
    ];
    (0u64..60, index, timestamp, payload).prop_map(|(wait, index, timestamp, payload)| Arrival {
        wait: Duration::from_millis(wait),
        index,
        timestamp,
        payload,
    })
}

fn codec() -> impl Strategy<Value = Codec> {
    prop_oneof![Just(Codec::Opus), Just(Codec::Pcmu), Just(Codec::Pcma)]
}

/// Takes all that is due; bounded by what a bounded buffer can hold.
fn drain(receiver: &mut AudioReceiver, until: Instant) -> usize {
    let mut out = Vec::new();
    let mut steps = 0;
    while let Some(due) = receiver.poll_timeout().filter(|&due| due <= until) {
        out.clear();
        receiver.pull(due, &mut out);
        assert!(out.len() <= 5_760 * 6, "{} samples in one step", out.len());
        steps += 1;
        assert!(steps < 20_000, "the buffer never gets empty");
    }
    steps
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_packets(
        codec in codec(),
        rate in prop_oneof![Just(8_000u32), Just(24_000), Just(44_100), Just(48_000)],
        channels in 1u16..=2,
        arrivals in proptest::collection::vec(arrival(), 0..150),
    ) {
        let mut receiver = AudioReceiver::new(codec, PcmFormat { rate, channels }, DelayBounds::default()).unwrap();
        let mut now = Instant::now();
        for Arrival { wait, index, timestamp, payload } in arrivals {
            now += wait;
            drain(&mut receiver, now);
            receiver.insert(now, index, timestamp, &payload);
            let stats = receiver.stats();
            prop_assert!(stats.target_delay <= DelayBounds::default().max);
        }
        // Everything comes to an end: jumps of timestamps are never played out as hours of silence.
        drain(&mut receiver, now + Duration::from_secs(3_600));
        prop_assert_eq!(receiver.poll_timeout(), None);

        // And a new source is heard.
        receiver.reset();
        let mut sender = AudioSender::new(codec).unwrap();
        let mut payload = Vec::new();
        let (mut heard, mut out) = (0, Vec::new());
        for n in 0..100u64 {
            now += Duration::from_millis(20);
            sender.push(now, &[500; 160], PcmFormat::mono(8_000)).unwrap();
            let info = sender.poll(now, &mut payload).unwrap();
            receiver.insert(now, n, info.timestamp, &payload);
            while receiver.poll_timeout().is_some_and(|due| due <= now) {
                out.clear();
                let kind = receiver.pull(now, &mut out).kind;
                heard += u32::from(matches!(kind, PulledKind::Decoded | PulledKind::Accelerated | PulledKind::Expanded));
            }
        }
        prop_assert!(heard >= 85, "{} of 100 heard", heard);
    }

    #[test]
    fn the_buffer_is_bounded(arrivals in proptest::collection::vec(arrival(), 0..400)) {
        let mut buffer = JitterBuffer::new(48_000, DelayBounds::default());
        let mut now = Instant::now();
        for (n, Arrival { wait, index, timestamp, payload }) in arrivals.into_iter().enumerate() {
            buffer.insert(now, index, timestamp, 960, Traits::default(), &payload);
            prop_assert!(buffer.len() <= MAX_PACKETS);
            if n % 5 == 0 {
                now += wait;
                if let Step::Decode(packet, _) = buffer.next(now) {
                    buffer.recycle(packet);
                }
            }
        }
    }
}
