"""A WebRTC client on aiortc: what it offers, what it says, and all that it sees and hears with the time of it."""

import asyncio
import enum
import fractions
import itertools
import json
import secrets
import time

import numpy
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from av import AudioFrame
from av.audio.resampler import AudioResampler

import sound
import web

RATE = 48000
FRAME = RATE // 50
CONNECT_LIMIT_S = 10


def new_id():
    """Unlike any other of any run: a server under test may live longer than one run."""
    return f"c{secrets.token_hex(6)}"


class Shape(enum.Enum):
    """How candidates reach the server."""

    COMPLETE = "complete"
    TRICKLED = "trickled"
    NONE = "none"


class Refused(Exception):
    def __init__(self, reply):
        super().__init__(f"{reply.status} {reply.body[:200]!r}")
        self.reply = reply


class Microphone(MediaStreamTrack):
    """A tone that can be changed while it is heard; 0 Hz is silence."""

    kind = "audio"

    def __init__(self, hz):
        super().__init__()
        self.hz, self.sample, self.began = hz, 0, None

    async def recv(self):
        self.began = self.began or time.monotonic()
        await asyncio.sleep(max(0, self.began + self.sample / RATE - time.monotonic()))
        samples = sound.sine(self.hz, self.sample, FRAME, RATE)
        frame = AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, self.sample, fractions.Fraction(1, RATE)
        self.sample += FRAME
        return frame


def candidates_of(sdp):
    """The candidates of an offer as a browser's `toJSON()` gives them, once each: the m-lines are bundled."""
    lines = dict.fromkeys(line.removeprefix("a=") for line in sdp.splitlines() if line.startswith("a=candidate:"))
    ufrag = next(line.partition(":")[2] for line in sdp.splitlines() if line.startswith("a=ice-ufrag:"))
    for line in lines:
        yield {
            "candidate": f"{line} generation 0 ufrag {ufrag} network-cost 999",
            "sdpMid": "0",
            "sdpMLineIndex": 0,
            "usernameFragment": ufrag,
        }


def without_candidates(sdp):
    return "".join(
        line for line in sdp.splitlines(True) if not line.startswith(("a=candidate:", "a=end-of-candidates"))
    )


async def offer_sdp():
    """An offer that nobody will follow up."""
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    pc.addTransceiver("audio")
    pc.createDataChannel("text")
    await pc.setLocalDescription(await pc.createOffer())
    sdp = without_candidates(pc.localDescription.sdp)
    await pc.close()
    return sdp


