"""POST {p}/webrtc/offer: what is an answer, what is refused with which words, and who keeps a place."""

import asyncio
import json
import re
import time

import web
from calls import Call, Shape, new_id, offer_sdp
from case import Between, Schedule, add, fix, keep


async def body_of_offer(**fields):
    return {"sdp": await offer_sdp(), "type": "offer", "webrtc_id": new_id(), **fields}


async def offered(server, path, body):
    return await web.post(f"{server.url}{path}/webrtc/offer", body)


def failure(error, **meta):
    """The exact bytes of a failure."""
    return json.dumps({"status": "failed", "meta": {"error": error, **meta}}, separators=(",", ":"))


@keep(
    "offer/answer",
    "a complete offer with unknown keys and user metadata is answered 200, with all that a client needs in one answer",
    {
        "status": 200,
        "content_type": "application/json",
        "type": "answer",
        "bundled": True,
        "rtcp_mux": True,
        "has_candidates": True,
        "end_of_candidates": True,
        "opus": True,
        "data_channel": True,
        "msid_has_stream": True,
    },
)
async def answer(server):
    async with Call(server, "/echo") as call:
        reply = await call.offer(surprise=[1], candidate={"additionalProp1": {"user_id": "ann"}})
        sdp = reply.json()["sdp"]
        sections = re.split(r"(?m)^(?=m=)", sdp)[1:]
        application = next(section for section in sections if section.startswith("m=application"))
        return {
            "status": reply.status,
            "content_type": reply.headers["content-type"],
            "type": reply.json()["type"],
            "bundled": re.search(r"(?m)^a=group:BUNDLE 0 1\r?$", sdp) is not None,
            "rtcp_mux": "a=rtcp-mux" in sections[0],
            "has_candidates": re.search(r"(?m)^a=candidate:\S+ 1 udp \d+ \S+ \d+ typ host", sections[0]) is not None,
            "end_of_candidates": "a=end-of-candidates" in sections[0],
            "opus": re.search(r"(?mi)^a=rtpmap:\d+ opus/48000/2", sections[0]) is not None,
            "data_channel": not application.startswith("m=application 0 "),
            "msid_has_stream": re.search(r"(?m)^a=msid:(?!- )\S+ \S+", sections[0]) is not None,
        }


@fix(
    "offer/dtls-role",
    "who begins DTLS: the answer's a=setup",
    fastrtc={"setup": ["active"]},
    wire={"setup": ["passive"]},
)
async def dtls_role(server):
    async with Call(server, "/echo") as call:
        reply = await call.offer()
        return {"setup": sorted(set(re.findall(r"(?m)^a=setup:(\w+)", reply.json()["sdp"])))}


MISSING_ID = {"type": "missing", "loc": ["body", "webrtc_id"], "msg": "Field required"}
MISSING_TYPE = {"type": "missing", "loc": ["body", "type"], "msg": "Field required"}
NO_STRING = {"type": "string_type", "msg": "Input should be a valid string"}
NO_OBJECT = {
    "type": "model_attributes_type",
    "loc": ["body"],
    "msg": "Input should be a valid dictionary or object to extract fields from",
}
MALFORMED = {
    "no-id": ('{"type":"offer"}', [{**MISSING_ID, "input": {"type": "offer"}}]),
    "no-type": ('{"webrtc_id":"x"}', [{**MISSING_TYPE, "input": {"webrtc_id": "x"}}]),
    "nothing": ("{}", [{**MISSING_TYPE, "input": {}}, {**MISSING_ID, "input": {}}]),
    "number-for-id": (
        '{"type":"offer","webrtc_id":5}',
        [{"type": "string_type", "loc": ["body", "webrtc_id"], "msg": NO_STRING["msg"], "input": 5}],
    ),
    "null-for-type": (
        '{"type":null,"webrtc_id":"x"}',
        [{"type": "string_type", "loc": ["body", "type"], "msg": NO_STRING["msg"], "input": None}],
    ),
    "number-for-sdp": (
        '{"type":"offer","webrtc_id":"x","sdp":5}',
        [{"type": "string_type", "loc": ["body", "sdp"], "msg": NO_STRING["msg"], "input": 5}],
    ),
    "number-for-candidate": (
        '{"type":"offer","webrtc_id":"x","candidate":7}',
        [
            {
                "type": "dict_type",
                "loc": ["body", "candidate"],
                "msg": "Input should be a valid dictionary",
                "input": 7,
            }
        ],
    ),
    "array": ("[1]", [{**NO_OBJECT, "input": [1]}]),
    "string": ('"a"', [{**NO_OBJECT, "input": "a"}]),
    "null": ("null", [{**NO_OBJECT, "input": None}]),
    "empty": ("", [{"type": "missing", "loc": ["body"], "msg": "Field required", "input": None}]),
}


