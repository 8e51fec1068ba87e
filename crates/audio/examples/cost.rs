//! What the audio path costs: CPU of one core per stream in each mode, for the choice of the encoder's complexity.
//!
//! `cargo run --release -p streamfleet-audio --example cost`
//!
//! Absolute figures depend on the machine and its other load; the ratios hardly do.

#![allow(clippy::print_stdout, reason = "a program that prints its measurements")]

use std::time::{Duration, Instant};

use streamfleet_audio::analysis::level_dbfs;
use streamfleet_audio::resample::Resampler;
use streamfleet_audio::tone::Voice;
use streamfleet_audio::{AudioReceiver, AudioSender, Codec, DelayBounds, PcmFormat};

/// Audio per measurement; the best of some runs counts, as other load can only add.
const SECONDS: u32 = 10;
const RUNS: usize = 5;

/// CPU time of this thread.
fn cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec, which the call fills.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Percent of a core that the work takes if it is for [`SECONDS`] of audio.
fn percent(mut work: impl FnMut()) -> f64 {
    let best = (0..RUNS).map(|_| {
        let before = cpu();
        work();
        cpu() - before
    });
    100.0 * best.min().unwrap_or_default().as_secs_f64() / f64::from(SECONDS)
}

fn voice(rate: u32) -> Vec<i16> {
    let mut samples = vec![0; (rate * SECONDS) as usize];
    Voice::new(rate, 5).fill(&mut samples);
    samples
}

struct Setting {
    name: &'static str,
    signal: opus::Signal,
    application: opus::Application,
    bandwidth: opus::Bandwidth,
    loss: i32,
}

fn encode(rate: u32, setting: &Setting, complexity: i32, samples: &[i16]) -> Result<Vec<Vec<u8>>, opus::Error> {
    let mut encoder = opus::Encoder::new(rate, opus::Channels::Mono, setting.application)?;
    encoder.set_signal(setting.signal)?;
    encoder.set_max_bandwidth(setting.bandwidth)?;
    encoder.set_complexity(complexity)?;
    encoder.set_bitrate(opus::Bitrate::Bits(32_000))?;
    encoder.set_inband_fec(setting.loss > 0)?;
    encoder.set_packet_loss_perc(setting.loss)?;
    let mut buffer = [0; 1_276];
    samples
        .chunks_exact(rate as usize / 50)
        .map(|block| encoder.encode(block, &mut buffer).map(|length| buffer[..length].to_vec()))
        .collect()
}

fn decode(rate: u32, packets: &[Vec<u8>]) -> Result<Vec<i16>, opus::Error> {
    let mut decoder = opus::Decoder::new(rate, opus::Channels::Mono)?;
    let mut samples = vec![0; rate as usize / 50 * packets.len()];
    for (packet, block) in packets.iter().zip(samples.chunks_exact_mut(rate as usize / 50)) {
        decoder.decode(packet, block, false)?;
    }
    Ok(samples)
}

/// Mean level of the difference in dB below the signal, over 20 ms blocks that are not quiet, at the best alignment.
fn segmental_snr(rate: u32, original: &[i16], heard: &[i16]) -> f64 {
    let block = rate as usize / 50;
    let ratio = |lag: usize| {
        let pairs = original.chunks_exact(block).zip(heard[lag..].chunks_exact(block));
        let ratios: Vec<f64> = pairs
            .filter(|(here, _)| level_dbfs(here) > -40.0)
            .map(|(here, there)| {
                let noise: Vec<i16> = here.iter().zip(there).map(|(a, b)| a.saturating_sub(*b)).collect();
                f64::from(level_dbfs(here) - level_dbfs(&noise)).clamp(-10.0, 35.0)
            })
            .collect();
        ratios.iter().sum::<f64>() / ratios.len().max(1) as f64
    };
    (0..rate as usize / 100).map(ratio).fold(f64::MIN, f64::max)
}

fn codec_table() -> Result<(), opus::Error> {
    let settings = [
        Setting {
            name: "transform (CELT)",
            signal: opus::Signal::Music,
            application: opus::Application::Audio,
            bandwidth: opus::Bandwidth::Fullband,
            loss: 0,
        },
        Setting {
            name: "restricted low delay",
            signal: opus::Signal::Auto,
            application: opus::Application::LowDelay,
            bandwidth: opus::Bandwidth::Fullband,
            loss: 0,
        },
        Setting {
            name: "speech + FEC, wideband",
            signal: opus::Signal::Voice,
            application: opus::Application::Audio,
            bandwidth: opus::Bandwidth::Wideband,
            loss: 10,
        },
        Setting {
            name: "speech + FEC, hybrid",
            signal: opus::Signal::Voice,
            application: opus::Application::Audio,
            bandwidth: opus::Bandwidth::Fullband,
            loss: 10,
        },
    ];
    println!("{} at 32 kbit/s, mono, 20 ms; % of one core per stream", opus::version());
    println!(
        "{:<24} {:>6} {:>10} {:>8} {:>8} {:>9} {:>9}",
        "mode", "Hz", "complexity", "encode", "decode", "bytes", "segSNR dB"
    );
    for rate in [16_000, 24_000, 48_000] {
        let samples = voice(rate);
        for setting in &settings {
            for complexity in [0, 1, 2, 4, 5, 8, 10] {
                let packets = encode(rate, setting, complexity, &samples)?;
                let heard = decode(rate, &packets)?;
                let encoding = percent(|| drop(encode(rate, setting, complexity, &samples)));
                let decoding = percent(|| drop(decode(rate, &packets)));
                let bytes = packets.iter().map(Vec::len).sum::<usize>() / packets.len();
                let ratio = segmental_snr(rate, &samples, &heard);
                println!(
                    "{:<24} {rate:>6} {complexity:>10} {encoding:>8.3} {decoding:>8.3} {bytes:>9} {ratio:>9.1}",
                    setting.name
                );
            }
        }
    }
    Ok(())
}

