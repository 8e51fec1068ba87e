"""How long a pause takes to be answered: from the last sample of speech that is sent to the first sample of the reply that
comes back, over a WebSocket, in real time.

The recording is `crates/pause/tests/data/two-sentences.wav`, sentence by sentence. What lies between a reply and the next
sentence is of random length (from a seed), so that sentences end anywhere in a server's blocks of audio.
"""

import asyncio
import base64
import json
import random
import time
import wave
from pathlib import Path

import numpy
from websockets.asyncio.client import connect

RECORDING = Path(__file__).parent.parent / "crates/pause/tests/data/two-sentences.wav"
# Where somebody speaks in it, seconds: from the first to the last 10 ms within 35 dB of the loudest.
SENTENCES = ((1.0, 3.215), (4.415, 5.852))
RATE, FRAME_S = 16000, 0.02
FRAME = int(RATE * FRAME_S)
# A beep of 8 000; mu-law's own noise at silence is 8.
LOUD = 1000
CONNECT_S, ANSWER_S = 5, 5
# After a reply's first sample: its 300 ms, and a breath.
GAP_S = (0.8, 1.8)


def sentences():
    """The sentences at RATE, as 16 bits."""
    with wave.open(str(RECORDING)) as file:
        rate = file.getframerate()
        samples = numpy.frombuffer(file.readframes(file.getnframes()), numpy.int16).astype(float)
    for begin, end in SENTENCES:
        at = numpy.arange(int((end - begin) * RATE)) / RATE + begin
        yield numpy.interp(at * rate, numpy.arange(len(samples)), samples).astype(numpy.int16)


def mu_law(samples):
    """G.711."""
    magnitude = numpy.minimum(numpy.abs(samples.astype(int)), 32635) + 132
    exponent = numpy.floor(numpy.log2(magnitude)).astype(int) - 7
    mantissa = (magnitude >> (exponent + 3)) & 15
    return (~(numpy.where(samples < 0, 128, 0) | exponent << 4 | mantissa) & 255).astype(numpy.uint8).tobytes()


def linear(payload):
    code = ~numpy.frombuffer(payload, numpy.uint8).astype(int) & 255
    magnitude = (((code & 15) << 3) + 132 << ((code >> 4) & 7)) - 132
    return numpy.where(code & 128, -magnitude, magnitude)


class Conversation:
    """One session that speaks in real time and is silent in real time: a server hears no gaps."""

    def __init__(self, socket):
        self.socket = socket
        self.answered = asyncio.Event()
        self.answered_at = self.clock = None

    async def hear(self):
        async for text in self.socket:
            message = json.loads(text)
            if message.get("event") != "media":
                continue
            if numpy.abs(linear(base64.b64decode(message["media"]["payload"]))).max(initial=0) > LOUD and not self.answered.is_set():
                self.answered_at = time.monotonic()
                self.answered.set()

    async def send(self, samples):
        payload = base64.b64encode(mu_law(samples)).decode()
        await self.socket.send(json.dumps({"event": "media", "media": {"payload": payload}}))
        self.clock += FRAME_S
        await asyncio.sleep(max(0, self.clock - time.monotonic()))

    async def turn(self, sentence, gap_s):
        """Seconds from the last sample of the sentence to the first of the reply; None without a reply, negative when it came before the end."""
        self.answered.clear()
        whole = numpy.pad(sentence, (0, -len(sentence) % FRAME))
        for frame in whole.reshape(-1, FRAME):
            # A frame goes out when its last sample would have been spoken.
            ended_at = time.monotonic()
            await self.send(frame)
        silence = numpy.zeros(FRAME, numpy.int16)
        limit = time.monotonic() + ANSWER_S
        while not self.answered.is_set() and time.monotonic() < limit:
            await self.send(silence)
        answered_at = self.answered_at if self.answered.is_set() else None
        for _ in range(int(gap_s / FRAME_S)):
            await self.send(silence)
        return None if answered_at is None else answered_at - ended_at


async def converse(url, turns, seed):
    dice = random.Random(seed)
    spoken = list(sentences())
    async with connect(url.replace("http", "ws", 1) + "/websocket/offer", open_timeout=CONNECT_S, close_timeout=1, proxy=None, max_queue=None) as socket:
        await socket.send(json.dumps({"event": "start", "websocket_id": f"bench{seed}"}))
        conversation = Conversation(socket)
        listener = asyncio.ensure_future(conversation.hear())
        conversation.clock = time.monotonic()
        silence = numpy.zeros(FRAME, numpy.int16)
        for _ in range(int(1 / FRAME_S)):
            await conversation.send(silence)
        delays = [await conversation.turn(spoken[number % len(spoken)], dice.uniform(*GAP_S)) for number in range(turns)]
        listener.cancel()
    return delays


def measure(url, turns, seed):
    """Delays in ms of those turns that were answered after their end, and how many were not."""
    delays = asyncio.run(converse(url, turns, seed))
    good = sorted(1000 * delay for delay in delays if delay is not None and delay > 0)
    return {"turns": turns, "lost": turns - len(good), "delays_ms": good}