def malformed(name, body, detail):
    @keep(
        f"offer/422-{name}",
        f"the body {body or '(empty)'} is refused in FastAPI's shape, byte for byte",
        {"status": 422, "body": json.dumps({"detail": detail}, separators=(",", ":"))},
    )
    async def refused(server):
        reply = await offered(server, "/echo", body.encode())
        return {"status": reply.status, "body": reply.body.decode()}


for row, (text, faults) in MALFORMED.items():
    malformed(row, text, faults)


@keep(
    "offer/422-not-json",
    "a body that is not JSON is 422, and says so as FastAPI does but for the parser's own words",
    {"status": 422, "type": "json_invalid", "loc": ["body", 1], "msg": "JSON decode error", "input": {}},
)
async def not_json(server):
    reply = await offered(server, "/echo", b"{x")
    return {"status": reply.status, **reply.json()["detail"][0]}


@keep(
    "offer/duplicate",
    "an offer with the id of a live session is refused, byte for byte",
    {"status": 200, "body": failure("connection_already_exists")},
)
async def duplicate(server):
    async with Call(server, "/echo") as call:
        await call.open()
        reply = await offered(server, "/echo", await body_of_offer(webrtc_id=call.id))
        return {"status": reply.status, "body": reply.body.decode()}


@keep(
    "offer/duplicate-before-limit",
    "where the id is in use and the limit is reached, the id is named; a candidate for the id is neither",
    {"duplicate": "connection_already_exists", "other": "concurrency_limit_reached", "candidate": "success"},
)
async def order(server):
    async with Call(server, "/limited-order") as call:
        await call.open()
        candidate = {
            "candidate": "candidate:1 1 udp 2122260223 127.0.0.1 9 typ host generation 0",
            "sdpMid": "0",
            "sdpMLineIndex": 0,
        }
        trickled = {"type": "ice-candidate", "webrtc_id": call.id, "candidate": candidate}
        return {
            "duplicate": (await offered(server, "/limited-order", await body_of_offer(webrtc_id=call.id))).error(),
            "other": (await offered(server, "/limited-order", await body_of_offer())).error(),
            "candidate": (await offered(server, "/limited-order", trickled)).error(),
        }


@keep(
    "offer/limit",
    "one more than the limit of two is refused, byte for byte; when one of them has left there is a place again",
    {
        "status": 200,
        "body": failure("concurrency_limit_reached", limit=2),
        "again": "answer",
    },
)
async def limit(server):
    path = "/limited"
    async with Call(server, path) as first, Call(server, path) as third:
        await first.open()
        async with Call(server, path) as second:
            await second.open()
            reply = await offered(server, path, await body_of_offer())
        again = await third.until_answered(3)
        if again.error() == "answer":
            await third.follow(again.json())
        return {"status": reply.status, "body": reply.body.decode(), "again": again.error()}


@fix(
    "offer/bad-sdp",
    "an offer whose SDP cannot be parsed is refused, and keeps no place: the service's only one is free for the next",
    fastrtc={
        "status": 500,
        "error": "Internal Server Error",
        "next": "concurrency_limit_reached",
        "after_32_s": "concurrency_limit_reached",
    },
    wire={"status": 400, "error": "invalid_offer", "next": "answer"},
    schedule=Schedule.LONG,
    deadline_s=45,
)
async def bad_sdp(server):
    path = "/limited-bad"
    async with Call(server, path) as call:
        bad = await offered(server, path, await body_of_offer(sdp="v=0\r\nm=audio nonsense\r\n"))
        observed = {"status": bad.status, "error": bad.error()}
        following = await call.offer()
        observed["next"] = following.error()
        if observed["next"] != "answer":
            await asyncio.sleep(32)
            following = await call.repeat()
            observed["after_32_s"] = following.error()
        if following.error() == "answer":
            await call.follow(following.json())
        return observed


@fix(
    "offer/not-sdp",
    "an offer whose SDP is something else altogether",
    fastrtc={"status": 200, "error": "answer"},
    wire={"status": 400, "error": "invalid_offer"},
)
async def not_sdp(server):
    reply = await offered(server, "/echo", await body_of_offer(sdp="nonsense"))
    return {"status": reply.status, "error": reply.error()}


