"""What the suite judges with, judged: python -m unittest discover -s tests/conformance"""

import unittest

import numpy

import cases  # noqa: F401, registers them
import sound
from case import CASES, Between, Mark, OneOf, Promise, at_least, differences, tone


class Mulaw(unittest.TestCase):
    def test_known_codes(self):
        """ITU-T G.711, table 2a: silence, the smallest steps of either sign, and both ends."""
        table = {0: 0xFF, 8: 0xFE, -8: 0x7E, 32635: 0x80, -32635: 0x00, 32767: 0x80, -32768: 0x00}
        for sample, code in table.items():
            self.assertEqual(sound.mulaw_encode(numpy.array([sample], numpy.int16))[0], code, sample)

    def test_every_code_survives(self):
        # 0x7F is the negative zero, which nothing encodes to.
        codes = bytes(code for code in range(256) if code != 0x7F)
        self.assertEqual(sound.mulaw_encode(sound.mulaw_decode(codes)), codes)

    def test_error_is_within_half_a_step(self):
        samples = numpy.arange(-32635, 32636).astype(numpy.int16)
        wrong = abs(sound.mulaw_decode(sound.mulaw_encode(samples)).astype(int) - samples)
        self.assertTrue((wrong <= numpy.maximum(4, (abs(samples.astype(int)) + 132) / 32)).all())


class Judge(unittest.TestCase):
    def test_tone(self):
        for rate in (8000, 16000, 24000, 48000):
            heard = sound.judge(sound.sine(440, 0, rate // 2, rate), rate)
            self.assertEqual(differences({**tone(440), "level_db": Between(-15.1, -14.9)}, heard), [])

    def test_wrong_rate_is_another_tone(self):
        heard = sound.judge(sound.sine(440, 0, 24000, 48000), 24000)
        self.assertEqual(len(differences(tone(440), heard)), 1)

    def test_noise_is_no_tone(self):
        noise = numpy.random.default_rng(1).normal(0, 3000, 24000).astype(numpy.int16)
        self.assertGreaterEqual(len(differences(tone(440), sound.judge(noise, 24000))), 1)

    def test_nothing_is_no_tone(self):
        self.assertEqual(len(differences(tone(440), sound.judge(numpy.zeros(0, numpy.int16), 24000))), 2)

    def test_seconds_count_only_the_tone(self):
        parts = [sound.sine(hz, 0, 24000, 24000) for hz in (660, 0, 880)]
        heard = numpy.concatenate(parts)
        self.assertEqual(sound.tone_seconds(heard, 24000, 660), 1.0)
        self.assertEqual(sound.tone_seconds(heard, 24000, 440), 0.0)


class Expectations(unittest.TestCase):
    def test_each_kind_can_fail(self):
        for want, got in [
            (1, 2),
            (1, True),
            (0, False),
            ("a", None),
            ([], [[]]),
            (Between(1, 2), 2.1),
            (Between(1, 2), None),
            (at_least(1), "1"),
            (OneOf((1, 2)), 3),
        ]:
            self.assertEqual(len(differences({"x": want}, {"x": got})), 1, (want, got))
        self.assertEqual(len(differences({"x": 1}, {})), 1)

    def test_tables_differ_where_the_mark_says_so(self):
        for case in CASES:
            fastrtc, wire = case.expected[Promise.FASTRTC], case.expected[Promise.WIRE]
            self.assertTrue(fastrtc and wire, case.name)
            self.assertEqual(case.mark is Mark.KEEP, fastrtc == wire, case.name)


if __name__ == "__main__":
    unittest.main()