/// The whole path of an echo through a handler: receiver, sender, with our own choice of modes.
fn path_table() -> Result<(), streamfleet_audio::AudioError> {
    println!(
        "\n{:<10} {:>10} {:>14} {:>10} {:>10} {:>8}",
        "codec", "talker Hz", "handler Hz", "receiver", "sender", "sum"
    );
    for (codec, talker, handler, loss) in [
        (Codec::Opus, 48_000, 16_000, 0.0),
        (Codec::Opus, 48_000, 24_000, 0.0),
        (Codec::Opus, 48_000, 48_000, 0.0),
        (Codec::Opus, 48_000, 44_100, 0.0),
        (Codec::Opus, 48_000, 24_000, 0.1),
        (Codec::Pcmu, 8_000, 8_000, 0.0),
        (Codec::Pcmu, 8_000, 24_000, 0.0),
    ] {
        let start = Instant::now();
        let at = |n: usize| start + Duration::from_millis(20) * n as u32;
        let mut source = AudioSender::new(codec)?;
        source.report(start, loss);
        let samples = voice(talker);
        let mut packets = Vec::new();
        for (n, block) in samples.chunks_exact(talker as usize / 50).enumerate() {
            let mut payload = Vec::new();
            source.push(at(n), block, PcmFormat::mono(talker))?;
            if let Some(info) = source.poll(at(n), &mut payload) {
                packets.push((info.timestamp, payload));
            }
        }
        let format = PcmFormat::mono(handler);
        let mut failed = None;
        let receiving = percent(|| {
            let mut out = Vec::new();
            match AudioReceiver::new(codec, format, DelayBounds::default()) {
                Ok(mut receiver) => {
                    for (n, (timestamp, payload)) in packets.iter().enumerate() {
                        receiver.insert(at(n), n as u64, *timestamp, payload);
                        while let Some(due) = receiver.poll_timeout().filter(|&due| due <= at(n)) {
                            out.clear();
                            receiver.pull(due, &mut out);
                        }
                    }
                }
                Err(error) => failed = Some(error),
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        let reply = voice(handler);
        let mut failed = None;
        let sending = percent(|| {
            let mut payload = Vec::new();
            let mut work = || {
                let mut sender = AudioSender::new(codec)?;
                sender.report(start, loss);
                for (n, block) in reply.chunks_exact(handler as usize / 50).enumerate() {
                    sender.push(at(n), block, format)?;
                    while sender.poll(at(n), &mut payload).is_some() {}
                }
                Ok(())
            };
            failed = work().err();
        });
        if let Some(error) = failed {
            return Err(error);
        }
        let name = if loss > 0.0 { format!("{} lossy", codec.name()) } else { codec.name().to_owned() };
        println!(
            "{name:<10} {talker:>10} {handler:>14} {receiving:>10.3} {sending:>10.3} {:>8.3}",
            receiving + sending
        );
    }
    Ok(())
}

/// Our resampler beside rubato's FFT one in its smallest chunks.
fn resampler_table() -> Result<(), Box<dyn std::error::Error>> {
    use rubato::Resampler as _;
    use rubato::audioadapter_buffers::direct::InterleavedSlice;

    println!("\n{:<18} {:>8} {:>10} {:>10} {:>12}", "resampler", "ours", "delay ms", "rubato", "delay ms");
    for (from, to) in [(8_000u32, 24_000u32), (48_000, 44_100), (44_100, 48_000), (24_000, 48_000), (48_000, 16_000)] {
        let samples = voice(from);
        let mut out = Vec::new();
        let ours = percent(|| {
            let mut resampler = Resampler::new(from, to, 1);
            for block in samples.chunks_exact(from as usize / 50) {
                out.clear();
                resampler.process(block, &mut out);
            }
        });
        let delay = 1_000.0 * Resampler::new(from, to, 1).delay() as f64 / f64::from(from);
        let chunk = from as usize / 200;
        let mut theirs = rubato::Fft::<f32>::new(from as usize, to as usize, chunk, 1, rubato::FixedSync::Both)?;
        let chunk = theirs.input_frames_next();
        let their_delay = 1_000.0 * (theirs.output_delay() as f64 / f64::from(to) + chunk as f64 / f64::from(from));
        let input: Vec<f32> = samples.iter().map(|&sample| f32::from(sample)).collect();
        let mut output = vec![0.0; theirs.output_frames_max()];
        let mut failed = None;
        let cost = percent(|| {
            for block in input.chunks_exact(chunk) {
                let frames = output.len();
                let result =
                    InterleavedSlice::new(block, 1, chunk).map_err(|error| error.to_string()).and_then(|input| {
                        let mut output =
                            InterleavedSlice::new_mut(&mut output, 1, frames).map_err(|error| error.to_string())?;
                        theirs.process_into_buffer(&input, &mut output, None).map_err(|error| error.to_string())
                    });
                failed = result.err();
            }
        });
        if let Some(error) = failed {
            return Err(error.into());
        }
        println!("{:<18} {ours:>8.4} {delay:>10.2} {cost:>10.4} {their_delay:>12.2}", format!("{from} -> {to}"));
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    path_table()?;
    resampler_table()?;
    codec_table()?;
    Ok(())
}
