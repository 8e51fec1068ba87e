"""Telephone: the TwiML that Twilio is answered, and its media stream."""

import urllib.parse
import xml.etree.ElementTree

import sound
import web
from case import Between, fix, keep, tone
from sockets import PHONE_RATE, Phone


async def incoming(server, **headers):
    reply = await web.post(f"{server.url}/echo/telephone/incoming", b"", headers)
    root = xml.etree.ElementTree.fromstring(reply.body)
    return reply, root, urllib.parse.urlsplit(root.find("Connect/Stream").get("url"))


@keep(
    "telephone/twiml",
    "an incoming call is answered with TwiML: words, the stream of this service, words",
    {
        "status": 200,
        "content_type": "application/xml",
        "verbs": ["Response", "Say", "Connect", "Say"],
        "speaks": True,
        "scheme": "wss",
        "host": "127.0.0.1",
        "path": "/echo/telephone/handler",
    },
)
async def twiml(server):
    reply, root, url = await incoming(server)
    return {
        "status": reply.status,
        "content_type": reply.headers["content-type"].partition(";")[0],
        "verbs": [root.tag, *(child.tag for child in root)],
        "speaks": all(say.text for say in root.findall("Say")),
        "says": [say.text for say in root.findall("Say")],
        "scheme": url.scheme,
        "host": url.hostname,
        "path": url.path,
    }


@fix(
    "telephone/twiml-port",
    "the port of the Host header is in the stream's URL",
    fastrtc={"port_kept": False},
    wire={"port_kept": True},
)
async def twiml_port(server):
    _, _, url = await incoming(server)
    return {"port_kept": url.port == urllib.parse.urlsplit(server.url).port}


@fix(
    "telephone/twiml-forwarded",
    "behind a proxy the stream's URL names the host that the proxy was asked for",
    fastrtc={"host": "127.0.0.1"},
    wire={"host": "voice.example"},
)
async def twiml_forwarded(server):
    _, _, url = await incoming(server, **{"X-Forwarded-Host": "voice.example", "X-Forwarded-Proto": "https"})
    return {"host": url.hostname}


@keep(
    "telephone/echo",
    "mu-law at 8 kHz: 440 Hz in come back as 440 Hz, as loud, each frame with its streamSid and no other fields",
    {**tone(440), "level_db": Between(-17, -13.5), "frame_fields": ["event", "media", "streamSid"], "own_sid": True},
)
async def echo(server):
    async with Phone(server, "/echo") as phone:
        await phone.start()
        await phone.say(440, 1)
        heard = sound.judge(await phone.hear(0.6), PHONE_RATE)
        return {
            **heard,
            "frame_fields": sorted(phone.media_frames[-1]),
            "own_sid": all(frame["streamSid"] == phone.id for frame in phone.media_frames),
        }


@keep(
    "telephone/tone",
    "a handler that speaks at 24 kHz is heard at 8 kHz: 660 Hz are 660 Hz",
    tone(660),
)
async def speaks(server):
    async with Phone(server, "/tone") as phone:
        await phone.start()
        return sound.judge(await phone.hear(0.8), PHONE_RATE)


@keep(
    "telephone/other-events",
    "marks and DTMF that the handler has no use for disturb nothing",
    {"messages": [], **tone(440)},
)
async def other_events(server):
    async with Phone(server, "/echo") as phone:
        await phone.start()
        await phone.send(phone.numbered("mark", mark={"name": "m"}))
        await phone.send(phone.numbered("dtmf", dtmf={"track": "inbound_track", "digit": "1"}))
        await phone.say(440, 0.8)
        heard = sound.judge(await phone.hear(0.5), PHONE_RATE)
        return {"messages": [message for _, message in phone.messages], **heard}


@keep("telephone/stop", "the caller hangs up: close 1000", {"code": 1000})
async def stop(server):
    async with Phone(server, "/echo") as phone:
        await phone.start()
        await phone.say(440, 0.2)
        await phone.stop()
        return {"code": await phone.ended(2)}


@fix(
    "telephone/counts",
    "one more call than the limit of one: what is heard of it",
    fastrtc={"hz": Between(434, 446)},
    wire={"hz": None},
)
async def counts(server):
    async with Phone(server, "/limited-phone") as first, Phone(server, "/limited-phone") as second:
        await first.start()
        await first.say(440, 0.3)
        await second.start()
        await second.say(440, 0.8)
        return sound.judge(await second.hear(0.4, within=1), PHONE_RATE)


@fix(
    "telephone/time-limit",
    "a call with a limit of 2 s: closed, while its audio flows?",
    fastrtc={"closed": False},
    wire={"closed": True},
)
async def time_limit(server):
    async with Phone(server, "/timed") as phone:
        await phone.start()
        await phone.say(440, 3.2)
        return {"closed": phone.code is not None}


@fix(
    "telephone/ending",
    "a second of a tone, then EndStream: all of it, close 1000 though Twilio says nothing more, and nothing else is sent",
    fastrtc={"samples": 8000, "messages": [], "code": None},
    wire={"tone_s": Between(0.96, 1.02), "messages": [], "code": 1000},
)
async def ending(server):
    async with Phone(server, "/bye") as phone:
        await phone.start()
        code = await phone.ended(3)
        return {
            "samples": sum(map(len, phone.parts)),
            "tone_s": sound.tone_seconds(phone.heard(), PHONE_RATE, 660),
            "messages": [message for _, message in phone.messages if message.get("event") not in ("mark", "clear")],
            "code": code,
        }
