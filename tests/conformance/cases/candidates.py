"""Trickled candidates: what is read, and what is answered."""

import web
from calls import new_id, offer_sdp
from case import add, fix, keep

LINE = "candidate:1 1 udp 2122260223 127.0.0.1 9 typ host"
BROWSER = f"{LINE} generation 0 ufrag abcd network-id 1 network-cost 10"


async def trickled(server, id, candidate):
    body = {"type": "ice-candidate", "webrtc_id": id, "candidate": candidate}
    return await web.post(f"{server.url}/echo/webrtc/offer", body)


def form(mark, name, checks, candidate, **expected):
    """A case: one candidate to a session that waits for some."""

    @mark(f"candidate/{name}", checks, **expected)
    async def reply(server):
        id = new_id()
        await web.post(f"{server.url}/echo/webrtc/offer", {"sdp": await offer_sdp(), "type": "offer", "webrtc_id": id})
        reply = await trickled(server, id, candidate)
        return {"status": reply.status, "reply": reply.body.decode()}


SUCCESS = {"status": 200, "reply": '{"status":"success"}'}
INVALID = {"status": 200, "reply": '{"status":"failed","meta":{"error":"invalid_candidate_format"}}'}


def failed(error):
    return {"status": 200, "reply": f'{{"status":"failed","meta":{{"error":"{error}"}}}}'}


form(
    keep,
    "browser",
    "RTCIceCandidate.toJSON() as a browser makes it",
    {"candidate": BROWSER, "sdpMid": "0", "sdpMLineIndex": 0, "usernameFragment": "abcd"},
    expect=SUCCESS,
)
form(
    keep,
    "index-only",
    "sdpMid is missing, the index is there",
    {"candidate": BROWSER, "sdpMLineIndex": 0},
    expect=SUCCESS,
)
form(
    keep,
    "index-as-string",
    "sdpMLineIndex is the string of a number",
    {"candidate": BROWSER, "sdpMLineIndex": "0"},
    expect=SUCCESS,
)
form(
    keep,
    "malformed",
    "three words of a candidate",
    {"candidate": "candidate:1 1 udp", "sdpMid": "0", "sdpMLineIndex": 0},
    expect=INVALID,
)
form(
    fix,
    "neither-mid-nor-index",
    "no m-line is named",
    {"candidate": BROWSER},
    fastrtc=failed("Candidate must have either sdpMid or sdpMLineIndex"),
    wire=INVALID,
)
form(
    fix,
    "not-a-number",
    "a port that is no number",
    {"candidate": BROWSER.replace(" 9 ", " nine "), "sdpMid": "0", "sdpMLineIndex": 0},
    fastrtc=failed("invalid literal for int() with base 10: 'nine'"),
    wire=INVALID,
)
form(
    fix,
    "eight-tokens",
    "a host candidate as aiortc prints it",
    {"candidate": LINE, "sdpMid": "0", "sdpMLineIndex": 0},
    fastrtc=INVALID,
    wire=SUCCESS,
)
form(
    fix,
    "aiortc",
    "aiortc's object_to_string of one",
    {"candidate": LINE, "id": "0", "label": 0, "type": "candidate"},
    fastrtc=INVALID,
    wire=SUCCESS,
)
form(
    fix,
    "no-prefix",
    "the line without `candidate:`",
    {"candidate": BROWSER.removeprefix("candidate:"), "sdpMid": "0", "sdpMLineIndex": 0},
    fastrtc=INVALID,
    wire=SUCCESS,
)
form(
    fix,
    "end-empty",
    "the end of candidates as browsers say it: an empty string",
    {"candidate": "", "sdpMid": "0", "sdpMLineIndex": 0},
    fastrtc=INVALID,
    wire=SUCCESS,
)
form(
    fix,
    "end-null",
    "the end of candidates: null",
    None,
    fastrtc=failed("'NoneType' object has no attribute 'get'"),
    wire=SUCCESS,
)


@fix(
    "candidate/early",
    "a candidate that overtakes its offer",
    fastrtc=failed("unknown_connection"),
    wire=SUCCESS,
)
async def early(server):
    reply = await trickled(server, new_id(), {"candidate": BROWSER, "sdpMid": "0", "sdpMLineIndex": 0})
    return {"status": reply.status, "reply": reply.body.decode()}


@keep(
    "candidate/unknown",
    "more candidates for an id that nobody offers than are kept for it: the 33rd",
    failed("unknown_connection"),
)
async def unknown(server):
    id = new_id()
    for port in range(10000, 10033):
        candidate = {"candidate": BROWSER.replace(" 9 ", f" {port} "), "sdpMid": "0", "sdpMLineIndex": 0}
        reply = await trickled(server, id, candidate)
    return {"status": reply.status, "reply": reply.body.decode()}


@add(
    "candidate/line-of-json",
    "a candidate that is a string of JSON",
    fastrtc={"status": 422},
    wire={"status": 200},
)
async def line_of_json(server):
    reply = await trickled(server, new_id(), f'{{"candidate":"{BROWSER}","sdpMid":"0"}}')
    return {"status": reply.status}
