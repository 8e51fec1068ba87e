"""The WebSocket clients: a program's on `websocket/offer`, and Twilio's media stream on `telephone/handler`."""

import asyncio
import base64
import json
import time

import numpy
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

import sound
from calls import new_id

CONNECT_LIMIT_S = 5
# Twilio's media is 8 kHz mu-law in both directions.
PHONE_RATE = 8000


class Socket:
    """One connection to `path`; a context manager that closes it. Rates in Hz are the handler's."""

    route = "/websocket/offer"

    def __init__(self, server, path, *, id=None, input_rate=48000, output_rate=24000, codec=sound.MULAW):
        self.url = server.url.replace("http", "ws", 1) + path + self.route
        self.id, self.codec = id or new_id(), codec
        self.input_rate, self.output_rate = input_rate, output_rate
        self.messages, self.parts, self.media_frames = [], [], []
        self.first_audio_at = self.code = self.closed_at = None
        self.sample, self.clock = 0, None
        self.changed = asyncio.Event()

    async def __aenter__(self):
        # No proxy: the servers are on the loopback interface.
        self.socket = await connect(self.url, open_timeout=CONNECT_LIMIT_S, close_timeout=1, proxy=None)
        self.reader = asyncio.ensure_future(self._read())
        return self

    async def __aexit__(self, *_):
        await self.socket.close()
        self.reader.cancel()

    async def _read(self):
        try:
            async for text in self.socket:
                message = json.loads(text)
                if message.get("event") == "media":
                    self.first_audio_at = self.first_audio_at or time.monotonic()
                    self.parts.append(self.codec.decode(base64.b64decode(message["media"]["payload"])))
                    message["media"]["payload"] = "…"
                    self.media_frames.append(message)
                else:
                    self.messages.append((time.monotonic(), message))
                self.came(message)
                self.changed.set()
        except ConnectionClosed:
            pass
        finally:
            self.closed_at = time.monotonic()
            self.code = int(self.socket.close_code)
            self.changed.set()

    def came(self, message):
        """What a client of this kind does by itself about a message."""

    async def send(self, message):
        """A dict as JSON, a string as it is; nothing if the server has closed."""
        try:
            await self.socket.send(message if isinstance(message, str) else json.dumps(message))
        except ConnectionClosed:
            pass

    async def start(self, **extra):
        await self.send({"event": "start", "websocket_id": self.id, **extra})
        return self

    async def begin(self):
        """Starts, and waits until the server has taken it: what is asked of the session over HTTP may come sooner."""
        await self.start()
        await self.send({"event": "ping"})
        await self.wait(lambda: any(message.get("event") == "pong" for _, message in self.messages), 3)

    def media(self, samples):
        payload = base64.b64encode(self.codec.encode(samples)).decode()
        return {"event": "media", "media": {"payload": payload}}

    def next_samples(self, hz):
        samples = sound.sine(hz, self.sample, self.input_rate // 50, self.input_rate)
        self.sample += len(samples)
        return samples

    async def say(self, hz, seconds):
        """A tone, 0 Hz for silence, in frames of 20 ms in real time."""
        if self.clock is None or self.clock < time.monotonic() - 0.1:
            self.clock = time.monotonic()
        for _ in range(round(seconds * 50)):
            if self.code is not None:
                return
            await self.send(self.media(self.next_samples(hz)))
            self.clock += 0.02
            await asyncio.sleep(max(0, self.clock - time.monotonic()))

    async def burst(self, hz, seconds):
        """The same at once."""
        for _ in range(round(seconds * 50)):
            await self.send(self.media(self.next_samples(hz)))

    async def wait(self, condition, within):
        deadline = time.monotonic() + within
        while not condition() and self.code is None and time.monotonic() < deadline:
            self.changed.clear()
            try:
                await asyncio.wait_for(self.changed.wait(), deadline - time.monotonic())
            except TimeoutError:
                break
        return condition()

    def heard(self):
        """All samples so far, taken to be at `output_rate`."""
        return numpy.concatenate(self.parts) if self.parts else numpy.zeros(0, numpy.int16)

    async def hear(self, seconds, within=5):
        await self.wait(lambda: sum(map(len, self.parts)) >= seconds * self.output_rate, within)
        return self.heard()[-int(seconds * self.output_rate) :]

    def texts(self, type):
        return [m.get("data", m.get("message")) for _, m in self.messages if m.get("type") == type]

    async def text(self, type, count=1, within=3):
        await self.wait(lambda: len(self.texts(type)) >= count, within)
        return self.texts(type)

    async def message(self, within=3):
        """The first message that is not media, or None."""
        await self.wait(lambda: self.messages, within)
        return self.messages[0][1] if self.messages else None

    async def ended(self, within):
        """The close code (RFC 6455, 7.4; 1006: none was sent), or None while the socket is open."""
        await self.wait(lambda: self.code is not None, within)
        return self.code


class Phone(Socket):
    """Twilio's side of a bidirectional media stream, with the fields that its documentation shows."""

    route = "/telephone/handler"

    def __init__(self, server, path):
        super().__init__(server, path, input_rate=PHONE_RATE, output_rate=PHONE_RATE)
        self.id = f"MZ{new_id()}"
        self.sequence = self.chunk = 0
        self.plays_until = 0
        # By the end of the audio before each.
        self.marks = asyncio.Queue()

    async def __aenter__(self):
        await super().__aenter__()
        self.marker = asyncio.ensure_future(self._return_marks())
        return self

    async def __aexit__(self, *_):
        self.marker.cancel()
        await super().__aexit__()

    def came(self, message):
        if message.get("event") == "media":
            self.plays_until = max(self.plays_until, time.monotonic()) + len(self.parts[-1]) / PHONE_RATE
        elif message.get("event") == "clear":
            self.plays_until = 0
        elif message.get("event") == "mark":
            self.marks.put_nowait((self.plays_until, message["mark"]))

    async def _return_marks(self):
        """Twilio sends a mark back when what was sent before it has been played, or cleared."""
        while True:
            until, mark = await self.marks.get()
            while time.monotonic() < min(until, self.plays_until):
                await asyncio.sleep(0.01)
            await self.send(self.numbered("mark", mark=mark))

    def numbered(self, event, **fields):
        self.sequence += 1
        return {"event": event, "sequenceNumber": str(self.sequence), **fields, "streamSid": self.id}

    async def start(self, **parameters):
        await self.send({"event": "connected", "protocol": "Call", "version": "1.0.0"})
        about = {
            "accountSid": "AC0",
            "streamSid": self.id,
            "callSid": "CA0",
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": PHONE_RATE, "channels": 1},
            "customParameters": parameters,
        }
        await self.send(self.numbered("start", start=about))
        return self

    def media(self, samples):
        self.chunk += 1
        payload = base64.b64encode(self.codec.encode(samples)).decode()
        at = {"track": "inbound", "chunk": str(self.chunk), "timestamp": str(20 * self.chunk)}
        return self.numbered("media", media={**at, "payload": payload})

    async def stop(self):
        await self.send(self.numbered("stop", stop={"accountSid": "AC0", "callSid": "CA0"}))
