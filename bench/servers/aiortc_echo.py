"""Echo on bare aiortc: each track goes back as it is decoded, messages are answered. Usage: aiortc_echo.py PORT"""

import json
import sys

import uvicorn
from aiortc import RTCPeerConnection, RTCSessionDescription
from fastapi import FastAPI, Request

app = FastAPI()
calls = set()


@app.post("/webrtc/offer")
async def offer(request: Request):
    body = await request.json()
    pc = RTCPeerConnection()
    calls.add(pc)

    @pc.on("track")
    def on_track(track):
        pc.addTrack(track)

    @pc.on("datachannel")
    def on_datachannel(channel):
        @channel.on("message")
        def on_message(text):
            channel.send(json.dumps({"type": "log", "data": f"Server received: {text}"}))

    @pc.on("connectionstatechange")
    async def on_state():
        if pc.connectionState in ("failed", "closed"):
            await pc.close()
            calls.discard(pc)

    await pc.setRemoteDescription(RTCSessionDescription(body["sdp"], body["type"]))
    await pc.setLocalDescription(await pc.createAnswer())
    return {"sdp": pc.localDescription.sdp, "type": pc.localDescription.type}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
