//! Whole streams over a simulated network, in virtual time: what the jitter buffer has to reach.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests are tests, and their figures are printed"
)]

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use streamfleet_audio::tone::Voice;
use streamfleet_audio::{AudioReceiver, AudioSender, Codec, DelayBounds, PcmFormat, Pulled, PulledKind, ReceiverStats};

const RATE: u32 = 16_000;
/// Three seconds before the timestamp wraps.
const FIRST_TIMESTAMP: u32 = u32::MAX - 3 * 48_000;

/// What the network does to packet `n`: its delay, or nothing if it is lost.
type Fate<'a> = &'a mut dyn FnMut(u32, &mut StdRng) -> Option<Duration>;

fn ms(milliseconds: f64) -> Duration {
    Duration::from_secs_f64(milliseconds / 1_000.0)
}

/// A talker's packets as our own sender makes them, all of 20 ms. With loss reported, it adds redundancy.
fn packets(seconds: u32, reported_loss: f32) -> Vec<(u32, Vec<u8>)> {
    let start = Instant::now();
    let mut sender = AudioSender::new(Codec::Opus).unwrap();
    let mut voice = Voice::new(RATE, 7);
    let mut made = Vec::new();
    for n in 0..seconds * 50 {
        let now = start + Duration::from_millis(20) * n;
        if n % 50 == 0 {
            sender.report(now, reported_loss);
        }
        let mut block = [0; RATE as usize / 50];
        voice.fill(&mut block);
        sender.push(now, &block, PcmFormat::mono(RATE)).unwrap();
        let mut payload = Vec::new();
        let info = sender.poll(now, &mut payload).unwrap();
        made.push((info.timestamp, payload));
    }
    made
}

/// One step with the time it was taken and the statistics after it.
struct Taken {
    at: Duration,
    pulled: Pulled,
    stats: ReceiverStats,
}

struct Run {
    steps: Vec<Taken>,
    stats: ReceiverStats,
}

impl Run {
    fn concealed_percent(&self) -> f64 {
        100.0 * self.stats.concealed_time.as_secs_f64() / self.stats.played.as_secs_f64()
    }

    /// Highest and mean delay (ms) of the steps taken in a span of time (s).
    fn delay(&self, from: f64, to: f64) -> (f64, f64) {
        let span = from..to;
        let delays: Vec<f64> = self
            .steps
            .iter()
            .filter(|step| span.contains(&step.at.as_secs_f64()))
            .map(|step| step.stats.current_delay.as_secs_f64() * 1_000.0)
            .collect();
        (delays.iter().copied().fold(0.0, f64::max), delays.iter().sum::<f64>() / delays.len() as f64)
    }
}

/// Sends one packet per 20 ms through the network and takes every step when it is due.
fn run(seed: u64, packets: &[(u32, Vec<u8>)], fate: Fate<'_>) -> Run {
    let start = Instant::now();
    let mut random = StdRng::seed_from_u64(seed);
    let mut arrivals: Vec<(Duration, usize)> = (0..packets.len())
        .filter_map(|n| Some((Duration::from_millis(20) * n as u32 + fate(n as u32, &mut random)?, n)))
        .collect();
    arrivals.sort();
    let mut receiver = AudioReceiver::new(Codec::Opus, PcmFormat::mono(RATE), DelayBounds::default()).unwrap();
    let (mut steps, mut out) = (Vec::new(), Vec::new());
    let mut arrivals = arrivals.into_iter().peekable();
    loop {
        let arrival = arrivals.peek().map(|&(at, _)| start + at);
        match (arrival, receiver.poll_timeout()) {
            (Some(at), due) if due.is_none_or(|due| at <= due) => {
                let (_, n) = arrivals.next().unwrap();
                receiver.insert(at, 1_000 + n as u64, FIRST_TIMESTAMP.wrapping_add(packets[n].0), &packets[n].1);
            }
            (_, Some(due)) => {
                out.clear();
                let pulled = receiver.pull(due, &mut out);
                assert_eq!(PcmFormat::mono(RATE).duration(out.len()), pulled.duration);
                if pulled.kind != PulledKind::Empty {
                    steps.push(Taken { at: due - start, pulled, stats: receiver.stats() });
                }
            }
            (_, None) => return Run { steps, stats: receiver.stats() },
        }
    }
}

#[test]
fn clean_network() {
    let run = run(1, &packets(30, 0.0), &mut |_, _| Some(ms(50.0)));
    let (highest, mean) = run.delay(0.0, 30.0);
    println!(
        "clean: {} concealed before the end, delay mean {mean:.1} ms, highest {highest:.1} ms",
        run.stats.concealed - 10
    );
    assert!(run.steps.iter().take(1_500).all(|step| step.pulled.kind == PulledKind::Decoded));
    // After the last packet 100 ms are made up, then nothing is due any more.
    assert_eq!(run.stats.concealed, 10);
    assert!(highest <= 25.0 + 100.0 && run.delay(0.0, 29.9).0 <= 25.0, "{highest}");
    assert_eq!((run.stats.late, run.stats.lost, run.stats.flushed), (0, 0, 0));
}

#[test]
fn a_little_jitter_costs_no_delay() {
    let run = run(2, &packets(30, 0.0), &mut |_, random| Some(ms(50.0 + random.random_range(0.0..10.0))));
    let (highest, mean) = run.delay(0.0, 29.8);
    println!(
        "10 ms of jitter: {:.2} % concealed, delay mean {mean:.1} ms, highest {highest:.1} ms",
        run.concealed_percent()
    );
    assert!(mean <= 25.0 && highest <= 30.0);
    assert!(run.stats.concealed - 10 <= 2);
}

