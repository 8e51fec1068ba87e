"""Speaks a WAV file (16 bits, mono, the handler's input rate) to a service over its WebSocket, and writes the reply.

python socket_client.py ws://127.0.0.1:8080/echo question.wav reply.wav      (pip install websockets; Python 3.9 to 3.12)
"""
import asyncio
import audioop  # mu-law; `pip install audioop-lts` from Python 3.13 on
import base64
import json
import secrets
import sys
import wave

import websockets

OUTPUT_RATE = 24_000  # the handler's output rate


async def speak(socket, path):
    with wave.open(path) as sound:
        frame, start = sound.getframerate() // 50, asyncio.get_running_loop().time()
        for number in range(sound.getnframes() // frame + 1):
            payload = base64.b64encode(audioop.lin2ulaw(sound.readframes(frame), 2)).decode()
            await socket.send(json.dumps({"event": "media", "media": {"payload": payload}}))
            await asyncio.sleep(start + (number + 1) * 0.02 - asyncio.get_running_loop().time())
    await asyncio.sleep(1)  # the last words have to come back
    await socket.send(json.dumps({"event": "stop"}))


async def main(url, question, reply):
    async with websockets.connect(f"{url}/websocket/offer") as socket:  # HTTP 404: no service at this path
        await socket.send(json.dumps({"event": "start", "websocket_id": secrets.token_hex(8)}))
        speaking = asyncio.create_task(speak(socket, question))
        with wave.open(reply, "wb") as sound:
            sound.setparams((1, 2, OUTPUT_RATE, 0, "NONE", ""))
            async for text in socket:
                message = json.loads(text)
                if message.get("event") == "media":
                    sound.writeframes(audioop.ulaw2lin(base64.b64decode(message["media"]["payload"]), 2))
                elif message.get("status") == "failed":
                    sys.exit(f"refused: {message['meta']}")
                else:
                    print(message)
        speaking.cancel()


asyncio.run(main(*sys.argv[1:4]))
