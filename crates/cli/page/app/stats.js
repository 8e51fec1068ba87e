/** What `RTCPeerConnection.getStats()` says, as the figures that are shown. Pure: the former report is an argument. */

/**
 * @typedef {object} Figures milliseconds, fractions 0..1, bits per second; undefined where the browser does not tell
 * @property {number} [roundTripMs] from ICE checks, or from RTCP where the pair has none
 * @property {number} [jitterMs] interarrival jitter of what comes back (RFC 3550, 6.4.1)
 * @property {number} [lossDown] lost of what came back, over the last interval
 * @property {number} [lossUp] lost of what was sent, as the server reports it
 * @property {number} [bufferMs] mean time in the browser's jitter buffer, over the last interval
 * @property {number} [concealed] fraction of the samples that were made up, over the last interval
 * @property {number} packetsBack audio packets since the start
 * @property {number} framesBack video frames decoded since the start
 */

/**
 * @param {Iterable<object>} report the values of an RTCStatsReport
 * @param {object} [before] `memory` of the former call
 * @returns {{figures: Figures, memory: object}}
 */
export function summarise(report, before = {}) {
  const byId = new Map([...report].map((entry) => [entry.id, entry]));
  const all = [...byId.values()];
  const find = (type, kind) => all.find((entry) => entry.type === type && (entry.kind ?? entry.mediaType) === kind);
  const pair = selectedPair(all, byId);
  const back = find("inbound-rtp", "audio");
  const sent = find("outbound-rtp", "audio");
  const heard = find("remote-inbound-rtp", "audio");
  const video = find("inbound-rtp", "video");

  const memory = {
    at: back?.timestamp ?? sent?.timestamp,
    lost: back?.packetsLost,
    received: back?.packetsReceived,
    bytesBack: back?.bytesReceived,
    bytesSent: sent?.bytesSent,
    delay: back?.jitterBufferDelay,
    emitted: back?.jitterBufferEmittedCount,
    concealedSamples: back?.concealedSamples,
    samples: back?.totalSamplesReceived,
    bufferMs: before.bufferMs,
  };
  const step = (key) => difference(memory[key], before[key]);
  const seconds = step("at") / 1000;
  const bufferMs = ratio(step("delay") * 1000, step("emitted")) ?? before.bufferMs;
  memory.bufferMs = bufferMs;

  const lost = Math.max(step("lost"), 0);
  const figures = {
    roundTripMs: milliseconds(pair?.currentRoundTripTime ?? heard?.roundTripTime),
    jitterMs: milliseconds(back?.jitter),
    lossDown: ratio(lost, lost + step("received")),
    lossUp: heard?.fractionLost,
    bufferMs,
    concealed: ratio(step("concealedSamples"), step("samples")),
    packetsBack: back?.packetsReceived ?? 0,
    packetsSent: sent?.packetsSent ?? 0,
    framesBack: video?.framesDecoded ?? 0,
    bitsBack: ratio(step("bytesBack") * 8, seconds),
    bitsSent: ratio(step("bytesSent") * 8, seconds),
    codec: byId.get(back?.codecId ?? sent?.codecId)?.mimeType,
    picture: video?.frameWidth ? { width: video.frameWidth, height: video.frameHeight, perSecond: video.framesPerSecond } : undefined,
    path: pathOf(pair, byId),
  };
  return { figures, memory };
}

function selectedPair(all, byId) {
  const named = all.find((entry) => entry.type === "transport" && entry.selectedCandidatePairId);
  const pairs = all.filter((entry) => entry.type === "candidate-pair");
  return (
    byId.get(named?.selectedCandidatePairId) ??
    pairs.find((entry) => entry.selected) ??
    pairs.find((entry) => entry.nominated && entry.state === "succeeded")
  );
}

function pathOf(pair, byId) {
  const [local, remote] = [byId.get(pair?.localCandidateId), byId.get(pair?.remoteCandidateId)];
  if (!remote) return undefined;
  return { local: local?.candidateType, remote: remote.candidateType, address: remote.address ?? remote.ip, port: remote.port, protocol: remote.protocol };
}

const difference = (now, then) => (now === undefined || then === undefined ? Number.NaN : now - then);
const ratio = (part, whole) => (whole > 0 && Number.isFinite(part) ? part / whole : undefined);
const milliseconds = (seconds) => (Number.isFinite(seconds) ? seconds * 1000 : undefined);