class Call:
    """One call to the service at `path`; a context manager that hangs up."""

    def __init__(self, server, path, *, id=None, hz=0, shape=Shape.COMPLETE, channel="text", codec=None):
        self.url, self.id, self.shape = server.url + path, id or new_id(), shape
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.microphone = Microphone(hz)
        self.pc.addTrack(self.microphone)
        if codec:
            known = RTCRtpSender.getCapabilities("audio").codecs
            self.pc.getTransceivers()[0].setCodecPreferences([c for c in known if c.mimeType == f"audio/{codec}"])
        self.parts, self.first_audio_at, self.listener = [], None, None
        self.messages = []
        self.connected, self.over = asyncio.Event(), asyncio.Event()
        self.connected_at = self.over_at = None
        self.changed = asyncio.Event()
        self.channel_open = asyncio.Event()
        self.channel = self.pc.createDataChannel(channel) if channel else None
        if self.channel:
            self.channel.on("open", self.channel_open.set)
            self.channel.on("message", self._message)
        self.pc.on("connectionstatechange", self._state)
        self.pc.on("track", self._track)

    def _state(self):
        if self.pc.connectionState == "connected":
            self.connected_at = time.monotonic()
            self.connected.set()
        if self.pc.connectionState in ("failed", "closed"):
            self.over_at = self.over_at or time.monotonic()
            self.over.set()

    def _message(self, text):
        self.messages.append((time.monotonic(), json.loads(text)))
        self.changed.set()

    def _track(self, track):
        self.listener = asyncio.ensure_future(self._listen(track))

    async def _listen(self, track):
        resampler = AudioResampler(format="s16", layout="mono", rate=RATE)
        while True:
            frame = await track.recv()
            self.first_audio_at = self.first_audio_at or time.monotonic()
            self.parts.extend(part.to_ndarray().reshape(-1) for part in resampler.resample(frame))
            self.changed.set()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        if self.listener:
            self.listener.cancel()
        await self.pc.close()

    async def offer(self, **extra):
        """Makes and posts an offer, and returns the reply, whatever it is."""
        await self.pc.setLocalDescription(await self.pc.createOffer())
        return await self.repeat(**extra)

    async def repeat(self, **extra):
        """Posts the same offer."""
        sdp = self.pc.localDescription.sdp
        offered = sdp if self.shape is Shape.COMPLETE else without_candidates(sdp)
        body = {"sdp": offered, "type": "offer", "webrtc_id": self.id, **extra}
        return await web.post(f"{self.url}/webrtc/offer", body)

    async def until_answered(self, within):
        """Offers until the offer is answered or the time is up; the last reply."""
        deadline = time.monotonic() + within
        reply = await self.offer()
        while reply.error() != "answer" and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
            reply = await self.repeat()
        return reply

    async def open(self, **extra):
        """Connects, or raises `Refused`."""
        reply = await self.offer(**extra)
        if reply.status != 200 or reply.error() != "answer":
            raise Refused(reply)
        await self.follow(reply.json())
        return self

    async def follow(self, answer):
        """Does what the answer asks for, until the connection and the data channel are open."""
        if self.shape is Shape.TRICKLED:
            for candidate in candidates_of(self.pc.localDescription.sdp):
                body = {"candidate": candidate, "type": "ice-candidate", "webrtc_id": self.id}
                await web.post(f"{self.url}/webrtc/offer", body)
        await self.pc.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))
        await asyncio.wait_for(self.connected.wait(), CONNECT_LIMIT_S)
        if self.channel:
            await asyncio.wait_for(self.channel_open.wait(), CONNECT_LIMIT_S)

    def heard(self):
        """All samples so far, mono at `RATE`."""
        return numpy.concatenate(self.parts) if self.parts else numpy.zeros(0, numpy.int16)

    async def hear(self, seconds, within=8):
        """The last `seconds` of what is heard, once there is as much; less if the time runs out."""
        await self.wait(lambda: sum(map(len, self.parts)) >= seconds * RATE, within)
        return self.heard()[-int(seconds * RATE) :]

    async def wait(self, condition, within):
        """Until `condition()` holds of what was seen and heard; its last value."""
        deadline = time.monotonic() + within
        while not condition() and time.monotonic() < deadline:
            self.changed.clear()
            try:
                await asyncio.wait_for(self.changed.wait(), deadline - time.monotonic())
            except TimeoutError:
                break
        return condition()

    def texts(self, type):
        """The `data`, or the `message`, of the messages of one type, in order."""
        return [m.get("data", m.get("message")) for _, m in self.messages if m["type"] == type]

    async def text(self, type, count=1, within=5):
        """The texts of one type, once there are `count`; fewer if the time runs out."""
        await self.wait(lambda: len(self.texts(type)) >= count, within)
        return self.texts(type)

    async def say(self, hz, seconds):
        self.microphone.hz = hz
        await asyncio.sleep(seconds)
        self.microphone.hz = 0

    async def ended(self, within):
        """Whether the server closes the connection in time."""
        try:
            await asyncio.wait_for(self.over.wait(), within)
        except TimeoutError:
            return False
        return True

    async def packets(self):
        """RTP packets received."""
        stats = await self.pc.getStats()
        return sum(s.packetsReceived for s in stats.values() if s.type == "inbound-rtp")


def without_repeats(words):
    return [word for word, _ in itertools.groupby(words)]
