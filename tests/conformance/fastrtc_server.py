"""The suite's services on FastRTC, each as its documentation would have it written. Usage: fastrtc_server.py PORT

docs/conformance.md has the same list as a table; another server under test offers the same. Ends with its standard input."""

import asyncio
import json
import os
import sys
import threading
import time

import fastrtc
import librosa
import numpy
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from fastrtc import (
    AdditionalOutputs,
    AsyncStreamHandler,
    CloseStream,
    ReplyOnPause,
    Stream,
    StreamHandler,
    get_current_context,
)

RATE = 24000
# No service is shared by more sessions than this: where a case is not about limits, it meets none.
PLENTY = 1000


def sine(hz, seconds, first=0):
    at = numpy.arange(first, first + int(seconds * RATE))
    return RATE, (0.25 * 32767 * numpy.sin(2 * numpy.pi * hz * at / RATE)).astype(numpy.int16).reshape(1, -1)


def tone_parts(hz, parts):
    """`parts` tenths of a second, phase-continuous."""
    return [sine(hz, 0.1, n * RATE // 10) for n in range(parts)]


class Echo(AsyncStreamHandler):
    def __init__(self, input_rate=48000, output_rate=24000):
        super().__init__(input_sample_rate=input_rate, output_sample_rate=output_rate)
        self.frames = asyncio.Queue()

    def copy(self):
        return Echo(self.input_sample_rate, self.output_sample_rate)

    async def receive(self, frame):
        self.frames.put_nowait(frame)

    async def emit(self):
        return await self.frames.get()


class Silent(AsyncStreamHandler):
    """Hears and says nothing; what the handlers below have in common."""

    def __init__(self):
        super().__init__()
        self.started = asyncio.Event()

    def copy(self):
        return type(self)()

    async def start_up(self):
        self.started.set()

    async def receive(self, frame):
        pass

    async def emit(self):
        await asyncio.Event().wait()


class Tone(Silent):
    """A tone in real time, from the start on."""

    hz = 660

    def __init__(self):
        super().__init__()
        self.sample, self.began = 0, None

    async def emit(self):
        await self.started.wait()
        self.began = self.began or time.monotonic()
        await asyncio.sleep(self.began + self.sample / RATE - time.monotonic())
        frame = sine(self.hz, 0.02, self.sample)
        self.sample += frame[1].shape[1]
        return frame


class Arguments(Tone):
    """Waits for an argument, which is the tone to play."""

    async def start_up(self):
        await self.wait_for_args()
        self.hz = self.latest_args[1]
        self.started.set()


class Script(Silent):
    """Emits what it is given, once it is started."""

    def __init__(self, items):
        super().__init__()
        self.items, self.left = items, list(items)

    def copy(self):
        return type(self)(self.items)

    async def emit(self):
        await self.started.wait()
        if self.left:
            return self.left.pop(0)
        await asyncio.Event().wait()


class Eager(Script):
    """Does not wait for the start."""

    async def emit(self):
        self.started.set()
        return await super().emit()


class BrokenReceive(Silent):
    async def receive(self, frame):
        raise ValueError("broken on purpose")


class BrokenEmit(Silent):
    async def emit(self):
        await self.started.wait()
        raise ValueError("broken on purpose")


class Warns(Silent):
    warned = False

    async def receive(self, frame):
        if not self.warned:
            self.warned = True
            fastrtc.Warning("careful")


class Idle(StreamHandler):
    """Without anything to say `emit` returns None, as in FastRTC's examples."""

    def copy(self):
        return Idle()

    def receive(self, frame):
        pass

    def emit(self):
        return None


class Witness(Silent):
    """Tells by an additional output what its context is, and how many of its kind were shut down so far."""

    shutdowns = 0
    told = False

    async def shutdown(self):
        Witness.shutdowns += 1

    async def emit(self):
        await self.started.wait()
        if self.told:
            await asyncio.Event().wait()
        self.told = True
        try:
            id = get_current_context().webrtc_id
        except RuntimeError:
            id = None
        return AdditionalOutputs({"id": id, "shutdowns": Witness.shutdowns})


class EnergyVad:
    """Speech is what is louder than -40 dBFS, in steps of 10 ms."""

    def vad(self, audio, options):
        rate, samples = audio
        wave = numpy.squeeze(samples).astype(float) / (32768 if samples.dtype == numpy.int16 else 1)
        size = rate // 100
        loud = (wave[: len(wave) // size * size].reshape(-1, size) ** 2).mean(axis=1) > 1e-4
        return 0.01 * int(loud.sum()), []

    def warmup(self):
        pass


def heard_hz(audio):
    """The tone that was said, to the nearest 110 Hz: crossings of zero where it is loud. 440 if nothing was said."""
    rate, samples = audio
    wave = numpy.squeeze(samples).astype(float) / 32768
    size = rate // 100
    windows = wave[: wave.size // size * size].reshape(-1, size)
    loud = windows[(windows**2).mean(axis=1) > 1e-4]
    if not len(loud):
        return 440
    crossings = (numpy.diff(numpy.signbit(loud), axis=1) != 0).mean()
    return 110 * round(crossings * rate / 2 / 110)


def reply(audio):
    """An octave above what was said."""
    yield from tone_parts(2 * heard_hz(audio), 10)


def reply_with(audio, hz):
    yield from tone_parts(hz, 10)


def long_reply(audio):
    for part in tone_parts(2 * heard_hz(audio), 60):
        # A little ahead of real time, as a speech synthesiser is.
        time.sleep(0.08)
        yield part


def greeting():
    yield from tone_parts(990, 10)


def pause_driven(fn, **options):
    return ReplyOnPause(fn, model=EnergyVad(), **options)


SERVICES = {
    "/echo": (Echo(), {}),
    "/echo-rates": (Echo(input_rate=8000, output_rate=16000), {}),
    "/tone": (Tone(), {}),
    "/arguments": (Arguments(), {}),
    "/bye": (Script([*tone_parts(660, 10), CloseStream("bye")]), {}),
    "/bye-at-once": (Script([(sine(660, 1), CloseStream())]), {}),
    "/told": (Script([AdditionalOutputs("ready"), (sine(660, 0.5), AdditionalOutputs("with audio", 2))]), {}),
    "/eager": (Eager([AdditionalOutputs("early"), *tone_parts(660, 10)]), {}),
    "/error": (BrokenReceive(), {}),
    "/error-emit": (BrokenEmit(), {}),
    "/warning": (Warns(), {}),
    "/idle": (Idle(), {}),
    "/witness": (Witness(), {}),
    "/pause": (pause_driven(reply), {}),
    "/pause-arguments": (pause_driven(reply_with), {}),
    "/pause-long": (pause_driven(long_reply), {}),
    "/pause-patient": (pause_driven(long_reply, can_interrupt=False), {}),
    "/pause-greeting": (pause_driven(reply, startup_fn=greeting), {}),
    "/timed": (Echo(), {"time_limit": 2}),
    "/limited": (Echo(), {"concurrency_limit": 2}),
    "/limited-order": (Echo(), {"concurrency_limit": 1}),
    "/limited-socket": (Echo(), {"concurrency_limit": 1}),
    "/limited-webrtc": (Echo(), {"concurrency_limit": 1}),
    "/limited-mixed": (Echo(), {"concurrency_limit": 1}),
    "/limited-phone": (Echo(), {"concurrency_limit": 1}),
    "/limited-bad": (Echo(), {"concurrency_limit": 1}),
    "/limited-abandoned": (Echo(), {"concurrency_limit": 1}),
}


def mount_by_hand(app, path, stream):
    """The routes that FastRTC leaves to its users, as its documentation writes them."""

    @app.get(f"{path}/outputs")
    async def outputs(webrtc_id: str):
        async def stream_of_events():
            async for output in stream.output_stream(webrtc_id):
                data = output.args[0] if len(output.args) == 1 else output.args
                yield f"event: output\ndata: {json.dumps(data)}\n\n"

        return StreamingResponse(stream_of_events(), media_type="text/event-stream")

    @app.post(f"{path}/input_hook")
    async def input_hook(request: Request):
        body = await request.json()
        stream.set_input(body["webrtc_id"], *body["inputs"])
        return {"status": "ok"}

    # Its Gradio component has this as an internal call.
    @app.post(f"{path}/trigger_response")
    async def trigger_response(request: Request):
        return await stream._trigger_response((await request.json())["webrtc_id"])


def application():
    app = FastAPI()
    for path, (handler, options) in SERVICES.items():
        # No ICE servers: the default is a public one, which a test has no business with.
        stream = Stream(
            handler,
            modality="audio",
            mode="send-receive",
            server_rtc_configuration={"iceServers": []},
            verbose=False,
            **{"concurrency_limit": PLENTY, **options},
        )
        stream.mount(app, path)
        mount_by_hand(app, path, stream)
    return app


def end_with_stdin():
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    # FastRTC's first resampling imports and compiles for seconds, on the event loop: every session would stand still.
    librosa.resample(numpy.zeros(960, numpy.float32), orig_sr=48000, target_sr=24000)
    threading.Thread(target=end_with_stdin, daemon=True).start()
    uvicorn.run(application(), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
