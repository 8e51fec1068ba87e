//! A session description without a client behind it.

/// What a browser offers: Opus and a data channel, on one transport, with a fingerprint nobody has the key of.
pub fn browser_offer(seed: u32) -> String {
    let fingerprint: Vec<String> =
        (0..32_u32).map(|i| format!("{:02X}", (seed.wrapping_mul(31) + i * 7) % 256)).collect();
    let transport = format!(
        "c=IN IP4 0.0.0.0\r\na=ice-ufrag:u{seed:05}\r\na=ice-pwd:abandoned0abandoned0ab{seed:05}\r\na=ice-options:trickle\r\n\
         a=fingerprint:sha-256 {}\r\na=setup:actpass\r\n",
        fingerprint.join(":")
    );
    format!(
        "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\na=extmap-allow-mixed\r\n\
         a=msid-semantic: WMS stream\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111 0 8\r\n{transport}a=mid:0\r\na=sendrecv\r\n\
         a=msid:stream track\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n\
         a=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=ssrc:{} cname:x\r\n\
         m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n{transport}a=mid:1\r\na=sctp-port:5000\r\na=max-message-size:262144\r\n",
        seed.max(1)
    )
}
