//! What the sessions say: sound encoded once, and a number in each packet that an untouched packet brings back.
//!
//! The number is in the packet's padding, which decoders skip (RFC 6716 section 3.2.5): a packet of code 3 with one frame,
//! whose padding ends with a mark and the number. So a packet that comes back as it went is recognised whatever the
//! server did to its RTP header; one that was decoded and encoded again has lost its padding.

use std::time::Instant;

use anyhow::Context as _;
use streamfleet_audio::tone::{Tone, Voice};
use streamfleet_audio::{AudioSender, Codec, PcmFormat};

/// What the encoder is given. Wide-band speech, which is what voice services work with.
const RATE: u32 = 24_000;
/// Samples of a packet, 20 ms.
const PACKET: usize = RATE as usize / 50;
/// Packets of speech: three seconds.
const SPEECH: usize = 150;
/// Packets from one burst of a probe to the next: two seconds, so that no latency below that is taken for another.
pub(super) const BURST_EVERY: u64 = 100;
/// Packets of a burst.
const BURST: usize = 10;
/// A burst's pitch and level: far from silence, and from what codecs limit.
const BURST_HZ: f32 = 1_000.0;
const BURST_DBFS: f32 = -15.0;

/// What is heard between bursts: the hum of a room, far below what counts as a burst. Of digital silence a server sends
/// nothing back, and packets that it rightly leaves away would count as lost.
const ROOM_HZ: f32 = 200.0;
const ROOM_DBFS: f32 = -45.0;

/// Tells our padding from others'.
const MARK: [u8; 4] = [0x73, 0x66, 0x4C, 0x64];
/// Octets of mark and number.
const PADDING: u8 = 8;

/// An endless sequence of Opus packets of 20 ms, numbered.
#[derive(Debug)]
pub(super) struct Clip {
    /// With padding for the number.
    packets: Vec<Vec<u8>>,
}

impl Clip {
    /// Something that codecs take for speech, for ordinary sessions.
    pub(super) fn speech() -> anyhow::Result<Self> {
        let mut samples = vec![0; SPEECH * PACKET];
        Voice::new(RATE, 1).fill(&mut samples);
        Self::encode(&samples)
    }

    /// Short bursts of a tone in silence, whose beginnings can be found after decoding. The first packet of every
    /// [`BURST_EVERY`] begins one.
    pub(super) fn bursts() -> anyhow::Result<Self> {
        Self::encode(&burst(RATE))
    }

    fn encode(samples: &[i16]) -> anyhow::Result<Self> {
        let mut now = Instant::now();
        let mut sender = AudioSender::new(Codec::Opus)?;
        let mut packets = Vec::with_capacity(samples.len() / PACKET);
        // The clip twice, of which the second time is kept: so its beginning follows its end.
        for sample in [samples, samples] {
            packets.clear();
            sender.push(now, sample, PcmFormat { rate: RATE, channels: 1 })?;
            while let Some(due) = sender.poll_timeout() {
                now = due;
                let mut packet = Vec::new();
                sender.poll(now, &mut packet).context("the encoder failed")?;
                packets.push(pad(&packet).context("the encoder made a packet of several frames")?);
            }
        }
        Ok(Self { packets })
    }

    /// Appends packet `number`.
    pub(super) fn write(&self, number: u32, out: &mut Vec<u8>) {
        let packet = &self.packets[number as usize % self.packets.len()];
        let number_at = packet.len() - size_of::<u32>();
        out.extend_from_slice(&packet[..number_at]);
        out.extend_from_slice(&number.to_be_bytes());
    }
}

/// One burst in its room, at a rate that is a multiple of fifty: [`BURST_EVERY`] packets' samples.
pub(super) fn burst(rate: u32) -> Vec<i16> {
    let packet = rate as usize / 50;
    let mut samples = vec![0; BURST_EVERY as usize * packet];
    Tone::new(rate, ROOM_HZ, ROOM_DBFS).fill(&mut samples);
    Tone::new(rate, BURST_HZ, BURST_DBFS).fill(&mut samples[..BURST * packet]);
    samples
}

/// The number of a packet that came back untouched.
pub(super) fn number(packet: &[u8]) -> Option<u32> {
    let (rest, number) = packet.split_last_chunk::<4>()?;
    rest.ends_with(&MARK).then(|| u32::from_be_bytes(*number))
}

/// The same frame as code 3 with padding; `None` if the packet is not of code 0, one frame.
fn pad(packet: &[u8]) -> Option<Vec<u8>> {
    let (toc, frame) = packet.split_first().filter(|(toc, _)| *toc & 3 == 0)?;
    /// One frame, constant bit rate, with padding (RFC 6716 figure 5).
    const COUNT: u8 = 0b0100_0001;
    Some([&[toc | 3, COUNT, PADDING][..], frame, &MARK, &[0; 4]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbered_packets_decode_as_before() {
        for clip in [Clip::speech().unwrap(), Clip::bursts().unwrap()] {
            let mut plain = opus::Decoder::new(RATE, opus::Channels::Mono).unwrap();
            let mut padded = opus::Decoder::new(RATE, opus::Channels::Mono).unwrap();
            for i in 0..300 {
                let mut packet = vec![];
                clip.write(i, &mut packet);
                let original = [&[packet[0] & !3][..], &packet[3..packet.len() - 8]].concat();
                let (mut a, mut b) = ([0; PACKET], [0; PACKET]);
                assert_eq!(plain.decode(&original, &mut a, false).unwrap(), PACKET);
                assert_eq!(padded.decode(&packet, &mut b, false).unwrap(), PACKET);
                assert_eq!(a, b, "packet {i}");
                assert_eq!(number(&packet), Some(i));
                assert_eq!(number(&original), None);
            }
        }
    }

    #[test]
    fn no_packet_of_a_burst_is_silence() {
        let samples = burst(RATE);
        assert_eq!(samples.len(), BURST_EVERY as usize * PACKET);
        assert!(samples.chunks(PACKET).all(|packet| packet.iter().any(|sample| sample.unsigned_abs() > 50)));
        assert!(samples[BURST * PACKET..].iter().all(|sample| sample.unsigned_abs() < 1_000), "nor a burst");
    }

    #[test]
    fn clips_are_as_long_as_they_say() {
        assert_eq!(Clip::bursts().unwrap().packets.len(), BURST_EVERY as usize);
        let speech = Clip::speech().unwrap();
        assert_eq!(speech.packets.len(), SPEECH);
        let octets: usize = speech.packets.iter().map(Vec::len).sum();
        // 16 to 64 kbit/s is what speech has.
        assert!((40..=160).contains(&(octets / SPEECH)), "{}", octets / SPEECH);
    }

    #[test]
    fn other_packets_have_no_number() {
        for packet in [&b""[..], b"1234", b"sfL1234", b"xsfLD1234"] {
            assert_eq!(number(packet), None);
        }
        assert_eq!(number(b"sfLd\0\0\x01\x02"), Some(258));
        assert_eq!(pad(&[0xF9, 1, 2]), None);
        assert_eq!(pad(&[]), None);
    }
}
