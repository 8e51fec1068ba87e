"""Sessions over WebSocket: what is sent and heard at which rate, limits, and what is not a session."""

import asyncio
import time

import sound
import web
from calls import Call, new_id, offer_sdp
from case import Between, OneOf, add, at_least, fix, keep, tone
from sockets import Socket


def judged(socket, samples):
    return sound.judge(samples, socket.output_rate)


@keep(
    "websocket/echo",
    "mu-law at the default rates: 440 Hz at 48 kHz in come back as 440 Hz at 24 kHz, half as many samples, as loud",
    {**tone(440), "level_db": Between(-16.5, -13.5), "samples_out_for_in": Between(0.45, 0.51)},
)
async def echo(server):
    async with Socket(server, "/echo") as socket:
        await socket.start()
        await socket.say(440, 1.2)
        # FastRTC sends a 20 ms frame every 20 ms and a little.
        await socket.wait(lambda: sum(map(len, socket.parts)) >= 0.5 * socket.sample, 1)
        got = sum(map(len, socket.parts))
        return {**judged(socket, socket.heard()[-9600:]), "samples_out_for_in": round(got / socket.sample, 3)}


@keep(
    "websocket/other-rates",
    "a handler with 8 kHz in and 16 kHz out: 440 Hz in come back as 440 Hz",
    tone(440),
)
async def other_rates(server):
    async with Socket(server, "/echo-rates", input_rate=8000, output_rate=16000) as socket:
        await socket.start()
        await socket.say(440, 1)
        return judged(socket, await socket.hear(0.6))


@keep(
    "websocket/tone",
    "a handler that speaks by itself, while the client sends nothing: frames have exactly these fields",
    {**tone(660), "frame": {"event": "media", "media": {"payload": "…"}}},
)
async def speaks(server):
    async with Socket(server, "/tone") as socket:
        await socket.start()
        return {**judged(socket, await socket.hear(0.8)), "frame": socket.media_frames[-1]}


@fix(
    "websocket/pace",
    "a handler that has a second of a tone at once, in ten parts: how long the server takes to send it",
    fastrtc={"samples": 24000, "took_s": Between(0.1, 0.6)},
    wire={"samples": at_least(24000), "took_s": Between(0.6, 1.2)},
)
async def pace(server):
    async with Socket(server, "/bye") as socket:
        await socket.start()
        await socket.hear(1)
        took_s = round(time.monotonic() - socket.first_audio_at, 2) if socket.first_audio_at else None
        return {"samples": sum(map(len, socket.parts)), "took_s": took_s}


@keep(
    "websocket/ping",
    "a ping is answered, before the start and after it",
    {"messages": [{"event": "pong"}, {"event": "pong"}]},
)
async def ping(server):
    async with Socket(server, "/echo") as socket:
        await socket.send({"event": "ping"})
        await socket.message()
        await socket.start()
        await socket.send({"event": "ping"})
        await socket.wait(lambda: len(socket.messages) >= 2, 3)
        return {"messages": [message for _, message in socket.messages]}


@keep("websocket/stop", "the client stops: close 1000", {"code": 1000})
async def stop(server):
    async with Socket(server, "/echo") as socket:
        await socket.start()
        await socket.say(440, 0.2)
        await socket.send({"event": "stop"})
        return {"code": await socket.ended(2)}


@fix(
    "websocket/stop-before-start",
    "the client stops what it did not start",
    fastrtc={"code": 1006},
    wire={"code": 1000},
)
async def stop_before_start(server):
    async with Socket(server, "/echo") as socket:
        await socket.send({"event": "stop"})
        return {"code": await socket.ended(2)}


@keep(
    "websocket/unknown-event",
    "events that nobody knows are ignored, before the start and after it",
    {"messages": [], **tone(440)},
)
async def unknown_event(server):
    async with Socket(server, "/echo") as socket:
        await socket.send({"event": "surprise"})
        await socket.start(surprise=True)
        await socket.send({"event": "surprise"})
        await socket.say(440, 0.8)
        return {"messages": [message for _, message in socket.messages], **judged(socket, await socket.hear(0.5))}


