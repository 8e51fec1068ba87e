"""HTTP as the cases need it: exact bytes of a reply, and server-sent events with a deadline."""

import asyncio
import http.client
import json
import time
import urllib.parse
from dataclasses import dataclass

# Every reply of the protocol is made at once; FastRTC adds a tenth of a second to an answer.
REPLY_LIMIT_S = 10


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict
    body: bytes

    def json(self):
        return json.loads(self.body)

    def error(self):
        """`meta.error` of a failure, "answer" for an answer, else the reply's first characters."""
        try:
            body = self.json()
            return body["meta"]["error"] if body.get("status") == "failed" else body.get("type") or body["status"]
        except (ValueError, KeyError, AttributeError):
            return self.body[:80].decode(errors="replace")


def _request(method, url, body, headers, seconds):
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=seconds)
    connection.request(method, parts.path + (f"?{parts.query}" if parts.query else ""), body, headers)
    return connection, connection.getresponse()


def _exchange(method, url, body, headers):
    connection, response = _request(method, url, body, headers, REPLY_LIMIT_S)
    try:
        return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
    finally:
        connection.close()


async def get(url):
    return await asyncio.to_thread(_exchange, "GET", url, None, {})


async def post(url, body, headers=None):
    """`body`: bytes as they are, anything else as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await asyncio.to_thread(
        _exchange, "POST", url, data, {"content-type": "application/json", **(headers or {})}
    )


@dataclass(frozen=True)
class Events:
    status: int
    events: list
    """Dicts of the fields of each event."""
    ended: bool
    """The server ended the stream; else the time was up or the wanted events were there."""


def _events(url, count, seconds, headers):
    deadline = time.monotonic() + seconds
    events, fields = [], {}
    try:
        connection, response = _request("GET", url, None, {"accept": "text/event-stream", **headers}, seconds)
    except TimeoutError:
        return Events(0, [], False)
    try:
        while len(events) < count:
            left = deadline - time.monotonic()
            if left <= 0:
                return Events(response.status, events, False)
            if connection.sock:
                connection.sock.settimeout(left)
            line = response.readline()
            if not line:
                return Events(response.status, events, True)
            name, colon, value = line.decode().rstrip("\r\n").partition(":")
            if name:
                fields[name] = value.removeprefix(" ")
            elif not colon and fields:
                events.append(fields)
                fields = {}
        return Events(response.status, events, False)
    except TimeoutError:
        return Events(response.status, events, False)
    finally:
        response.close()
        connection.close()


async def events(url, count, seconds, headers=None):
    """Reads server-sent events until there are `count`, the stream ends, or `seconds` have passed."""
    return await asyncio.to_thread(_events, url, count, seconds, headers or {})


def data_of(event):
    """The JSON that an event carries."""
    return json.loads(event["data"])
