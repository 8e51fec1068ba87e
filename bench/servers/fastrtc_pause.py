"""FastRTC's ReplyOnPause with WebRTC's voice detector for its `model=`: a beep answers each pause.

Usage: fastrtc_pause.py PORT THOUGHT_S, where THOUGHT_S is what the reply waits before it speaks.
"""

import sys
import time

import numpy
import uvicorn
import webrtcvad
from fastapi import FastAPI
from fastrtc import ReplyOnPause, Stream

INPUT_RATE, OUTPUT_RATE = 16000, 24000
BEEP_HZ, BEEP_S, LOUDNESS = 1000, 0.3, 8000
# WebRTC's detector hears 10, 20 or 30 ms at a time; mode 2 is "aggressive".
HOP, MODE = 480, 2


class Model:
    """FastRTC asks for the seconds of speech in a chunk. One session at a time: the detector remembers what it has heard."""

    def __init__(self):
        self.detector = webrtcvad.Vad(MODE)

    def warmup(self):
        pass

    def vad(self, audio, options):
        rate, samples = audio
        hops = numpy.asarray(samples, numpy.int16)[: len(samples) // HOP * HOP].reshape(-1, HOP)
        speech = sum(self.detector.is_speech(hop.tobytes(), rate) for hop in hops)
        return speech * HOP / rate, []


at = numpy.arange(int(OUTPUT_RATE * BEEP_S)) / OUTPUT_RATE
BEEP = (LOUDNESS * numpy.sin(2 * numpy.pi * BEEP_HZ * at)).astype(numpy.int16)
THOUGHT_S = float(sys.argv[2])


def reply(audio):
    time.sleep(THOUGHT_S)
    yield OUTPUT_RATE, BEEP.reshape(1, -1)


app = FastAPI()
handler = ReplyOnPause(reply, input_sample_rate=INPUT_RATE, output_sample_rate=OUTPUT_RATE, model=Model())
Stream(handler, modality="audio", mode="send-receive", concurrency_limit=10).mount(app)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
