//! WAV files: any of them in, 16-bit mono out; a bounded writer.

use std::io::{Read, Seek, Write};
use std::time::Duration;

use crate::PcmFormat;

/// Why a WAV file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WavError {
    /// Not a WAV file, cut short, in a coding other than linear integers or floats, or an I/O error.
    #[error(transparent)]
    File(#[from] hound::Error),
    /// The header gives a rate or channels that nothing can be done with.
    #[error(
        "{rate} Hz and {channels} channels; {} to {} Hz and 1 to {} channels can be used",
        PcmFormat::MIN_RATE,
        PcmFormat::MAX_RATE,
        PcmFormat::MAX_CHANNELS
    )]
    Format {
        /// Hz.
        rate: u32,
        /// Channels.
        channels: u16,
    },
    /// Longer than the caller allows.
    #[error("longer than {limit:?}")]
    TooLong {
        /// What the caller allows.
        limit: Duration,
    },
}

/// A recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clip {
    /// Mono samples.
    pub samples: Vec<i16>,
    /// Their format; one channel.
    pub format: PcmFormat,
}

/// Reads a WAV file of 8, 16, 24 or 32-bit integers or 32-bit floats, and mixes its channels to one.
///
/// # Errors
/// See [`WavError`]. Memory use follows the samples that are there, not the header's word for them.
pub fn read(source: impl Read, limit: Duration) -> Result<Clip, WavError> {
    let mut reader = hound::WavReader::new(source)?;
    let hound::WavSpec { channels, sample_rate: rate, bits_per_sample: bits, sample_format } = reader.spec();
    if (PcmFormat { rate, channels }).check(PcmFormat::MAX_CHANNELS).is_err() {
        return Err(WavError::Format { rate, channels });
    }
    let format = PcmFormat::mono(rate);
    let most = (limit.as_secs_f64() * f64::from(rate)).ceil() as usize;
    let samples = match sample_format {
        hound::SampleFormat::Float => {
            mix(reader.samples::<f32>().map(|sample| sample.map(|value| value * 32_768.0)), channels, most)
        }
        hound::SampleFormat::Int => {
            let scale = 2f32.powi(16 - i32::from(bits));
            mix(reader.samples::<i32>().map(|sample| sample.map(|value| value as f32 * scale)), channels, most)
        }
    }?;
    samples.map(|samples| Clip { samples, format }).ok_or(WavError::TooLong { limit })
}

/// Averages the channels. `None` if there are more than `most` frames.
fn mix(
    samples: impl Iterator<Item = hound::Result<f32>>,
    channels: u16,
    most: usize,
) -> Result<Option<Vec<i16>>, hound::Error> {
    let mut mixed = Vec::new();
    let (mut sum, mut have) = (0.0f32, 0);
    for sample in samples {
        sum += sample?;
        have += 1;
        if have == channels {
            if mixed.len() == most {
                return Ok(None);
            }
            // The conversion saturates, and takes "not a number" for silence.
            mixed.push((sum / f32::from(channels)).round() as i16);
            (sum, have) = (0.0, 0);
        }
    }
    Ok(Some(mixed))
}

/// Writes 16-bit PCM up to a limit; what comes after is dropped.
pub struct Writer<W: Write + Seek> {
    file: hound::WavWriter<W>,
    format: PcmFormat,
    /// Samples that may still be written.
    room: u64,
}

impl<W: Write + Seek> std::fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("format", &self.format).field("room", &self.room).finish_non_exhaustive()
    }
}

