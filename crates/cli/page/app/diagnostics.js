/** Everything that helps to find out why a call did not work, as text. No sound, no keys, no tokens. */

/** @returns {Promise<string>} indented JSON */
export async function diagnostics({ call, run, config, choices }) {
  const peer = call?.peer;
  const report = {
    note: "Holds network addresses of this machine; no sound, keys or tokens.",
    at: new Date().toISOString(),
    page: location.origin + location.pathname,
    secureContext: isSecureContext,
    browser: navigator.userAgent,
    choices,
    handlers: config.handlers.map(({ name, path, modality }) => ({ name, path, modality })),
    session: call && { id: call.id, state: call.state, worker: call.worker },
    states: peer?.states(),
    history: run?.log,
    figures: run?.figures,
    latency: run?.shownLatency,
    candidates: await candidates(peer),
    sdp: peer?.descriptions(),
  };
  return JSON.stringify(report, null, 2);
}

async function candidates(peer) {
  try {
    const stats = [...(await peer.stats()).values()];
    return stats.filter(({ type }) => ["local-candidate", "remote-candidate", "candidate-pair"].includes(type));
  } catch {
    return [];
  }
}