@fix(
    "offer/no-sdp",
    "an offer without SDP",
    fastrtc={"status": 500, "error": "Internal Server Error"},
    wire={"status": 400, "error": "invalid_offer"},
)
async def no_sdp(server):
    reply = await offered(server, "/echo", {"type": "offer", "webrtc_id": new_id()})
    return {"status": reply.status, "error": reply.error()}


@fix(
    "offer/unknown-type",
    "a body whose type is neither an offer nor a candidate",
    fastrtc={"status": 500},
    wire={"status": 422},
)
async def unknown_type(server):
    reply = await offered(server, "/echo", await body_of_offer(type="bogus"))
    return {"status": reply.status}


@fix(
    "offer/no-media",
    "an offer of nothing but a data channel",
    fastrtc={"status": 200, "error": "answer"},
    wire={"status": 400, "error": "invalid_offer"},
)
async def no_media(server):
    sdp = await offer_sdp()
    head, *sections = re.split(r"(?m)^(?=m=)", sdp)
    channel = next(section for section in sections if section.startswith("m=application"))
    sdp = head.replace("BUNDLE 0 1", "BUNDLE 1") + channel
    reply = await offered(server, "/echo", await body_of_offer(sdp=sdp))
    return {"status": reply.status, "error": reply.error()}


@add(
    "offer/id-characters",
    "ids that are empty, too long or of other characters",
    fastrtc={"statuses": [200, 200, 200]},
    wire={"statuses": [422, 422, 422]},
)
async def id_characters(server):
    ids = ["", "x" * 129, "a b"]
    return {"statuses": [(await offered(server, "/echo", await body_of_offer(webrtc_id=id))).status for id in ids]}


@add(
    "offer/too-large",
    "a body of 300 kB",
    fastrtc={"status": 200, "error": "unknown_connection"},
    wire={"status": 413, "error": "payload_too_large"},
)
async def too_large(server):
    body = {"type": "ice-candidate", "webrtc_id": new_id(), "candidate": {"candidate": "x" * 300_000}}
    reply = await offered(server, "/echo", body)
    return {"status": reply.status, "error": reply.error()}


@add(
    "offer/unknown-service",
    "an offer at a path that is no service's",
    fastrtc={"status": 404, "body": '{"detail":"Not Found"}'},
    wire={"status": 404, "body": failure("service_not_found")},
)
async def unknown_service(server):
    reply = await offered(server, "/no-such-service", await body_of_offer())
    return {"status": reply.status, "body": reply.body.decode()}


@add(
    "offer/rtc-configuration",
    "what a client can ask for its RTCPeerConnection",
    fastrtc={"status": 404},
    wire={"status": 200, "has_ice_servers": True},
)
async def rtc_configuration(server):
    reply = await web.get(f"{server.url}/echo/rtc_configuration")
    return {"status": reply.status, "has_ice_servers": b'"iceServers"' in reply.body}


@add(
    "offer/resume-token",
    "an answer brings a token that takes the session over later",
    fastrtc={"token": False},
    wire={"token": True},
)
async def resume_token(server):
    async with Call(server, "/echo") as call:
        token = (await call.offer()).json().get("resume")
        return {"token": isinstance(token, str) and len(token) > 0}


@add(
    "offer/control",
    "the list of sessions, asked for without a token",
    fastrtc={"status": 404},
    wire={"status": 401},
)
async def control(server):
    return {"status": (await web.get(f"{server.url}/echo/sessions")).status}


@keep(
    "offer/abandoned",
    "an answered offer that nobody follows holds its place for 30 s, and no longer",
    {"first": "answer", "at_once": "concurrency_limit_reached", "freed_after_s": Between(28.5, 33)},
    schedule=Schedule.LONG,
    deadline_s=45,
)
async def abandoned(server):
    path = "/limited-abandoned"
    first = await offered(server, path, await body_of_offer())
    began = time.monotonic()
    at_once = (await offered(server, path, await body_of_offer())).error()
    await asyncio.sleep(26)
    async with Call(server, path, shape=Shape.NONE) as call:
        reply = await call.until_answered(9)
        freed_after_s = round(time.monotonic() - began, 1)
        if reply.error() == "answer":
            await call.follow(reply.json())
        return {"first": first.error(), "at_once": at_once, "freed_after_s": freed_after_s}
