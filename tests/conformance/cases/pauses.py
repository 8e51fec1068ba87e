"""ReplyOnPause: turns, their messages and their order, arguments, interruption, on all three transports.

Its voice activity model calls speech what is louder than -40 dBFS, so tones with silence between them are speech with
pauses. FastRTC's handler polls itself and turns a whole core for each session: these cases run one at a time."""

import asyncio

import sound
import web
from calls import RATE, Call, without_repeats
from case import Between, Schedule, at_least, at_most, fix, keep, tone
from sockets import PHONE_RATE, Phone, Socket

ALONE = {"schedule": Schedule.ALONE}
TURN = ["started_talking", "pause_detected", "response_starting"]
# The model sees chunks of 0.6 s: this much speech is sure to fill 0.2 s of one of them whatever their phase, and this much
# silence is sure to be a whole one, and the answer's way back besides.
SPEECH_S, SILENCE_S = 0.9, 1.5


async def turn(client, hz=440):
    await client.say(hz, SPEECH_S)
    await client.say(0, SILENCE_S)


def words(client):
    """What a pause handler says of its turns."""
    return [word for word in client.texts("log") if not word.startswith("Server received")]


def order(words):
    """The words, but of the starts of a response only the one after a pause: FastRTC says one for each part."""
    kept = []
    for word in words:
        if word != "response_starting" or kept[-1:] == ["pause_detected"]:
            kept.append(word)
    return kept


