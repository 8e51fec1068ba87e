"""FastRTC on the loopback port of the first argument: /echo sends back what it hears, /tone half a second of 600 Hz and
then the end, /full takes one session."""

import asyncio
import sys

import librosa
import numpy
import uvicorn
from fastapi import FastAPI
from fastrtc import AsyncStreamHandler, Stream, wait_for_item
from fastrtc.utils import CloseStream


class Echo(AsyncStreamHandler):
    def __init__(self):
        super().__init__("mono", output_sample_rate=24_000, input_sample_rate=48_000)
        self.frames = asyncio.Queue()

    def copy(self):
        return type(self)()

    async def start_up(self):
        pass

    async def receive(self, frame):
        self.frames.put_nowait(frame)

    async def emit(self):
        return await wait_for_item(self.frames)

    def shutdown(self):
        pass


class Tone(Echo):
    """FastRTC asks for the next frame at once, so this one paces itself."""

    sent = 0

    async def receive(self, frame):
        pass

    async def emit(self):
        await asyncio.sleep(0.01 if self.sent < 26 else 3600)
        self.sent += 1
        if self.sent == 26:
            return CloseStream("bye")
        time = numpy.arange((self.sent - 1) * 480, self.sent * 480) / 24_000
        return 24_000, (6_000 * numpy.sin(2 * numpy.pi * 600 * time)).astype(numpy.int16).reshape(1, -1)


app = FastAPI()
for path, handler, limit in [("/echo", Echo(), 10), ("/tone", Tone(), 10), ("/full", Echo(), 1)]:
    Stream(handler, modality="audio", mode="send-receive", concurrency_limit=limit).mount(app, path)

# Its first use compiles for seconds, on the loop that serves everybody.
librosa.resample(numpy.zeros(4_800, dtype=numpy.float32), orig_sr=48_000, target_sr=24_000)
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
