//! What must hold for any packets of an audio track. The fuzz target and the replay of its corpus run this same function.

use std::time::{Duration, Instant};

use streamfleet_audio::{AudioReceiver, Codec, DelayBounds, PcmFormat, PulledKind};

/// Packets and pauses of one input: what is longer finds nothing that this does not, and takes longer.
const MAX_STEPS: usize = 400;
/// Samples of one step at most: 120 ms of Opus at 48 kHz in stereo, lengthened.
const MAX_SAMPLES: usize = 5_760 * 6;

/// A track's packets: codec and format, then again and again a pause, an index, a timestamp and a payload.
///
/// The octets of a packet: pause in ms; index, relative to the expected one; timestamp, in steps of 2.5 ms relative to
/// the expected one; length; payload. The relative fields are signed, and -128 stands for a far jump, which octets alone
/// would rarely make.
pub(crate) fn jitter(bytes: &[u8]) {
    let Some((&[format], mut rest)) = bytes.split_first_chunk::<1>() else { return };
    let codec = [Codec::Opus, Codec::Pcmu, Codec::Pcma][usize::from(format & 3) % 3];
    let rate = [8_000, 24_000, 44_100, 48_000][usize::from(format >> 2 & 3)];
    let output = PcmFormat { rate, channels: 1 + u16::from(format >> 4 & 1) };
    let bounds = DelayBounds::default();
    let mut receiver = AudioReceiver::new(codec, output, bounds).expect("a format that is supported");

    let mut now = Instant::now();
    let (mut index, mut timestamp) = (1u64 << 20, 0u32);
    let mut inserted = 0;
    for _ in 0..MAX_STEPS {
        let Some((&[pause, ahead, shift, length], after)) = rest.split_first_chunk::<4>() else { break };
        let (payload, after) = after.split_at(usize::from(length).min(after.len()));
        rest = after;
        now += Duration::from_millis(pause.into());
        play(&mut receiver, now);
        index = match ahead as i8 {
            i8::MIN => index.rotate_left(13),
            ahead => index.wrapping_add_signed(i64::from(ahead)),
        };
        timestamp = match shift as i8 {
            i8::MIN => timestamp.wrapping_add(1 << 31),
            shift => timestamp.wrapping_add_signed(i32::from(shift) * 120),
        };
        // Octets of no length stand for the source's being replaced.
        if length == 255 {
            receiver.reset();
        }
        receiver.insert(now, index, timestamp, payload);
        inserted += 1;
        index = index.wrapping_add(1);
        timestamp = timestamp.wrapping_add(codec.clock_rate() / 50);

        let stats = receiver.stats();
        assert!(stats.target_delay <= bounds.max, "{stats:?}");
        assert_eq!(stats.received, inserted);
        assert!(stats.late + stats.duplicate + stats.flushed + stats.malformed <= inserted, "{stats:?}");
    }
    // Everything comes to an end: a jump of the timestamps is never played out as hours of silence.
    play(&mut receiver, now + Duration::from_secs(3_600));
    assert_eq!(receiver.poll_timeout(), None);
}

/// Takes all that is due, which is bounded by what a bounded buffer can hold.
fn play(receiver: &mut AudioReceiver, until: Instant) {
    let mut out = Vec::new();
    let mut steps = 0;
    while let Some(due) = receiver.poll_timeout().filter(|due| *due <= until) {
        out.clear();
        let pulled = receiver.pull(due, &mut out);
        assert_eq!(pulled.kind == PulledKind::Empty, out.is_empty(), "{pulled:?}");
        assert_eq!(out.len() % usize::from(receiver.output().channels), 0);
        assert!(out.len() <= MAX_SAMPLES, "{} samples in one step", out.len());
        steps += 1;
        assert!(steps < 20_000, "the buffer never gets empty");
    }
}
