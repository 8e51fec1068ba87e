"""Speaks a sound file to a service by WebRTC for its length and a second more, and writes the reply.

python webrtc_client.py http://127.0.0.1:8080/echo question.wav reply.wav      (pip install aiortc)
"""
import asyncio
import json
import secrets
import sys
import urllib.error
import urllib.request

from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaPlayer, MediaRecorder


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:  # the body says what is wrong
        sys.exit(f"refused: {error} {error.read().decode()}")


async def main(service, question, reply):
    call, player, recorder = RTCPeerConnection(), MediaPlayer(question), MediaRecorder(reply)
    spoken = asyncio.Event()
    call.addTrack(player.audio)
    call.createDataChannel("text").on("message", print)
    call.on("track", recorder.addTrack)
    player.audio.on("ended", spoken.set)

    await call.setLocalDescription(await call.createOffer())  # aiortc gathers all candidates here
    offer = {"sdp": call.localDescription.sdp, "type": "offer", "webrtc_id": secrets.token_hex(8)}
    answer = await asyncio.to_thread(post, f"{service}/webrtc/offer", offer)
    if answer.get("status") == "failed":
        sys.exit(f"refused: {answer['meta']}")
    await call.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))
    await recorder.start()

    await asyncio.wait_for(spoken.wait(), 600)
    await asyncio.sleep(1)  # the last words have to come back
    await recorder.stop()
    await call.close()


asyncio.run(main(*sys.argv[1:4]))
