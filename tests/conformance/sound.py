"""Sound made and judged: sines as 16-bit mono PCM, G.711 mu-law, and what a stretch of samples contains."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy

# ITU-T G.711 mu-law in its 16-bit form: the offset that makes every segment's first step visible, and the largest input.
BIAS, CLIP = 0x84, 32635


def sine(hz, first, count, rate, level=0.25):
    """Samples `first` to `first + count` of a sine without beginning; `hz` 0 is silence."""
    at = numpy.arange(first, first + count)
    return (level * 32767 * numpy.sin(2 * math.pi * hz * at / rate)).astype(numpy.int16)


def mulaw_encode(samples):
    wide = samples.astype(numpy.int32)
    magnitude = numpy.minimum(numpy.abs(wide), CLIP) + BIAS
    segment = numpy.floor(numpy.log2(magnitude)).astype(numpy.int32) - 7
    step = (magnitude >> (segment + 3)) & 0x0F
    sign = numpy.where(wide < 0, 0x80, 0)
    return (~(sign | segment << 4 | step) & 0xFF).astype(numpy.uint8).tobytes()


def mulaw_decode(data):
    code = ~numpy.frombuffer(data, numpy.uint8).astype(numpy.int32) & 0xFF
    magnitude = (((code & 0x0F) << 3) + BIAS << (code >> 4 & 7)) - BIAS
    return numpy.where(code & 0x80, -magnitude, magnitude).astype(numpy.int16)


@dataclass(frozen=True)
class Codec:
    name: str
    encode: Callable
    decode: Callable


MULAW = Codec("mulaw", mulaw_encode, mulaw_decode)
PCM16 = Codec("pcm16", lambda samples: samples.astype("<i2").tobytes(), lambda data: numpy.frombuffer(data, "<i2"))


def judge(samples, rate):
    """The strongest frequency (Hz), how far all else lies under it (power ratio, dB), and the level (RMS, dBFS).

    Below 50 Hz is not looked at. Half a second resolves 2 Hz; what is shorter than a tenth is not judged."""
    if len(samples) < rate // 10:
        return {"hz": None, "over_rest_db": None, "level_db": None}
    wave = samples.astype(float) / 32768
    power = numpy.abs(numpy.fft.rfft(wave * numpy.hanning(len(wave)))) ** 2
    at = numpy.fft.rfftfreq(len(wave), 1 / rate)
    power[at < 50] = 0
    peak = float(at[power.argmax()])
    near = abs(at - peak) <= 40
    ratio = power[near].sum() / (power[~near].sum() + 1e-12)
    level = 10 * math.log10((wave**2).mean() + 1e-12)
    return {
        "hz": round(peak, 1),
        "over_rest_db": round(10 * math.log10(ratio + 1e-12), 1),
        "level_db": round(level, 1),
    }


def tone_seconds(samples, rate, hz):
    """How long a tone is to be heard: windows of 20 ms that are louder than -40 dBFS and mostly that tone."""
    size = rate // 50
    windows = samples[: len(samples) // size * size].reshape(-1, size).astype(float) / 32768
    power = (windows**2).mean(axis=1)
    turn = numpy.exp(-2j * math.pi * hz * numpy.arange(size) / rate)
    # A sine of amplitude A has the power A²/2, and its mean against the turning phasor is A/2.
    of_tone = 2 * numpy.abs((windows * turn).mean(axis=1)) ** 2
    return round(0.02 * int(((power > 1e-4) & (of_tone > power / 2)).sum()), 2)