@fix(
    "websocket/media-before-start",
    "half a second of a tone in a burst before the start: how much of it is heard after it",
    fastrtc={"heard_s": at_least(0.1)},
    wire={"heard_s": 0.0},
)
async def media_before_start(server):
    async with Socket(server, "/echo") as socket:
        await socket.burst(440, 0.5)
        await socket.start()
        await socket.hear(0.5, within=1.2)
        return {"heard_s": sound.tone_seconds(socket.heard(), socket.output_rate, 440)}


def broken(name, checks, frame):
    @fix(
        f"websocket/{name}",
        checks,
        fastrtc={"messages": [], "code": 1000},
        wire={"messages": 1, "code": OneOf((1007, 1008))},
    )
    async def observed(server):
        async with Socket(server, "/echo") as socket:
            await socket.start()
            await socket.send({"event": "ping"})
            await socket.message()
            socket.messages.clear()
            await socket.send(frame)
            code = await socket.ended(2)
            messages = [message for _, message in socket.messages]
            return {"messages": len(messages) or messages, "code": code}


broken("not-json", "a frame that is not JSON", "{x")
broken("no-event", "a frame without an event", {"media": {}})


@fix(
    "websocket/start-without-id",
    "a start without an id",
    fastrtc={"messages": [], "code": 1006},
    wire={"messages": 1, "code": OneOf((1007, 1008))},
)
async def start_without_id(server):
    async with Socket(server, "/echo") as socket:
        await socket.send({"event": "start"})
        code = await socket.ended(2)
        messages = [message for _, message in socket.messages]
        return {"messages": len(messages) or messages, "code": code}


@keep(
    "websocket/limit",
    "one more than the limit is told so and closed with 1000; when the other has left there is a place again",
    {
        "messages": [{"status": "failed", "meta": {"error": "concurrency_limit_reached", "limit": 1}}],
        "code": 1000,
        "again": [{"event": "pong"}],
    },
)
async def limit(server):
    path = "/limited-socket"
    async with Socket(server, path) as first:
        await first.start()
        await first.send({"event": "ping"})
        await first.message()
        async with Socket(server, path) as second:
            await second.start()
            code = await second.ended(3)
            messages = [message for _, message in second.messages]
    await asyncio.sleep(0.5)
    async with Socket(server, path) as third:
        await third.start()
        await third.send({"event": "ping"})
        await third.message()
        return {"messages": messages, "code": code, "again": [message for _, message in third.messages]}


DUPLICATE = {"status": "failed", "meta": {"error": "connection_already_exists"}}


async def second_with(server, id):
    """What becomes of a WebSocket session that starts with the id of another: its first message and close code."""
    async with Socket(server, "/echo", id=id) as second:
        await second.start()
        await second.send({"event": "ping"})
        return {"first": await second.message(), "code": await second.ended(1)}


@fix(
    "websocket/duplicate",
    "a second start with the id of a live WebSocket session",
    fastrtc={"first": {"event": "pong"}, "code": None},
    wire={"first": DUPLICATE, "code": 1000},
)
async def duplicate(server):
    async with Socket(server, "/echo") as first:
        await first.start()
        await first.send({"event": "ping"})
        await first.message()
        return await second_with(server, first.id)


@fix(
    "websocket/duplicate-of-webrtc",
    "a start with the id of a live WebRTC session",
    fastrtc={"first": {"event": "pong"}, "code": None},
    wire={"first": DUPLICATE, "code": 1000},
)
async def duplicate_of_webrtc(server):
    async with Call(server, "/echo") as call:
        await call.open()
        return await second_with(server, call.id)


async def offer_beside(server, path, socket, id):
    """The reply to a WebRTC offer while `socket` is a session."""
    await socket.start()
    await socket.send({"event": "ping"})
    await socket.message()
    body = {"sdp": await offer_sdp(), "type": "offer", "webrtc_id": id}
    return (await web.post(f"{server.url}{path}/webrtc/offer", body)).error()


@keep(
    "websocket/duplicate-by-webrtc",
    "a WebRTC offer with the id of a live WebSocket session",
    {"reply": "connection_already_exists"},
)
async def duplicate_by_webrtc(server):
    async with Socket(server, "/echo") as socket:
        return {"reply": await offer_beside(server, "/echo", socket, socket.id)}


