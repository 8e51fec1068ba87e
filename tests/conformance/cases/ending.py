"""Endings: EndStream and what is heard before it, over WebRTC and over WebSocket; `shutdown`."""

import asyncio

import sound
import web
from calls import RATE, Call
from case import Between, at_least, fix, keep
from sockets import Socket

# A second by aiortc: its jitter buffer gives out the first packets together, late on a busy machine, and keeps the last four
# of a stream that stops.
WHOLE_SECOND = {"packets_before": at_least(48), "tone_s": Between(0.84, 1.06), "after_s": Between(0.5, 2)}
# Two cases that count at the same time would count each other.
WITNESS = asyncio.Lock()


async def heard_before_end(call):
    """Once `end_stream` is there: what has arrived by then, and how long after the first sound that was."""
    data = await call.text("end_stream")
    packets_before = await call.packets()
    at = next((at for at, message in call.messages if message["type"] == "end_stream"), None)
    await asyncio.sleep(0.2)
    return {
        "end_stream": data,
        "packets_before": packets_before,
        "packets": await call.packets(),
        "tone_s": sound.tone_seconds(call.heard(), RATE, 660),
        "after_s": round(at - call.first_audio_at, 2) if at and call.first_audio_at else None,
    }


@keep(
    "ending/webrtc",
    "a second of a tone, then EndStream: nearly all of it arrives, then `end_stream` with its text",
    {"end_stream": ["bye"], **WHOLE_SECOND},
)
async def webrtc(server):
    async with Call(server, "/bye") as call:
        await call.open()
        return await heard_before_end(call)


@keep(
    "ending/webrtc-at-once",
    "a second of a tone and EndStream in one: the same, and the text is the default one",
    {"end_stream": ["Stream closed"], **WHOLE_SECOND},
)
async def webrtc_at_once(server):
    async with Call(server, "/bye-at-once") as call:
        await call.open()
        return await heard_before_end(call)


@fix(
    "ending/webrtc-whole",
    "a second of a tone, then EndStream: how many of its 50 packets arrive",
    fastrtc={"packets": 49},
    wire={"packets": at_least(50)},
)
async def webrtc_whole(server):
    async with Call(server, "/bye") as call:
        await call.open()
        return await heard_before_end(call)


@fix(
    "ending/webrtc-closes",
    "after `end_stream` the client does nothing: whether the server closes the connection within 2.5 s",
    fastrtc={"closed": False},
    wire={"closed": True},
)
async def webrtc_closes(server):
    async with Call(server, "/bye") as call:
        await call.open()
        await call.text("end_stream")
        return {"closed": await call.ended(2.5)}


@fix(
    "ending/socket",
    "over WebSocket: the whole second, `end_stream`, and close 1000 though the client says nothing more",
    fastrtc={"samples": 24000, "end_stream": [], "code": None, "code_after_ping": 1000},
    wire={"samples": at_least(24000), "tone_s": Between(0.98, 1.02), "end_stream": ["bye"], "code": 1000},
)
async def socket(server):
    async with Socket(server, "/bye") as socket:
        await socket.start()
        code = await socket.ended(3)
        observed = {
            "samples": sum(map(len, socket.parts)),
            "tone_s": sound.tone_seconds(socket.heard(), socket.output_rate, 660),
            "end_stream": socket.texts("end_stream"),
            "code": code,
        }
        if code is None:
            await socket.send({"event": "ping"})
            observed["code_after_ping"] = await socket.ended(2)
        return observed


@keep(
    "ending/socket-plays-out",
    "over WebSocket, while the client keeps sending: close 1000 once the second has played",
    {"code": 1000, "after_s": Between(0.9, 2.2)},
)
async def socket_plays_out(server):
    async with Socket(server, "/bye") as socket:
        await socket.start()
        await socket.say(0, 3)
        await socket.ended(0.5)
        return {"code": socket.code, "after_s": round((socket.closed_at or 1e9) - socket.first_audio_at, 2)}


@fix(
    "ending/socket-at-once",
    "over WebSocket: a second of a tone and EndStream in one",
    fastrtc={"samples": 0},
    wire={"tone_s": Between(0.98, 1.02), "end_stream": ["Stream closed"], "code": 1000},
)
async def socket_at_once(server):
    async with Socket(server, "/bye-at-once") as socket:
        await socket.start()
        code = await socket.ended(2.5)
        return {
            "samples": sum(map(len, socket.parts)),
            "tone_s": sound.tone_seconds(socket.heard(), socket.output_rate, 660),
            "end_stream": socket.texts("end_stream"),
            "code": code,
        }


async def told(server, id):
    """What a session of the witness says of itself: its first additional output."""
    got = await web.events(f"{server.url}/witness/outputs?webrtc_id={id}", 1, 3)
    return web.data_of(got.events[0]) if got.events else {}


async def shutdowns(server):
    async with Call(server, "/witness") as call:
        await call.open()
        return (await told(server, call.id)).get("shutdowns")


async def shutdowns_by(server, leave):
    """How many handlers `leave` shuts down, by sessions before and after it."""
    before = await shutdowns(server)
    # The session that told of `before` is one of those that come to an end.
    await asyncio.sleep(0.3)
    await leave()
    await asyncio.sleep(0.3)
    return {"shutdowns": await shutdowns(server) - before - 1}


@keep(
    "ending/shutdown-webrtc",
    "a WebRTC client hangs up: its handler's `shutdown` is called, once",
    {"shutdowns": 1},
)
async def shutdown_webrtc(server):
    async def leave():
        async with Call(server, "/witness") as call:
            await call.open()
            await told(server, call.id)

    async with WITNESS:
        return await shutdowns_by(server, leave)


@fix(
    "ending/shutdown-socket",
    "a WebSocket client stops: its handler's `shutdown` is called, once",
    fastrtc={"shutdowns": 0},
    wire={"shutdowns": 1},
)
async def shutdown_socket(server):
    async def leave():
        async with Socket(server, "/witness") as socket:
            await socket.begin()
            await told(server, socket.id)
            await socket.send({"event": "stop"})
            await socket.ended(2)

    async with WITNESS:
        return await shutdowns_by(server, leave)


@keep(
    "context/webrtc",
    "inside `emit` the context has the session's id",
    {"is_own_id": True},
)
async def context_webrtc(server):
    async with WITNESS, Call(server, "/witness") as call:
        await call.open()
        return {"is_own_id": (await told(server, call.id)).get("id") == call.id}


@fix(
    "context/socket",
    "inside an asynchronous `emit` over WebSocket the context has the session's id",
    fastrtc={"told": None},
    wire={"is_own_id": True},
)
async def context_socket(server):
    async with WITNESS, Socket(server, "/witness") as socket:
        await socket.begin()
        told_id = (await told(server, socket.id)).get("id", "nothing")
        return {"told": told_id, "is_own_id": told_id == socket.id}
