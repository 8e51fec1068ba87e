//! In steady state no packet costs an allocation, and a pair of tracks fits its share of memory.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests are tests, and their figures are printed"
)]

use std::time::{Duration, Instant};

use streamfleet_audio::resample::Resampler;
use streamfleet_audio::tone::Voice;
use streamfleet_audio::{AudioReceiver, AudioSender, Codec, DelayBounds, PcmFormat};
use streamfleet_counting::{Counting, calls, held};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// libopus allocates with C's `malloc`, which is not seen here; its sizes are those of `opus_encoder_get_size(1)` and
/// `opus_decoder_get_size(1)` in version 1.6.1.
const OPUS_ENCODER: i64 = 31_668;
const OPUS_DECODER: i64 = 18_468;

/// Echoes a voice through receiver and sender for some seconds; gives allocations in the last of them and bytes held.
fn echo(codec: Codec, talker_rate: u32, handler: PcmFormat) -> (u64, i64) {
    let start = Instant::now();
    let mut voice = Voice::new(talker_rate, 3);
    let mut talker = AudioSender::new(codec).unwrap();
    let mut packet = Vec::new();
    let mut block = vec![0; talker_rate as usize / 50];
    let packets: Vec<(u32, Vec<u8>)> = (0..500u32)
        .map(|n| {
            let now = start + Duration::from_millis(20) * n;
            voice.fill(&mut block);
            talker.push(now, &block, PcmFormat::mono(talker_rate)).unwrap();
            talker.poll(now, &mut packet).map_or((0, Vec::new()), |info| (info.timestamp, packet.clone()))
        })
        .collect();
    // The handler's own buffers belong to the handler.
    let (mut pcm, mut payload) = (Vec::with_capacity(20_000), Vec::with_capacity(2_000));
    // Filter coefficients are shared by all streams of a process: another one holds them already.
    let _others = [Resampler::new(48_000, handler.rate, 1), Resampler::new(handler.rate, 48_000, 1)];
    let _telephone = [Resampler::new(8_000, handler.rate, 1), Resampler::new(handler.rate, 8_000, 1)];
    let before = held();
    let mut receiver = AudioReceiver::new(codec, handler, DelayBounds::default()).unwrap();
    let mut sender = AudioSender::new(codec).unwrap();
    let (mut settled, mut sent) = (0, 0);
    for (n, (timestamp, bytes)) in packets.iter().enumerate() {
        if n == 300 {
            settled = calls();
        }
        // Jitter, a reordered pair and a loss now and then, so that every path is taken.
        let arrival = start + Duration::from_millis(20) * n as u32 + Duration::from_millis((n * 7 % 12) as u64);
        if n % 50 != 49 && !bytes.is_empty() {
            receiver.insert(arrival, n as u64, *timestamp, bytes);
        }
        let until = start + Duration::from_millis(20) * (n as u32 + 1);
        while let Some(due) = receiver.poll_timeout().filter(|&due| due <= until) {
            pcm.clear();
            receiver.pull(due, &mut pcm);
            sender.push(due, &pcm, handler).unwrap();
        }
        while let Some(due) = sender.poll_timeout().filter(|&due| due <= until) {
            sent += u32::from(sender.poll(due, &mut payload).is_some());
        }
    }
    assert!(sent > 450, "{sent} packets echoed");
    (calls() - settled, held() - before)
}

#[test]
fn steady_state() {
    let stereo = PcmFormat { rate: 48_000, channels: 2 };
    for (codec, talker, handler) in [
        (Codec::Opus, 48_000, PcmFormat::mono(16_000)),
        (Codec::Opus, 16_000, PcmFormat::mono(24_000)),
        (Codec::Opus, 48_000, PcmFormat::mono(44_100)),
        (Codec::Opus, 48_000, stereo),
        (Codec::Pcmu, 8_000, PcmFormat::mono(8_000)),
        (Codec::Pcma, 8_000, PcmFormat::mono(24_000)),
    ] {
        let (allocations, bytes) = echo(codec, talker, handler);
        let own = size_of::<AudioReceiver>() + size_of::<AudioSender>();
        let library = if codec == Codec::Opus { OPUS_ENCODER + OPUS_DECODER } else { 0 };
        let total = bytes + own as i64 + library;
        println!(
            "{codec:?} {talker} Hz, handler {} Hz x{}: {allocations} allocations in 4 s, {own} + {bytes} bytes of ours, {total} with libopus",
            handler.rate, handler.channels
        );
        assert_eq!(allocations, 0);
        if handler.channels == 1 {
            assert!(total <= 80_000, "{total} bytes");
        }
    }
}

#[test]
fn an_idle_pair_of_tracks_holds_no_buffers() {
    let before = held();
    let receiver = AudioReceiver::new(Codec::Opus, PcmFormat::mono(24_000), DelayBounds::default()).unwrap();
    let sender = AudioSender::new(Codec::Opus).unwrap();
    assert_eq!(held() - before, 0);
    assert_eq!((receiver.poll_timeout(), sender.poll_timeout()), (None, None));
}
