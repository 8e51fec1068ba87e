"""Calls by a real aiortc client, one after another, judged by what is heard. One JSON argument; events as lines of JSON.

  url       of the service; the offer goes to {url}/webrtc/offer
  id        prefix of the calls' ids
  mode      "complete": aiortc's own offer, with its 8-token host candidates
            "trickle":  an offer without candidates, then each in the form of aiortc's object_to_string
            "none":     an offer without candidates, and nothing after it
  calls     how many, in a row
  hz        the tone to send; call n sends hz + 50 * n, so that no call can be satisfied by another's audio
  seconds   to listen once media flows
  gate      each call reports "ready" when its offer is made and waits for the command "call" before it posts it; a refusal
            is then reported as "refused", and "call" posts the same offer again
  relay_only  by the TURN servers that the service names, and no other way
  hold      the last call stays until standard input ends; meanwhile the command "hear" listens anew and reports "heard"

Commands are lines on standard input.
"""

import asyncio
import fractions
import json
import math
import sys
import time
import urllib.error
import urllib.request

import numpy
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCIceServer,
    RTCIceTransportPolicy,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.contrib.signaling import object_to_string
from av import AudioFrame
from av.audio.resampler import AudioResampler

RATE = 48000
FRAME = RATE // 50


def report(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


async def commands_of(pipe):
    """A function that waits for the next line; it returns None at the end, again and again."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)

    async def next_command():
        return (await reader.readline()).decode().strip() or None

    return next_command


class Refused(Exception):
    def __init__(self, status, answer):
        super().__init__(f"refused: {status} {answer}")
        self.status, self.answer = status, answer


class Tone(MediaStreamTrack):
    """A sine in frames of 20 ms, in real time: -15 dBFS (RMS), -18 once aiortc has made the two channels of Opus of it."""

    kind = "audio"

    def __init__(self, hz):
        super().__init__()
        self.hz, self.sample, self.started = hz, 0, None

    async def recv(self):
        self.started = self.started or time.monotonic()
        await asyncio.sleep(max(0, self.started + self.sample / RATE - time.monotonic()))
        at = numpy.arange(self.sample, self.sample + FRAME)
        wave = 0.25 * 32767 * numpy.sin(2 * math.pi * self.hz * at / RATE)
        frame = AudioFrame.from_ndarray(wave.astype(numpy.int16).reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, self.sample, fractions.Fraction(1, RATE)
        self.sample += FRAME
        return frame


def judge(samples, hz):
    """Strongest frequency (Hz), level (RMS, dBFS) and how far the rest lies under the tone (power ratio, dB)."""
    wave = samples.astype(float) / 32768
    power = numpy.abs(numpy.fft.rfft(wave * numpy.hanning(len(wave)))) ** 2
    at = numpy.fft.rfftfreq(len(wave), 1 / RATE)
    tone, rest = power[abs(at - hz) <= 60].sum(), power[(abs(at - hz) > 60) & (at > 50)].sum()
    level = 10 * math.log10((wave**2).mean() + 1e-12)
    return {"peak_hz": float(at[power.argmax()]), "level_db": level, "over_rest_db": 10 * math.log10(tone / (rest + 1e-12) + 1e-12)}


def post(url, body):
    request = urllib.request.Request(f"{url}/webrtc/offer", json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def relayed(url):
    """By the TURN servers that the service names, and no other way."""
    with urllib.request.urlopen(f"{url}/rtc_configuration", timeout=20) as response:
        servers = [RTCIceServer(**server) for server in json.load(response)["iceServers"]]
    return RTCConfiguration(iceServers=servers, iceTransportPolicy=RTCIceTransportPolicy.RELAY)


def without_candidates(sdp):
    return "".join(line for line in sdp.splitlines(True) if not line.startswith(("a=candidate:", "a=end-of-candidates")))


def candidates_of(pc):
    """The local candidates as the application sees them: with the media section that they belong to."""
    section = pc.getTransceivers()[0]
    gatherer = section.sender.transport.transport.iceGatherer
    for candidate in gatherer.getLocalCandidates():
        candidate.sdpMid, candidate.sdpMLineIndex = section.mid, 0
        yield candidate


class Call:
    def __init__(self, url, id, mode, hz, configuration):
        self.url, self.id, self.mode, self.hz = url, id, mode, hz
        self.pc = RTCPeerConnection(configuration)
        self.messages = []
        self.forget()
        self.connected, self.over = asyncio.Event(), asyncio.Event()
        self.sink, self.gap, self.frame_at = None, 0.0, None
        self.channel = self.pc.createDataChannel("text")
        self.channel.on("message", self.messages.append)
        self.channel.on("close", self.over.set)
        self.channel.on("open", lambda: self.channel.send("hello"))
        self.pc.on("connectionstatechange", self.state)
        self.pc.on("track", self.track)

    def state(self):
        if self.pc.connectionState == "connected":
            self.connected.set()
        if self.pc.connectionState in ("failed", "closed"):
            self.over.set()

    def track(self, track):
        self.sink = asyncio.ensure_future(self.listen(track))

    def forget(self):
        """What was heard until now counts no longer; the longest pause between two frames does."""
        self.heard, self.heard_at = numpy.zeros(0, numpy.int16), None

    async def listen(self, track):
        resampler = AudioResampler(format="s16", layout="mono", rate=RATE)
        while True:
            frame = await track.recv()
            now = time.monotonic()
            self.gap, self.frame_at = max(self.gap, now - (self.frame_at or now)), now
            self.heard_at = self.heard_at or now
            for part in resampler.resample(frame):
                self.heard = numpy.concatenate([self.heard, part.to_ndarray().reshape(-1)])[-RATE:]

    async def make(self):
        self.pc.addTrack(Tone(self.hz))
        await self.pc.setLocalDescription(await self.pc.createOffer())

    async def open(self):
        sdp = self.pc.localDescription.sdp
        self.posted = time.monotonic()
        offered = sdp if self.mode == "complete" else without_candidates(sdp)
        status, answer = await asyncio.to_thread(post, self.url, {"sdp": offered, "type": "offer", "webrtc_id": self.id})
        if status != 200 or answer.get("status") == "failed":
            raise Refused(status, answer)
        replies = []
        if self.mode == "trickle":
            for candidate in candidates_of(self.pc):
                body = {"candidate": json.loads(object_to_string(candidate)), "webrtc_id": self.id, "type": "ice-candidate"}
                replies.append([body["candidate"]["candidate"], (await asyncio.to_thread(post, self.url, body))[1]])
        await self.pc.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))
        await asyncio.wait_for(self.connected.wait(), 20)
        return {
            "connected_ms": 1000 * (time.monotonic() - self.posted),
            "candidate_tokens": [len(line.split()) for line in offered.splitlines() if line.startswith("a=candidate:")],
            "replies": replies,
        }

    async def hear(self, seconds):
        """Listens until there is a second of sound, then until the time is up, and judges the last second."""
        deadline = time.monotonic() + 15
        while len(self.heard) < RATE or self.heard_at + seconds > time.monotonic():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{len(self.heard)} samples heard; states {self.pc.iceConnectionState} {self.pc.connectionState}")
            await asyncio.sleep(0.05)
        gap, self.gap = self.gap, 0.0
        figures = {"first_media_ms": 1000 * (self.heard_at - self.posted), "gap_ms": 1000 * gap}
        return {"hz": self.hz, **figures, **judge(self.heard, self.hz), "messages": self.messages}

    async def hold(self, next_command, seconds):
        """Does what it is told until standard input or the call ends."""
        over = asyncio.ensure_future(self.over.wait())
        while True:
            command = asyncio.ensure_future(next_command())
            await asyncio.wait([command, over], return_when=asyncio.FIRST_COMPLETED)
            if over.done() or command.result() is None:
                return {"over": over.done(), "messages": self.messages}
            if command.result() != "hear":
                raise RuntimeError(f"no such command: {command.result()}")
            self.forget()
            report("heard", **await self.hear(seconds))

    async def close(self):
        if self.sink:
            self.sink.cancel()
        await self.pc.close()


async def admitted(call, next_command):
    """Posts the offer as often as it is told to, until it is accepted; None when there is nothing more to be told."""
    while True:
        report("ready")
        if await next_command() is None:
            return None
        try:
            return await call.open()
        except Refused as refusal:
            report("refused", status=refusal.status, answer=refusal.answer)


async def main(url, id, mode="complete", calls=1, hz=440, seconds=2.0, gate=False, hold=False, relay_only=False):
    configuration = relayed(url) if relay_only else RTCConfiguration(iceServers=[])
    next_command = await commands_of(sys.stdin)
    for n in range(calls):
        call = Call(url, f"{id}-{n}", mode, hz + 50 * n, configuration)
        try:
            await call.make()
            connected = await (admitted(call, next_command) if gate else call.open())
            if connected is None:
                return
            report("connected", call=n, **connected)
            report("heard", call=n, **await call.hear(seconds))
            if hold and n == calls - 1:
                report("ended", **await call.hold(next_command, seconds))
        finally:
            await call.close()
    report("done")


if __name__ == "__main__":
    try:
        asyncio.run(main(**json.loads(sys.argv[1])))
    except Exception as error:
        report("failed", error=repr(error))
        raise