@keep(
    "websocket/limit-by-webrtc",
    "a WebRTC session has the service's only place: a WebSocket is refused",
    {
        "messages": [{"status": "failed", "meta": {"error": "concurrency_limit_reached", "limit": 1}}],
        "code": 1000,
    },
)
async def limit_by_webrtc(server):
    async with Call(server, "/limited-webrtc") as call, Socket(server, "/limited-webrtc") as socket:
        await call.open()
        await socket.start()
        code = await socket.ended(3)
        return {"messages": [message for _, message in socket.messages], "code": code}


@fix(
    "websocket/counts-for-webrtc",
    "a WebSocket session has the service's only place: a WebRTC offer is refused",
    fastrtc={"reply": "answer"},
    wire={"reply": "concurrency_limit_reached"},
)
async def counts_for_webrtc(server):
    async with Socket(server, "/limited-mixed") as socket:
        return {"reply": await offer_beside(server, "/limited-mixed", socket, new_id())}


@fix(
    "websocket/time-limit",
    "a session with a limit of 2 s: closed, while its audio flows?",
    fastrtc={"code": None},
    wire={"code": 1000},
)
async def time_limit(server):
    async with Socket(server, "/timed") as socket:
        await socket.start()
        await socket.say(440, 3.2)
        return {"code": socket.code}


@fix(
    "websocket/warning",
    "a handler's warning",
    fastrtc={"messages": []},
    wire={"messages": [{"type": "warning", "message": "careful"}]},
)
async def warning(server):
    async with Socket(server, "/warning") as socket:
        await socket.start()
        await socket.say(440, 0.6)
        return {"messages": [message for _, message in socket.messages]}


@fix(
    "websocket/error",
    "a handler fails in `receive`: the client is told, and the session ends",
    fastrtc={"told": [], "closed": False},
    wire={"told": ["broken on purpose"], "closed": True},
)
async def error(server):
    async with Socket(server, "/error") as socket:
        await socket.start()
        await socket.say(440, 0.6)
        return {"told": socket.texts("error"), "closed": await socket.ended(1) is not None}


@fix(
    "websocket/error-in-emit",
    "a handler fails in `emit`: the client is told, and the session ends",
    fastrtc={"told": [], "closed": False},
    wire={"told": ["broken on purpose"], "closed": True},
)
async def error_in_emit(server):
    async with Socket(server, "/error-emit") as socket:
        await socket.start()
        await socket.say(440, 0.6)
        return {"told": socket.texts("error"), "closed": await socket.ended(1) is not None}


@keep(
    "websocket/arguments",
    "a handler that waits for arguments asks with `send_input` here too",
    {"asked": [[]], **tone(550)},
)
async def arguments(server):
    async with Socket(server, "/arguments") as socket:
        await socket.start()
        await socket.text("send_input")
        await web.post(f"{server.url}/arguments/input_hook", {"webrtc_id": socket.id, "inputs": [550]})
        samples = await socket.hear(0.8)
        return {"asked": socket.texts("send_input"), **judged(socket, samples)}


@add(
    "websocket/pcm16",
    "a start that asks for 16-bit PCM: 440 Hz come back as clean as they went",
    fastrtc={"clean": False},
    wire={"clean": True},
)
async def pcm16(server):
    async with Socket(server, "/echo", codec=sound.PCM16) as socket:
        await socket.start(codec="pcm16")
        await socket.say(440, 1)
        heard = judged(socket, await socket.hear(0.5))
        # Mu-law is not better than 38 dB.
        clean = heard["hz"] is not None and abs(heard["hz"] - 440) < 6 and heard["over_rest_db"] > 42
        return {"clean": clean, **heard}


@add(
    "websocket/resume-token",
    "a start that asks for a resume token: the first frame brings it",
    fastrtc={"first": {"event": "pong"}},
    wire={"type": "session", "token": True},
)
async def resume_token(server):
    async with Socket(server, "/echo") as socket:
        await socket.start(resume=True)
        await socket.send({"event": "ping"})
        first = await socket.message()
        data = first.get("data")
        token = data.get("resume") if isinstance(data, dict) else None
        return {"first": first, "type": first.get("type"), "token": isinstance(token, str) and len(token) > 0}
