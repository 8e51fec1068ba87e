"""Sessions over WebRTC: the client shapes that must connect, what is heard, and the data channel."""

import asyncio
import time

import sound
import web
from calls import RATE, Call, Shape
from case import Between, Schedule, at_least, at_most, fix, keep, tone


def judged(samples):
    return sound.judge(samples, RATE)


async def echo(server, **options):
    async with Call(server, "/echo", hz=440, **options) as call:
        await call.open()
        # The first tenths have the codec's and the jitter buffer's beginnings in them.
        await call.hear(0.4)
        call.parts.clear()
        return judged(await call.hear(0.6))


# aiortc takes 3 dB of what it makes two channels of for Opus; FastRTC, which sends by aiortc, as many again.
ECHO = {**tone(440), "level_db": Between(-22.5, -13)}
for shape, words in {
    Shape.COMPLETE: "a complete offer with aiortc's host candidates",
    Shape.TRICKLED: "an offer at once, then its candidates by more posts",
    Shape.NONE: "an offer without candidates, and none after it",
}.items():
    keep(f"webrtc/echo-{shape.value}", f"{words}: 440 Hz come back", ECHO)(
        lambda server, shape=shape: echo(server, shape=shape)
    )
for codec in ("PCMU", "PCMA"):
    keep(f"webrtc/echo-{codec.lower()}", f"a client that offers nothing but {codec}", ECHO)(
        lambda server, codec=codec: echo(server, codec=codec)
    )


@keep(
    "webrtc/connects-at-once",
    "from answer to connection in less than the second after which DTLS repeats a flight: the quickest of three calls",
    {"connected_s": at_most(0.9)},
)
async def connects_at_once(server):
    took = []
    for _ in range(3):
        async with Call(server, "/echo") as call:
            answer = (await call.offer()).json()
            began = time.monotonic()
            await call.follow(answer)
            took.append(round(call.connected_at - began, 2))
    return {"connected_s": min(took)}


@keep(
    "webrtc/tone",
    "a handler that speaks by itself, at 24 kHz: 660 Hz arrive",
    tone(660),
)
async def speaks(server):
    async with Call(server, "/tone", channel="any label will do") as call:
        await call.open()
        return judged(await call.hear(0.8))


@fix(
    "webrtc/no-data-channel",
    "a client that opens no data channel",
    fastrtc={"heard_s": 0.0},
    wire={"heard_s": at_least(0.5)},
)
async def no_data_channel(server):
    async with Call(server, "/echo", hz=440, channel=None) as call:
        await call.open()
        await call.hear(0.8, within=2)
        return {"heard_s": sound.tone_seconds(call.heard(), RATE, 440)}


@keep(
    "webrtc/server-received",
    "each message of the client is acknowledged, in order and with its text",
    {
        "messages": [
            {"type": "log", "data": "Server received: hello"},
            {"type": "log", "data": 'Server received: {"a": "ü"}'},
            {"type": "log", "data": "Server received: "},
        ]
    },
)
async def server_received(server):
    async with Call(server, "/echo") as call:
        await call.open()
        for text in ("hello", '{"a": "ü"}', ""):
            call.channel.send(text)
        await call.text("log", count=3)
        return {"messages": [message for _, message in call.messages]}


@fix(
    "webrtc/server-received-bytes",
    "a binary message is acknowledged with its text",
    fastrtc={"data": ["Server received: b'hello'"]},
    wire={"data": ["Server received: hello"]},
)
async def server_received_bytes(server):
    async with Call(server, "/echo") as call:
        await call.open()
        call.channel.send(b"hello")
        return {"data": await call.text("log")}


@keep(
    "webrtc/arguments",
    "a handler that waits for arguments asks with `send_input`, and goes on with what it is given",
    {"asked": [[]], "hz": Between(544, 556), "over_rest_db": at_least(10)},
)
async def arguments(server):
    async with Call(server, "/arguments") as call:
        await call.open()
        await call.text("send_input")
        await web.post(f"{server.url}/arguments/input_hook", {"webrtc_id": call.id, "inputs": [550]})
        samples = await call.hear(0.8)
        return {"asked": call.texts("send_input"), **judged(samples)}


@keep(
    "webrtc/warning",
    "a handler's warning: the key is `message`",
    {"messages": [{"type": "warning", "message": "careful"}]},
)
async def warning(server):
    async with Call(server, "/warning", hz=440) as call:
        await call.open()
        await call.text("warning")
        return {"messages": [message for _, message in call.messages]}


@keep(
    "webrtc/error-message",
    "a handler fails in `receive`: the client is told once, under `message`",
    {"messages": [{"type": "error", "message": "broken on purpose"}]},
)
async def error_message(server):
    async with Call(server, "/error", hz=440) as call:
        await call.open()
        await call.text("error")
        await asyncio.sleep(0.3)
        return {"messages": [m for _, m in call.messages if m["type"] == "error"]}


@fix(
    "webrtc/error-ends",
    "a handler fails in `receive`: what becomes of the session in 2.5 s",
    fastrtc={"closed": False},
    wire={"closed": True},
)
async def error_ends(server):
    async with Call(server, "/error", hz=440) as call:
        await call.open()
        await call.text("error")
        return {"closed": await call.ended(2.5)}


@fix(
    "webrtc/error-in-emit",
    "a handler fails in `emit`: the client is told, and the session ends",
    fastrtc={"told": ["broken on purpose"], "closed": False},
    wire={"told": ["broken on purpose"], "closed": True},
)
async def error_in_emit(server):
    async with Call(server, "/error-emit", hz=440) as call:
        await call.open()
        told = await call.text("error")
        return {"told": told, "closed": await call.ended(2.5)}


@keep(
    "webrtc/time-limit",
    "a session with a limit of 2 s is closed 2 s after it connected, while its audio flows",
    {"after_s": Between(1.7, 3.2), "heard_s": at_least(1)},
)
async def time_limit(server):
    async with Call(server, "/timed", hz=440) as call:
        await call.open()
        await call.ended(5)
        after_s = round((call.over_at or float("inf")) - call.connected_at, 1)
        return {"after_s": after_s, "heard_s": sound.tone_seconds(call.heard(), RATE, 440)}


@keep(
    "webrtc/id-is-free",
    "when a client has hung up, its id can be offered again within a second",
    {"again": "answer", "after_s": at_most(1)},
)
async def id_is_free(server):
    async with Call(server, "/echo") as first:
        await first.open()
    began = time.monotonic()
    async with Call(server, "/echo", id=first.id) as second:
        reply = await second.until_answered(3)
        return {"again": reply.error(), "after_s": round(time.monotonic() - began, 1)}


@fix(
    "webrtc/idle-cost",
    "a synchronous handler that has nothing to say: the server's load by one such session, in cores",
    fastrtc={"wanted_cores": at_least(0.3)},
    wire={"cores": at_most(0.05)},
    schedule=Schedule.ALONE,
)
async def idle_cost(server):
    async with Call(server, "/idle") as call:
        await call.open()
        await asyncio.sleep(0.3)
        return await server.idle_load()
