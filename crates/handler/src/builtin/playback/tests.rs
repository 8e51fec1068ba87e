use std::io::Cursor;

use hound::{SampleFormat, WavSpec, WavWriter};
use ogg::{PacketWriteEndInfo, PacketWriter};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::Ended;
use crate::scratch::Scratch;
use crate::testing::{Drive, level_dbfs, sine, tone_level};

fn wav_file(spec: WavSpec, write: impl Fn(&mut WavWriter<&mut Cursor<Vec<u8>>>)) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    let mut writer = WavWriter::new(&mut file, spec).unwrap();
    write(&mut writer);
    writer.finalize().unwrap();
    file.into_inner()
}

fn spec(channels: u16, sample_rate: u32, bits_per_sample: u16, sample_format: SampleFormat) -> WavSpec {
    WavSpec { channels, sample_rate, bits_per_sample, sample_format }
}

/// Half a second of a tone.
fn tone_wav(rate: u32) -> Vec<u8> {
    let tone: Vec<_> = sine(PcmFormat::mono(rate), 440.0, -12.0).take(25).flat_map(|frame| frame.samples).collect();
    wav_file(spec(1, rate, 16, SampleFormat::Int), |writer| tone.iter().for_each(|&s| writer.write_sample(s).unwrap()))
}

fn opus_head(channels: u8, family: u8) -> Vec<u8> {
    let mut head = b"OpusHead\x01".to_vec();
    head.push(channels);
    head.extend([0x38, 1, 0x80, 0xbb, 0, 0, 0, 0, family]);
    head
}

/// An Ogg file with these packets, and their end on the last.
fn ogg(packets: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = PacketWriter::new(&mut file);
    for (number, packet) in packets.iter().enumerate() {
        let info = match number {
            0 | 1 => PacketWriteEndInfo::EndPage,
            _ if number + 1 == packets.len() => PacketWriteEndInfo::EndStream,
            _ => PacketWriteEndInfo::NormalPacket,
        };
        writer.write_packet(packet.clone(), 7, info, number as u64 * 960).unwrap();
    }
    file
}

fn opus_file(packets: &[Vec<u8>]) -> Vec<u8> {
    ogg(&[&[opus_head(1, 0), b"OpusTags\0\0\0\0\0\0\0\0".to_vec()], packets].concat())
}