impl<W: Write + Seek> Writer<W> {
    /// A file of at most `limit`, and at most the 4 GB that the format can say.
    ///
    /// # Errors
    /// [`WavError::Format`], or the header could not be written.
    pub fn new(target: W, format: PcmFormat, limit: Duration) -> Result<Self, WavError> {
        let PcmFormat { rate, channels } = format;
        if format.check(PcmFormat::MAX_CHANNELS).is_err() {
            return Err(WavError::Format { rate, channels });
        }
        let spec = hound::WavSpec {
            channels,
            sample_rate: rate,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let frames = ((limit.as_secs_f64() * f64::from(rate)) as u64).min(0x7fff_0000 / u64::from(channels));
        Ok(Self { file: hound::WavWriter::new(target, spec)?, format, room: frames * u64::from(channels) })
    }

    /// Appends interleaved samples; gives how many of them found room.
    ///
    /// # Errors
    /// The target's I/O errors.
    pub fn write(&mut self, samples: &[i16]) -> Result<usize, WavError> {
        let taken = samples.len().min(usize::try_from(self.room).unwrap_or(usize::MAX));
        for &sample in &samples[..taken] {
            self.file.write_sample(sample)?;
        }
        self.room -= taken as u64;
        Ok(taken)
    }

    /// Completes the header.
    ///
    /// # Errors
    /// The target's I/O errors, or the last frame is incomplete.
    pub fn finish(self) -> Result<(), WavError> {
        Ok(self.file.finalize()?)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);

    fn file(
        bits: u16,
        sample_format: hound::SampleFormat,
        channels: u16,
        write: impl Fn(&mut hound::WavWriter<&mut Cursor<Vec<u8>>>),
    ) -> Vec<u8> {
        let mut target = Cursor::new(Vec::new());
        let spec = hound::WavSpec { channels, sample_rate: 22_050, bits_per_sample: bits, sample_format };
        let mut writer = hound::WavWriter::new(&mut target, spec).unwrap();
        write(&mut writer);
        writer.finalize().unwrap();
        target.into_inner()
    }

    #[test]
    fn every_coding_is_read() {
        for bits in [8, 16, 24, 32] {
            let bytes = file(bits, hound::SampleFormat::Int, 2, |writer| {
                for value in
                    [1i64 << (bits - 2), 1 << (bits - 2), 0, -(1 << (bits - 2)), -(1 << (bits - 1)), -(1 << (bits - 1))]
                {
                    writer.write_sample(value as i32).unwrap();
                }
            });
            let clip = read(&bytes[..], LIMIT).unwrap();
            assert_eq!(clip.samples, [16_384, -8_192, -32_768], "{bits}");
            assert_eq!(clip.format, PcmFormat::mono(22_050));
        }
        let bytes = file(32, hound::SampleFormat::Float, 1, |writer| {
            for value in [0.5f32, -0.25, 2.0, f32::NAN] {
                writer.write_sample(value).unwrap();
            }
        });
        assert_eq!(read(&bytes[..], LIMIT).unwrap().samples, [16_384, -8_192, 32_767, 0]);
    }

    #[test]
    fn extremes_are_kept_and_fractions_rounded() {
        fn check(name: &str, bytes: &[u8], expected: &[i16]) {
            assert_eq!(read(bytes, LIMIT).unwrap().samples, expected, "{name}");
        }
        let integers = |channels: u16, bits: u16, samples: &[i32]| {
            file(bits, hound::SampleFormat::Int, channels, |writer| {
                samples.iter().for_each(|&sample| writer.write_sample(sample).unwrap());
            })
        };
        check("8 bits", &integers(1, 8, &[0, 127, -128]), &[0, 127 << 8, i16::MIN]);
        check("16 bits", &integers(1, 16, &[0, 32_767, -32_768, 5]), &[0, 32_767, -32_768, 5]);
        check("24 bits", &integers(1, 24, &[0, 0x7f_ffff, -0x80_0000, 0x100]), &[0, 32_767, -32_768, 1]);
        check("32 bits", &integers(1, 32, &[0, i32::MAX, i32::MIN, 0x1_0000]), &[0, 32_767, -32_768, 1]);
        let stereo = integers(2, 16, &[100, 300, -32_768, -32_768, 32_767, -32_767]);
        check("two channels", &stereo, &[200, -32_768, 0]);
    }

    #[test]
    fn bad_files_are_refused() {
        fn check(bytes: &[u8]) {
            assert!(read(bytes, LIMIT).is_err());
        }
        let whole = file(16, hound::SampleFormat::Int, 1, |writer| {
            for _ in 0..100 {
                writer.write_sample(1i16).unwrap();
            }
        });
        check(&[]);
        check(b"RIFF\0\0\0\0WAVEfmt ");
        check(&whole[..whole.len() - 1]);
        let mut no_rate = whole.clone();
        no_rate[24..28].fill(0);
        check(&no_rate);
        check(&file(16, hound::SampleFormat::Int, 9, |writer| (0..9).for_each(|_| writer.write_sample(1i16).unwrap())));
        assert!(matches!(read(&whole[..], Duration::from_millis(4)), Err(WavError::TooLong { .. })));
        assert!(read(&whole[..], Duration::from_millis(5)).is_ok());
    }

    #[test]
    fn the_writer_stops_at_its_limit() {
        let mut target = Cursor::new(Vec::new());
        let format = PcmFormat { rate: 8_000, channels: 2 };
        let mut writer = Writer::new(&mut target, format, Duration::from_millis(10)).unwrap();
        assert_eq!(writer.write(&[5; 100]).unwrap(), 100);
        assert_eq!(writer.write(&[5; 100]).unwrap(), 60);
        assert_eq!(writer.write(&[5; 100]).unwrap(), 0);
        writer.finish().unwrap();
        assert_eq!(read(&target.into_inner()[..], LIMIT).unwrap().samples, [5; 80]);
        assert!(Writer::new(Cursor::new(Vec::new()), PcmFormat { rate: 0, channels: 2 }, LIMIT).is_err());
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = read(&bytes[..], LIMIT);
            let mut whole = file(16, hound::SampleFormat::Int, 1, |writer| writer.write_sample(1i16).unwrap());
            for (at, byte) in bytes.drain(..).enumerate().take(40) {
                let position = at * 7 % whole.len();
                whole[position] ^= byte;
            }
            let _ = read(&whole[..], LIMIT);
        }
    }
}
