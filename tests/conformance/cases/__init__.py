"""The cases, a file for each part of the protocol; importing this registers all of them."""

from cases import candidates, ending, offer, outputs, pauses, telephone, webrtc, websocket

__all__ = ["candidates", "ending", "offer", "outputs", "pauses", "telephone", "webrtc", "websocket"]