fn prototype(config: Value) -> Box<dyn Handler> {
    match Playback::configure(config).unwrap() {
        Registered::Handler(handler) => handler,
        Registered::Packets(_) => panic!("playback has a task"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_wav_file_plays_to_its_last_sample_and_ends() {
    let scratch = Scratch::new();
    // Rates at which 20 ms are a whole number of samples, and not.
    for rate in [8_000, 11_025, 24_000, 44_100] {
        let file = tone_wav(rate);
        let expected = wav::read(&file[..], Duration::MAX).unwrap().samples;
        let prototype = prototype(json!({ "path": scratch.file("tone.wav", &file) }));
        let Media::Frames { output, .. } = prototype.media() else { panic!("a WAV file is played as frames") };
        assert_eq!(output, PcmFormat::mono(rate));

        let mut drive = Drive::start(prototype.copy());
        let emits = drive.rest().await;
        assert_eq!(drive.ended().await, Ended::EndStream(None));
        let (end, frames) = emits.split_last().unwrap();
        assert_eq!(*end, Emit::EndStream(None));
        let mut heard = Vec::new();
        for emit in frames {
            let Emit::Audio(frame) = emit else { panic!("{emit:?} between frames") };
            // Each frame's own rounding to the nanosecond adds up.
            let expected = output.duration(heard.len());
            assert!(expected - frame.timestamp < Duration::from_micros(1), "{:?} {expected:?}", frame.timestamp);
            heard.extend_from_slice(&frame.samples);
        }
        assert_eq!(heard, expected);
        assert!((tone_level(&heard, rate, 440.0) - -12.0).abs() < 0.1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_wav_file_loops_without_a_gap() {
    let scratch = Scratch::new();
    // 25 frames of 440 Hz are 220 whole periods: the end fits the beginning.
    let path = scratch.file("tone.wav", &tone_wav(8_000));
    let mut drive = Drive::start(prototype(json!({ "path": path, "loop": true })).copy());
    let heard = drive.audio(Duration::from_secs(3)).await;
    assert!((tone_level(&heard, 8_000, 440.0) - -12.0).abs() < 0.05);
    assert!((level_dbfs(&heard) - -12.0).abs() < 0.05, "and nothing but the tone");
    drive.cancel();
    assert_eq!(drive.ended().await, Ended::Cancelled);
}

/// A 20 ms packet and its content.
fn packet(content: u8) -> Vec<u8> {
    vec![0x78, content, content]
}

#[tokio::test(start_paused = true)]
async fn opus_packets_go_out_untouched_at_their_own_times() {
    let scratch = Scratch::new();
    let forty = vec![0x78 | 1, 9, 9, 9, 9];
    let mut packets: Vec<_> = (0..60).map(packet).collect();
    packets.insert(1, forty.clone());
    let path = scratch.file("speech.opus", &opus_file(&packets));
    let prototype = prototype(json!({ "path": path }));
    assert_eq!(prototype.media(), Media::Packets);

    let mut drive = Drive::start(prototype.copy());
    let began = Instant::now();
    let mut due = Duration::ZERO;
    for (index, expected) in (0_u64..).zip(&packets) {
        let Some(Emit::Packet(packet)) = drive.next().await else { panic!("no packet {index}") };
        // Timers have a resolution of 1 ms.
        let late = began.elapsed() - due;
        assert!(late <= Duration::from_millis(1), "packet {index} is {late:?} late");
        assert_eq!(packet.payload, *expected);
        assert_eq!((packet.index, packet.marker), (index, index == 0));
        assert_eq!(packet.timestamp, due.as_micros() as u32 * 48 / 1_000);
        due += if *expected == forty { Duration::from_millis(40) } else { Duration::from_millis(20) };
    }
    assert_eq!(drive.next().await, Some(Emit::EndStream(None)));
    assert!(began.elapsed() >= due, "the last packet has its time");
    assert_eq!(drive.ended().await, Ended::EndStream(None));
}

#[tokio::test(start_paused = true)]
async fn opus_packets_loop_with_a_clock_that_goes_on() {
    let scratch = Scratch::new();
    let path = scratch.file("short.opus", &opus_file(&[packet(1), packet(2)]));
    let mut drive = Drive::start(prototype(json!({ "path": path, "loop": true })));
    for index in 0_u64..101 {
        let Some(Emit::Packet(sent)) = drive.next().await else { panic!("no packet {index}") };
        assert_eq!((sent.index, sent.timestamp), (index, index as u32 * 960));
        assert_eq!(sent.payload, packet(1 + (index % 2) as u8));
        assert_eq!(sent.marker, index == 0);
    }
}

#[test]
fn what_cannot_be_played_says_why() {
    fn check(content: &[u8], expected: &str) {
        let scratch = Scratch::new();
        let path = scratch.file("file", content);
        let error = Playback::configure(json!({ "path": path })).unwrap_err().to_string();
        assert_eq!(error, format!("`path` {expected}"));
    }
    check(b"", "is neither a WAV nor an Ogg file");
    check(b"ID3 is something else", "is neither a WAV nor an Ogg file");
    check(b"RIFF", "is not a WAV file that can be played: Failed to read enough bytes.");
    let empty = wav_file(spec(1, 8_000, 16, SampleFormat::Int), |_| ());
    check(&empty, "has no audio in it");
    let fast = wav_file(spec(1, 400_000, 16, SampleFormat::Int), |w| w.write_sample(0).unwrap());
    let refused = "is not a WAV file that can be played:";
    let possible = "8000 to 192000 Hz and 1 to 8 channels can be used";
    check(&fast, &format!("{refused} 400000 Hz and 1 channels; {possible}"));
    let wide = wav_file(spec(9, 8_000, 16, SampleFormat::Int), |w| (0..9).for_each(|_| w.write_sample(0).unwrap()));
    check(&wide, &format!("{refused} 8000 Hz and 9 channels; {possible}"));

    let tags = b"OpusTags".to_vec();
    check(
        &ogg(&[b"\x01vorbis".to_vec(), vec![0], vec![0]]),
        "is an Ogg file, but not of Opus with one or two channels",
    );
    check(
        &ogg(&[opus_head(6, 1), tags.clone(), packet(0)]),
        "is an Ogg file, but not of Opus with one or two channels",
    );
    check(&ogg(&[opus_head(2, 0), packet(0), packet(0)]), "is an Ogg file, but not of Opus with one or two channels");
    check(&opus_file(&[]), "has no audio in it");
    check(
        &opus_file(&[packet(0), vec![0x78 | 3, 63], packet(0)]),
        "has an Opus packet, number 2, that breaks RFC 6716",
    );
    check(&opus_file(&[vec![0x78; 1_201]]), "has a packet of 1201 bytes; 1200 fit into one RTP packet");
    let chained = [opus_file(&[packet(0)]), {
        let mut file = Vec::new();
        PacketWriter::new(&mut file).write_packet(opus_head(1, 0), 8, PacketWriteEndInfo::EndStream, 0).unwrap();
        file
    }];
    check(&chained.concat(), "has several streams; one can be played");
}

#[test]
fn a_file_that_is_too_large_or_not_there_says_so() {
    let scratch = Scratch::new();
    let path = scratch.file("large.wav", b"RIFF");
    File::options().write(true).open(&path).unwrap().set_len(MAX_FILE + 1).unwrap();
    let error = Playback::open(Path::new(&path), Switch::Off).unwrap_err();
    assert_eq!(error.to_string(), "`path` is larger than 64 MiB");
    let error = Playback::configure(json!({ "path": "/no/such/file", "loop": 1 })).unwrap_err().to_string();
    assert!(error.starts_with("`loop` must be true or false, not 1; `path` cannot be read: "), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever is in a file, loading it ends with a clip or with words.
    #[test]
    fn damaged_files_are_refused_or_played(
        which in 0..3_usize,
        cut in 0..2_000_usize,
        damage in proptest::collection::vec((0..256_usize, any::<u8>()), 0..6),
    ) {
        let mut file = match which {
            0 => tone_wav(8_000),
            1 => wav_file(spec(2, 48_000, 24, SampleFormat::Int), |w| (0..200).for_each(|s| w.write_sample(s).unwrap())),
            _ => opus_file(&(0..40).map(packet).collect::<Vec<_>>()),
        };
        for (at, byte) in damage {
            let at = at % file.len();
            file[at] = byte;
        }
        if cut < file.len() && cut > 1_000 {
            file.truncate(cut);
        }
        if let Ok(clip) = wav::read(&file[..], Duration::MAX) {
            prop_assert!(clip.samples.len() <= file.len());
        }
        if let Ok(packets) = OpusPackets::parse(file) {
            prop_assert!(packets.len() > 0);
            for number in 0..packets.len() {
                let (payload, duration) = packets.get(number);
                prop_assert_eq!(CodecName::Opus.payload_duration(&payload), Some(duration));
            }
        }
    }
}
