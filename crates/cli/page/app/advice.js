/** What went wrong and what to do, in words. One entry per failure string of the protocol and per fault of the page. */

/**
 * @typedef {object} Advice
 * @property {string} title what happened
 * @property {string[]} steps what to do, most likely remedy first
 * @property {"problem" | "hint"} weight a hint does not stop the call
 */

/** The command line is named as the person typed it, with what was missing. */
const TLS_STEPS = ({ origin }) => [
  `On this machine itself, open http://localhost:${portOf(origin)} instead: browsers trust localhost.`,
  "From another device, start the server with --tls (streamfleet dev --tls), open the https address it prints, and accept the self-signed certificate once.",
  "Or go on with the test tone: it needs no permission.",
];

const ENTRIES = {
  // Devices
  insecure_context: (facts) => ({
    title: "No microphone on a plain http page",
    steps: TLS_STEPS(facts),
  }),
  NotAllowedError: ({ device = "microphone" }) => ({
    title: `The browser was not allowed to use the ${device}`,
    steps: [
      `Click the icon to the left of the address, set ${device === "camera" ? "Camera" : "Microphone"} to “Allow”, then start again.`,
      "If it is allowed there, look in the system’s privacy settings: the browser itself may be blocked.",
      device === "camera" ? "Or choose the pattern as your picture." : "Or choose the test tone: it needs no permission.",
    ],
  }),
  NotFoundError: ({ device = "microphone" }) => ({
    title: `No ${device} was found`,
    steps: [
      `Plug one in or switch it on, then start again.`,
      device === "camera" ? "Or choose the pattern as your picture." : "Or choose the test tone: the whole path is the same but for the microphone.",
    ],
  }),
  NotReadableError: ({ device = "microphone" }) => ({
    title: `The ${device} is there but gives nothing`,
    steps: [`Close other programs that use the ${device}, or unplug it and plug it in again.`],
  }),
  OverconstrainedError: () => ({
    title: "The chosen microphone is gone",
    steps: ["Choose another one from the list, then start again."],
  }),
  no_webrtc: () => ({
    title: "This browser has no WebRTC",
    steps: ["Use a current Chromium, Firefox or Safari; in hardened browsers WebRTC may be switched off in the settings."],
  }),
  no_worklets: (facts) => ({
    title: "No sound over WebSocket on a plain http page",
    steps: ["Browsers keep what it needs for safe pages. Choose WebRTC, or:", ...TLS_STEPS(facts).slice(0, 2)],
  }),

  // The way to the server
  unreachable: ({ origin }) => ({
    title: "The server does not answer",
    steps: [`Is it still running? It should listen at ${origin}.`, "If it runs, look at its log for this moment, then start again."],
  }),
  not_an_answer: ({ detail }) => ({
    title: "Something answered that is not a Streamfleet server",
    steps: [`The reply was: ${detail ?? "unreadable"}.`, "A proxy in between may have replaced it: open the server’s own address."],
  }),
  ice_failed: ({ udp = [], origin }) => ({
    title: "No UDP path to the server",
    steps: [
      udp.length > 0
        ? `The server waits for media at UDP ${udp.join(", ")}. Let that port through every firewall between here and there, the server’s own included.`
        : "The server’s answer named no UDP address. Start it with an address that this browser can reach (--udp).",
      udp.some((address) => address.startsWith("127.") || address.startsWith("[::1]")) && !isLocal(origin)
        ? "That address is the server’s own loopback: start it with an address of its network (--udp)."
        : "In a container or a cloud machine, publish the port as UDP, not only as TCP, and advertise the outside address.",
      "A VPN or a company network may allow no UDP at all: try another network, or configure a TURN server.",
    ],
  }),
  dtls_failed: ({ udp = [] }) => ({
    title: "A UDP path is there, but the handshake did not finish",
    steps: [
      `Something between here and ${udp[0] ?? "the server"} drops larger packets: check the MTU of a VPN or a tunnel.`,
      "If the server has just been restarted, start again.",
    ],
  }),
  socket_failed: ({ origin }) => ({
    title: "The server did not take the WebSocket",
    steps: [
      `Is it still running? It should listen at ${origin}.`,
      "A proxy in between may not pass WebSockets on: it has to forward the headers Upgrade and Connection.",
      "Or choose WebRTC: its offer is plain HTTP.",
    ],
  }),
  socket_closed: ({ detail }) => ({
    title: "The server closed the WebSocket before the session began",
    steps: [`It said: ${detail || "nothing"}.`, "Look at the server’s log for this moment, then start again."],
  }),
  connection_lost: () => ({
    title: "The connection broke and could not be brought back",
    steps: ["Check the network, then start again."],
  }),

  // The server’s refusals
  concurrency_limit_reached: ({ limit }) => ({
    title: limit === undefined ? "Every place is taken" : `Every place is taken: this handler serves ${limit} at a time`,
    steps: ["Wait until somebody leaves, then start again. Another tab of yours may hold a place.", "The limit is the server’s concurrency limit; its owner can raise it."],
  }),
  user_limit_reached: ({ limit }) => ({
    title: limit === undefined ? "You have too many calls open" : `You have ${limit} calls open, which is the limit for one person`,
    steps: ["End a call in another tab or on another device, then start again."],
  }),
  connection_already_exists: () => ({
    title: "The server still holds a call with this id",
    steps: ["It frees itself when it notices that the old call is gone, 30 s at the latest. Start again: the page then uses a new id."],
  }),
  unauthorized: () => ({
    title: "The server wants to know who you are",
    steps: ["Sign in to the application that gave you this address, then open it again."],
  }),
  forbidden: ({ detail }) => ({
    title: "The server knows you, and said no",
    steps: [detail ? `Its reason: ${detail}.` : "It gave no reason.", "Ask its owner for access."],
  }),
  invalid_metadata: ({ detail }) => ({
    title: "The server did not accept what was said about you",
    steps: [`Detail: ${detail ?? "none"}.`, "Metadata must be a small, flat JSON object."],
  }),
  invalid_offer: ({ detail }) => ({
    title: "The server did not understand this browser’s offer",
    steps: [`Detail: ${detail ?? "none"}.`, "If the handler takes video only or audio only, choose the sources to match.", "Copy the diagnostics and send them to the server’s owner."],
  }),
  unprocessable: ({ detail }) => ({
    title: "The server found the request malformed",
    steps: [`Detail: ${detail ?? "none"}.`, "Page and server may be of different versions: reload the page."],
  }),
  rate_limited: ({ retryAfterMs }) => ({
    title: "Too many tries in a short time",
    steps: [retryAfterMs ? `Wait ${Math.ceil(retryAfterMs / 1000)} s, then start again.` : "Wait half a minute, then start again."],
  }),
  payload_too_large: () => ({
    title: "The offer is larger than the server takes",
    steps: ["Choose trickled candidates under “Connection”: it makes the offer smaller.", "A machine with very many network interfaces makes very large offers."],
  }),
  no_capacity: ({ retryAfterMs }) => ({
    title: "No worker has room at the moment",
    steps: [retryAfterMs ? `More may be on the way. Start again in ${Math.ceil(retryAfterMs / 1000)} s.` : "More may be on the way. Start again in a moment."],
  }),
  service_not_found: ({ path }) => ({
    title: `Nothing is served at ${path || "/"}`,
    steps: ["Choose another handler, or reload the page: the server may have been started with others."],
  }),
  draining: () => ({
    title: "The server is shutting down and takes no new calls",
    steps: ["Start again when it is back; behind a router, another worker answers at once."],
  }),
  upstream_unavailable: () => ({
    title: "The router reached no worker",
    steps: ["Start again in a moment. If it stays so, look at the workers’ readiness."],
  }),
  not_a_reply_on_pause: () => ({
    title: "This handler does not wait for pauses",
    steps: ["It replies as it likes: there is nothing to ask for."],
  }),
  handler_error: ({ detail }) => ({
    title: "The handler stopped with an error",
    steps: [`It said: ${detail || "nothing"}.`, "The server’s log has the rest, under this session’s id."],
  }),

  // While a call is up
  no_packets_back: () => ({
    title: "Connected, but nothing comes back",
    steps: ["A recorder stays silent by its nature; an echo should answer. If it should, look at the server’s log.", "If packets are lost on the way, the loss figure below tells."],
    weight: "hint",
  }),
  silence_sent: () => ({
    title: "Your microphone sends only silence",
    steps: ["Is it muted by a switch, a key or the system’s settings? Choose another microphone if the list has one."],
    weight: "hint",
  }),
  microphone_gone: () => ({
    title: "The microphone went away",
    steps: ["Plug it in again or choose another source: the call goes on meanwhile."],
    weight: "hint",
  }),
  sound_blocked: () => ({
    title: "The browser holds the sound back",
    steps: ["Press “Unmute reply”, or click anywhere on the page."],
    weight: "hint",
  }),
};

/**
 * @param {string} code
 * @param {object} facts the Problem's facts, and `origin`, `path`
 * @returns {Advice}
 */
export function adviceFor(code, facts) {
  const entry = (Object.hasOwn(ENTRIES, code) && ENTRIES[code](facts)) || {
    title: `It did not work: ${code}`,
    steps: [facts.detail ? `Detail: ${facts.detail}.` : "No detail was given.", "Copy the diagnostics and send them to the server’s owner."],
  };
  return { weight: "problem", ...entry };
}

/** Codes that have words of their own. */
export const KNOWN_CODES = Object.keys(ENTRIES);

function portOf(origin) {
  const { port, protocol } = new URL(origin);
  return port || (protocol === "https:" ? "443" : "80");
}

function isLocal(origin) {
  return ["localhost", "127.0.0.1", "[::1]"].includes(new URL(origin).hostname);
}