#[test]
fn forty_milliseconds_of_jitter() {
    let packets = packets(60, 0.0);
    for seed in 0..8 {
        let run = run(seed, &packets, &mut |_, random| Some(ms(50.0 + random.random_range(0.0..40.0))));
        let (highest, mean) = run.delay(0.0, 59.8);
        let concealed = run.concealed_percent();
        println!(
            "40 ms of jitter, seed {seed}: {concealed:.2} % concealed, {} late, delay mean {mean:.1} ms, highest {highest:.1} ms, {} accelerated, {} expanded",
            run.stats.late, run.stats.accelerated, run.stats.expanded
        );
        // The 100 ms made up after the last packet count here as well.
        assert!(concealed <= 0.5, "{concealed}");
        assert!(highest <= 80.0, "{highest}");
    }
}

#[test]
fn quiet_after_jitter() {
    let packets = packets(60, 0.0);
    for seed in 0..8 {
        let run = run(seed, &packets, &mut |n, random| {
            Some(ms(50.0 + if n < 1_500 { random.random_range(0.0..40.0) } else { 0.0 }))
        });
        let (before, _) = run.delay(25.0, 30.0);
        let back = run
            .steps
            .iter()
            .rfind(|step| step.at.as_secs_f64() < 59.8 && step.stats.current_delay > ms(40.0))
            .map_or(0.0, |step| step.at.as_secs_f64() - 30.0);
        let (highest, _) = run.delay(40.0, 59.8);
        println!(
            "quiet, seed {seed}: from {before:.1} ms, at 40 ms or less after {back:.1} s, {highest:.1} ms after 10 s"
        );
        assert!(highest <= 40.0, "{highest}");
    }
}

#[test]
fn ten_percent_loss_with_redundancy() {
    let packets = packets(60, 0.1);
    for seed in 0..8 {
        let mut lost = vec![false; packets.len()];
        let run = run(seed, &packets, &mut |n, random| {
            lost[n as usize] = n > 10 && random.random_bool(0.1);
            (!lost[n as usize]).then(|| ms(50.0 + random.random_range(0.0..5.0)))
        });
        let single = (1..lost.len() - 1).filter(|&n| lost[n] && !lost[n - 1] && !lost[n + 1]).count();
        // A packet before a received one is repairable also at the end of a burst; count the single ones only.
        let repaired_at = |n: usize| {
            let position = Duration::from_millis(20) * n as u32;
            run.steps.iter().any(|step| step.pulled.kind == PulledKind::Fec && step.pulled.position == position)
        };
        let repaired =
            (1..lost.len() - 1).filter(|&n| lost[n] && !lost[n - 1] && !lost[n + 1] && repaired_at(n)).count();
        let (highest, mean) = run.delay(0.0, 59.8);
        println!(
            "10 % loss, seed {seed}: {repaired} of {single} single losses repaired ({:.0} %), {} repaired in all, {} lost, {:.1} % concealed, delay mean {mean:.1} ms, highest {highest:.1} ms",
            100.0 * repaired as f64 / single as f64,
            run.stats.fec_repaired,
            run.stats.lost,
            run.concealed_percent()
        );
        assert!(repaired * 100 >= single * 60, "{repaired} of {single}");
        // Audio made up in a burst of losses counts as delay until the burst is over.
        assert!(mean <= 40.0 && highest <= 120.0);
        // Losses after the last packet that arrived cannot be known.
        let last = lost.iter().rposition(|&lost| !lost).unwrap();
        assert_eq!(run.stats.lost as usize, lost[..last].iter().filter(|&&lost| lost).count());
    }
}

#[test]
fn an_outage_is_survived() {
    // Nothing for 600 ms, then everything at once.
    let run = run(3, &packets(20, 0.0), &mut |n, _| {
        let held = (500..530).contains(&n);
        Some(if held { ms(50.0) + Duration::from_millis(20) * (530 - n) } else { ms(50.0) })
    });
    let (after, _) = run.delay(15.0, 19.8);
    println!(
        "outage of 600 ms: {} flushed, {:.2} % concealed, delay five seconds later {after:.1} ms",
        run.stats.flushed,
        run.concealed_percent()
    );
    assert!(after <= 40.0, "{after}");
    assert!(run.delay(10.0, 19.8).0 <= 210.0);
    assert!(run.stats.concealed <= 30);
}

#[test]
fn clock_drift_is_followed() {
    // A sender that is 200 ppm fast, then one that is 200 ppm slow: 12 ms in a minute.
    for drift in [-0.004, 0.004] {
        let run = run(4, &packets(60, 0.0), &mut |n, _| Some(ms(50.0 + f64::from(n) * drift)));
        let (highest, _) = run.delay(1.0, 59.8);
        println!(
            "drift of {drift} ms per packet: delay at most {highest:.1} ms, {} concealed, {} accelerated",
            run.stats.concealed - 10,
            run.stats.accelerated
        );
        assert!(highest <= 30.0);
        assert_eq!(run.stats.concealed, 10);
    }
}

#[test]
fn a_longer_route_in_the_middle_of_a_call() {
    let run = run(5, &packets(30, 0.0), &mut |n, _| Some(ms(if n < 500 { 20.0 } else { 90.0 })));
    let (highest, _) = run.delay(25.0, 29.8);
    println!("route 70 ms longer: {} concealed, delay at most {highest:.1} ms later", run.stats.concealed - 10);
    assert!(run.stats.concealed - 10 <= 8);
    assert!(highest <= 30.0);
}

#[test]
fn a_run_is_repeatable() {
    let packets = packets(5, 0.1);
    let again =
        || run(9, &packets, &mut |_, random| random.random_bool(0.9).then(|| ms(random.random_range(0.0..60.0)))).stats;
    assert_eq!(again(), again());
}
