// A whole WebRTC client of a FastRTC-compatible service.
const button = document.querySelector("#talk");
const log = (text) => document.querySelector("#log").append(`${text}\n`);
let call;

button.onclick = async () => {
  if (call) return hangUp();
  button.textContent = "Hang up";
  try {
    await connect(document.querySelector("#url").value.replace(/\/$/, ""));
  } catch (error) {
    log(error.message);
    hangUp();
  }
};

async function connect(service) {
  const microphone = await navigator.mediaDevices.getUserMedia({ audio: true });
  call = new RTCPeerConnection();
  microphone.getTracks().forEach((track) => call.addTrack(track, microphone));
  call.ontrack = (event) => (document.querySelector("#sound").srcObject = event.streams[0]);
  call.onconnectionstatechange = () => log(call?.connectionState);
  call.createDataChannel("text").onmessage = (event) => {
    log(event.data);
    if (JSON.parse(event.data).type === "end_stream") hangUp();
  };
  await call.setLocalDescription();
  await new Promise((done) => (call.onicecandidate = (event) => event.candidate || done()));
  const response = await fetch(`${service}/webrtc/offer`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ...call.localDescription.toJSON(), webrtc_id: Math.random().toString(36).slice(2) }),
  });
  const answer = await response.json();
  if (answer.status === "failed") throw new Error(answer.meta.error);
  await call.setRemoteDescription(answer);
}

function hangUp() {
  call?.getSenders().forEach((sender) => sender.track?.stop());
  call?.close();
  call = undefined;
  button.textContent = "Talk";
}
