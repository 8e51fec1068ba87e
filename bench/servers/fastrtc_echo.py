"""Audio echo on FastRTC, as its documentation writes one: an async handler with a queue. Usage: fastrtc_echo.py PORT [RATE]"""

import asyncio
import sys

import uvicorn
from fastapi import FastAPI
from fastrtc import AsyncStreamHandler, Stream


RATE = int(sys.argv[2]) if len(sys.argv) > 2 else 48000


class Echo(AsyncStreamHandler):
    def __init__(self):
        # Equal rates in and out: no resampling on FastRTC's account.
        super().__init__(expected_layout="mono", input_sample_rate=RATE, output_sample_rate=RATE, output_frame_size=RATE // 50)
        self.frames = asyncio.Queue()

    def copy(self):
        return Echo()

    async def receive(self, frame):
        self.frames.put_nowait(frame)

    async def emit(self):
        return await self.frames.get()


app = FastAPI()
# The limit lies above every count that the benchmark tries; None means one session here.
stream = Stream(Echo(), modality="audio", mode="send-receive", concurrency_limit=10000)
stream.mount(app)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