async def reply_heard(client, rate, hz=880):
    """The reply, an octave above what was said. Its first and last tenth are not judged."""
    await client.wait(lambda: sound.tone_seconds(client.heard(), rate, hz) >= 0.8, 2.5)
    heard = client.heard()
    begin = int((abs(heard.astype(int)) > 1000).argmax()) + rate // 10
    seconds = sound.tone_seconds(heard, rate, hz)
    return {"reply_s": seconds, **sound.judge(heard[begin : begin + rate // 2], rate)}


@keep(
    "pause/webrtc",
    "speech and a pause: the messages in their order, and the reply",
    {"order": TURN, "reply_s": at_least(0.3), **tone(880)},
    **ALONE,
)
async def webrtc(server):
    async with Call(server, "/pause") as call:
        await call.open()
        await turn(call)
        heard = await reply_heard(call, RATE)
        return {"order": order(words(call)), **heard}


@keep(
    "pause/socket",
    "the same over WebSocket",
    {"order": TURN, "reply_s": at_least(0.3), **tone(880)},
    **ALONE,
)
async def socket(server):
    async with Socket(server, "/pause") as socket:
        await socket.start()
        await turn(socket)
        heard = await reply_heard(socket, socket.output_rate)
        return {"order": order(words(socket)), **heard}


@keep(
    "pause/phone",
    "the same over a telephone: the reply",
    {"reply_s": at_least(0.3), **tone(880)},
    **ALONE,
)
async def phone(server):
    async with Phone(server, "/pause") as phone:
        await phone.start()
        await turn(phone)
        return await reply_heard(phone, PHONE_RATE)


@fix(
    "pause/whole-reply",
    "how much is heard of a reply of one second, over WebSocket, where nothing else can take any of it",
    # Its queue is emptied after the reply was allowed to begin: by chance, up to half of it has been lost.
    fastrtc={"reply_s": Between(0.1, 1.0)},
    wire={"reply_s": Between(0.98, 1.02)},
    **ALONE,
)
async def whole_reply(server):
    async with Socket(server, "/pause") as socket:
        await socket.start()
        await turn(socket)
        await socket.wait(lambda: sound.tone_seconds(socket.heard(), socket.output_rate, 880) >= 1, 1.5)
        return {"reply_s": sound.tone_seconds(socket.heard(), socket.output_rate, 880)}


@fix(
    "pause/phone-messages",
    "no message is sent into Twilio's stream that Twilio does not know",
    fastrtc={"foreign": ["log"]},
    wire={"foreign": []},
    **ALONE,
)
async def phone_messages(server):
    async with Phone(server, "/pause") as phone:
        await phone.start()
        await turn(phone)
        await phone.hear(0.5, within=1)
        foreign = {m.get("type", m.get("event")) for _, m in phone.messages if m.get("event") not in ("mark", "clear")}
        return {"foreign": sorted(foreign)}


@fix(
    "pause/response-starting",
    "a reply of ten parts: how often it is said to start",
    fastrtc={"starts": 10},
    wire={"starts": 1},
    **ALONE,
)
async def response_starting(server):
    async with Call(server, "/pause") as call:
        await call.open()
        await turn(call)
        await reply_heard(call, RATE)
        return {"starts": words(call).count("response_starting")}


@keep(
    "pause/two-turns",
    "a second turn after the first reply",
    {"order": TURN + TURN},
    **ALONE,
)
async def two_turns(server):
    async with Call(server, "/pause") as call:
        await call.open()
        for _ in range(2):
            await turn(call)
            await reply_heard(call, RATE)
        return {"order": order(words(call))}


@keep(
    "pause/silence",
    "a client that does not speak gets neither messages nor a reply",
    {"order": [], "reply_s": 0.0},
    **ALONE,
)
async def silence(server):
    async with Call(server, "/pause") as call:
        await call.open()
        await call.say(0, 2)
        return {"order": words(call), "reply_s": sound.tone_seconds(call.heard(), RATE, 880)}


@keep(
    "pause/arguments",
    "a reply with an argument asks for it in each turn, between the pause and the reply, and each gets its own",
    {
        "order": ["started_talking", "pause_detected", "send_input", "response_starting"] * 2,
        "first_hz": Between(544, 556),
        "second_hz": Between(764, 776),
    },
    **ALONE,
)
async def arguments(server):
    async with Call(server, "/pause-arguments") as call:
        await call.open()
        hz = []
        for count, argument in enumerate((550, 770), 1):
            await call.say(440, SPEECH_S)
            await call.text("send_input", count=count, within=3)
            call.parts.clear()
            body = {"webrtc_id": call.id, "inputs": [argument]}
            await web.post(f"{server.url}/pause-arguments/input_hook", body)
            hz.append(sound.judge(await call.hear(0.6, within=2), RATE)["hz"])
            # The rest of the reply, and no speech that would be taken for this turn's.
            await asyncio.sleep(0.8)
        said = [m["data"] if m["type"] == "log" else m["type"] for _, m in call.messages]
        return {"order": without_repeats(said), "first_hz": hz[0], "second_hz": hz[1]}


@keep(
    "pause/greeting",
    "a start-up function speaks before the client has",
    {**tone(990), "order": ["response_starting"]},
    **ALONE,
)
async def greeting(server):
    async with Call(server, "/pause-greeting") as call:
        await call.open()
        return {**sound.judge(await call.hear(0.6), RATE), "order": words(call)[:1]}


@keep(
    "pause/interrupt",
    "a turn of 330 Hz during a long reply of 880: the reply stops, and one of 660 begins",
    {"order": TURN + TURN, "first_s": Between(0.3, 4), "second_hz": Between(654, 666), "over_rest_db": at_least(10)},
    **ALONE,
)
async def interrupt(server):
    async with Call(server, "/pause-long") as call:
        await call.open()
        await turn(call)
        await turn(call, hz=330)
        await call.wait(lambda: sound.tone_seconds(call.heard(), RATE, 660) >= 0.7, 2.5)
        second = sound.judge(call.heard()[-RATE // 2 :], RATE)
        return {
            "order": order(words(call)),
            "first_s": sound.tone_seconds(call.heard(), RATE, 880),
            "second_hz": second["hz"],
            "over_rest_db": second["over_rest_db"],
        }


@keep(
    "pause/cannot-interrupt",
    "where a reply cannot be interrupted, a turn of 330 Hz during it changes nothing",
    {"order": TURN, "hz": Between(874, 886), "over_rest_db": at_least(10)},
    **ALONE,
)
async def cannot_interrupt(server):
    async with Call(server, "/pause-patient") as call:
        await call.open()
        await turn(call)
        await turn(call, hz=330)
        await asyncio.sleep(0.3)
        return {"order": order(words(call)), **sound.judge(call.heard()[-RATE // 2 :], RATE)}


@fix(
    "pause/interrupt-phone",
    "a turn during a long reply over a telephone: Twilio is told to forget what it has not played",
    fastrtc={"clears": 0},
    wire={"clears": at_least(1)},
    **ALONE,
)
async def interrupt_phone(server):
    async with Phone(server, "/pause-long") as phone:
        await phone.start()
        await turn(phone)
        await turn(phone)
        return {"clears": sum(message.get("event") == "clear" for _, message in phone.messages)}


@keep(
    "pause/trigger",
    "`trigger_response` makes a reply without speech; any other kind of handler refuses it",
    {"reply": {"status": "success"}, "refused": "not_a_reply_on_pause", **tone(880)},
    **ALONE,
)
async def trigger(server):
    async with Call(server, "/pause") as call, Call(server, "/echo") as other:
        await call.open()
        await other.open()
        reply = await web.post(f"{server.url}/pause/trigger_response", {"webrtc_id": call.id})
        refused = await web.post(f"{server.url}/echo/trigger_response", {"webrtc_id": other.id})
        return {"reply": reply.json(), "refused": refused.error(), **sound.judge(await call.hear(0.6), RATE)}


@fix(
    "pause/trigger-socket",
    "`trigger_response` for a session over WebSocket",
    fastrtc={"status": 500},
    wire={"status": 200, "reply": "success", **tone(880)},
    **ALONE,
)
async def trigger_socket(server):
    async with Socket(server, "/pause") as socket:
        await socket.start()
        await socket.send({"event": "ping"})
        await socket.message()
        reply = await web.post(f"{server.url}/pause/trigger_response", {"webrtc_id": socket.id})
        heard = sound.judge(await socket.hear(0.6, within=1), socket.output_rate)
        return {"status": reply.status, "reply": reply.error(), **heard}


@fix(
    "pause/idle-cost",
    "a pause handler that hears nothing: the server's load by one such session, in cores",
    fastrtc={"wanted_cores": at_least(0.3)},
    wire={"cores": at_most(0.05)},
    **ALONE,
)
async def idle_cost(server):
    async with Call(server, "/pause") as call:
        await call.open()
        await asyncio.sleep(0.3)
        return await server.idle_load()
