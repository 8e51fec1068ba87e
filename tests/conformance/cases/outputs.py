"""Additional outputs: announced to the client, and read as server-sent events."""

import asyncio

import sound
import web
from calls import RATE, Call, new_id
from case import Between, add, fix, keep, tone
from sockets import Socket

# A single argument is the data, several are an array of it.
EMITTED = ["ready", ["with audio", 2]]


def url(server, path, id):
    return f"{server.url}{path}/outputs?webrtc_id={id}"


async def read(server, path, id, count, seconds=3):
    return await web.events(url(server, path, id), count, seconds)


@keep(
    "outputs/webrtc",
    "each output is announced once with `fetch_output`, can be read in order, and the audio beside one is played",
    {"announced": [[], []], "names": ["output", "output"], "data": EMITTED, **tone(660)},
)
async def webrtc(server):
    async with Call(server, "/told") as call:
        await call.open()
        got, samples = await asyncio.gather(read(server, "/told", call.id, 2), call.hear(0.35))
        return {
            "announced": await call.text("fetch_output", count=2),
            "names": [event.get("event") for event in got.events],
            "data": [web.data_of(event) for event in got.events],
            **sound.judge(samples, RATE),
        }


@keep(
    "outputs/end",
    "the stream of events ends when the session has",
    {"data": EMITTED, "ended": True},
)
async def end(server):
    async with Call(server, "/told") as call:
        await call.open()
        reading = asyncio.ensure_future(read(server, "/told", call.id, 3, seconds=6))
        await call.text("fetch_output", count=2)
        await asyncio.sleep(0.5)
    got = await reading
    return {"data": [web.data_of(event) for event in got.events], "ended": got.ended}


@add(
    "outputs/ids",
    "events have ids, and a client that comes back with the last one gets what it missed",
    fastrtc={"ids": [None, None], "missed": []},
    wire={"ids_differ": True, "missed": [EMITTED[1]]},
)
async def ids(server):
    async with Call(server, "/told") as call:
        await call.open()
        got = await read(server, "/told", call.id, 2)
        seen = [event.get("id") for event in got.events]
        last = {"last-event-id": seen[0]} if seen and seen[0] else {}
        again = await web.events(url(server, "/told", call.id), 1, 1.5, last)
        return {
            "ids": seen,
            "ids_differ": None not in seen and len(set(seen)) == len(seen) == 2,
            "missed": [web.data_of(event) for event in again.events],
        }


@add(
    "outputs/after-end",
    "a client that comes back after the session's end gets the rest, and then 204",
    fastrtc={"first": [200, False], "second": [200, False]},
    wire={"second": [204, True]},
)
async def after_end(server):
    async with Call(server, "/told") as call:
        await call.open()
        await call.text("fetch_output", count=2)
    await asyncio.sleep(1)
    first = await read(server, "/told", call.id, 9, seconds=1)
    last = {"last-event-id": first.events[-1]["id"]} if first.events and "id" in first.events[-1] else {}
    second = await web.events(url(server, "/told", call.id), 9, 1, last)
    return {"first": [first.status, first.ended], "second": [second.status, second.ended]}


@add(
    "outputs/unknown-id",
    "the outputs of a session that never was",
    fastrtc={"status": 200, "ended": False},
    wire={"status": 404, "ended": True},
)
async def unknown_id(server):
    got = await read(server, "/told", new_id(), 1, seconds=1)
    return {"status": got.status, "ended": got.ended}


@fix(
    "outputs/socket",
    "over WebSocket: outputs are announced here too, and can be read",
    fastrtc={"announced": [], "data": EMITTED},
    wire={"announced": [[], []], "data": EMITTED},
)
async def socket(server):
    async with Socket(server, "/told") as socket:
        await socket.begin()
        got = await read(server, "/told", socket.id, 2)
        return {
            "announced": await socket.text("fetch_output", count=2, within=0.5),
            "data": [web.data_of(event) for event in got.events],
        }


@fix(
    "outputs/before-start",
    "over WebSocket: a handler has an output and a second of a tone ready before the client's start",
    fastrtc={"heard_s": 0.0},
    wire={"heard_s": Between(0.98, 1.02)},
)
async def before_start(server):
    async with Socket(server, "/eager") as socket:
        await asyncio.sleep(0.3)
        await socket.start()
        await socket.hear(1, within=1.5)
        return {"heard_s": sound.tone_seconds(socket.heard(), socket.output_rate, 660)}
