//! Offers and their answers, in words; `lite` lets one of them connect.

mod lite;

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const FINGERPRINT: &str =
    "AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB";

/// What is said of a transport, as browsers repeat it in each m-line.
fn transport() -> String {
    format!(
        "c=IN IP4 0.0.0.0\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789abcdefghijklmn\r\n\
         a=fingerprint:sha-256 {FINGERPRINT}\r\na=setup:actpass\r\n"
    )
}

/// An offer of these m-lines, each with its own lines; the mids count from 0.
fn offer(media: &[&str]) -> String {
    let mids: Vec<String> = (0..media.len()).map(|n| n.to_string()).collect();
    let mut sdp = format!("v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\n", mids.join(" "));
    for (mid, media) in mids.iter().zip(media) {
        let (line, rest) = media.split_once("\r\n").unwrap_or((media, ""));
        let mux = if line.starts_with("m=application") { "" } else { "a=rtcp-mux\r\n" };
        sdp += &format!("{line}\r\n{}a=mid:{mid}\r\n{mux}{rest}", transport());
    }
    sdp
}

const OPUS: &str = "m=audio 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 opus/48000/2\r\n";
const DATA: &str = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=sctp-port:5000\r\n";

fn ask(offer: &str, wants: Wants) -> Result<Answered, InvalidOffer> {
    let advertised = [SocketAddr::from(([203, 0, 113, 1], 5000)), SocketAddr::from(([0u16; 8], 5000))];
    let request = AnswerRequest {
        offer,
        credentials: IceCredentials { ufrag: "serverufrag".into(), pwd: "0123456789abcdefghijklmn".into() },
        advertised: &advertised,
        wants,
        early: &[],
    };
    answer(&PeerFactory::new().unwrap(), request, Instant::now())
}

fn answered(offer: &str) -> Result<(String, Vec<NegotiatedTrack>), InvalidOffer> {
    ask(offer, Wants { audio: true, video: true }).map(|a| (a.sdp, a.tracks))
}

/// The answer's m-lines, shortened to their ports and formats.
fn m_lines(sdp: &str) -> Vec<&str> {
    sdp.lines().filter_map(|line| line.strip_prefix("m=")).collect()
}

#[test]
fn answers_with_one_codec_and_every_address() {
    let offer = offer(&["m=audio 9 UDP/TLS/RTP/SAVPF 0 96\r\na=sendrecv\r\na=rtpmap:96 opus/48000/2\r\n"]);
    let (sdp, tracks) = answered(&offer).unwrap();
    assert_eq!((tracks[0].payload_type, tracks[0].codec), (96, CodecName::Opus), "the offerer's payload type");
    for line in [
        "m=audio 9 UDP/TLS/RTP/SAVPF 96",
        "a=setup:passive",
        "a=rtcp-mux",
        "a=group:BUNDLE 0",
        "a=rtpmap:96 opus/48000/2",
        "a=fmtp:96 minptime=10;useinbandfec=1",
        "a=candidate:1 1 udp 2130706431 203.0.113.1 5000 typ host",
        "a=end-of-candidates",
        "a=ice-ufrag:serverufrag",
        "a=sendrecv",
    ] {
        assert!(sdp.lines().any(|l| l == line), "no {line} in\n{sdp}");
    }
    assert!(sdp.contains("a=msid:streamfleet "), "clients read event.streams[0]\n{sdp}");
    assert_eq!(sdp.matches("a=candidate:").count(), 2, "one for each advertised address\n{sdp}");
}

#[test]
fn what_is_implied_is_understood() {
    // No direction is sendrecv, a static payload type needs no name, and a direction may stand before the m-lines.
    let pcmu = offer(&["m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n"]);
    let (sdp, tracks) = answered(&pcmu).unwrap();
    assert_eq!(tracks[0].codec, CodecName::Pcmu);
    assert!(sdp.contains("a=sendrecv"), "{sdp}");
    let early = offer(&["m=audio 9 UDP/TLS/RTP/SAVPF 8\r\n"]).replace("t=0 0\r\n", "t=0 0\r\na=recvonly\r\n");
    let (sdp, tracks) = answered(&early).unwrap();
    assert!(tracks[0].sends && !tracks[0].receives, "{sdp}");
    assert!(sdp.contains("a=sendonly"), "{sdp}");
    // A transport may be the session's.
    let (head, media) = pcmu.split_once("m=").unwrap();
    let lines = transport().replace("c=IN IP4 0.0.0.0\r\n", "");
    let whole = format!("{head}{lines}m={}", media.replace(&lines, ""));
    assert_ne!(whole, pcmu);
    assert!(answered(&whole).is_ok(), "{whole}");
    // Line ends may be bare.
    assert!(answered(&pcmu.replace("\r\n", "\n")).is_ok());
}

#[test]
fn every_m_line_is_answered_in_its_place() {
    let opus = |pt: u8| format!("m=audio 9 UDP/TLS/RTP/SAVPF {pt}\r\na=rtpmap:{pt} opus/48000/2\r\n");
    let vp8 = |port: u8| format!("m=video {port} UDP/TLS/RTP/SAVPF 100\r\na=rtpmap:100 VP8/90000\r\n");
    let check = |media: &[&str], expected: &[&str]| {
        let (sdp, tracks) = answered(&offer(media)).unwrap();
        assert_eq!(m_lines(&sdp), expected, "{sdp}");
        let mids: Vec<&str> = sdp.lines().filter_map(|line| line.strip_prefix("a=mid:")).collect();
        let all: Vec<String> = (0..media.len()).map(|n| n.to_string()).collect();
        assert_eq!(mids, all, "{sdp}");
        let live: Vec<&str> = expected.iter().zip(&mids).filter(|(m, _)| !m.contains(" 0 ")).map(|m| *m.1).collect();
        assert!(sdp.contains(&format!("a=group:BUNDLE {}\r\n", live.join(" "))), "{sdp}");
        assert_eq!(sdp.matches("a=end-of-candidates").count(), live.len(), "{sdp}");
        tracks
    };
    let savpf = "UDP/TLS/RTP/SAVPF";
    let data = "application 9 UDP/DTLS/SCTP webrtc-datachannel";
    let audio = |pt: u8| format!("audio 9 {savpf} {pt}");
    check(&[&opus(96), DATA], &[&audio(96), data]);
    check(&[DATA, &opus(96)], &[data, &audio(96)]);
    check(
        &["m=text 9 UDP/TLS/RTP/SAVPF 98\r\na=rtpmap:98 t140/1000\r\n", &opus(96), DATA],
        &["text 0 UDP/TLS/RTP/SAVPF 98", &audio(96), data],
    );
    // At most one of a kind, and never what the client has rejected.
    check(&[&opus(96), &opus(97)], &[&audio(96), &format!("audio 0 {savpf} 97")]);
    check(&[&opus(96), &vp8(0)], &[&audio(96), &format!("video 0 {savpf} 100")]);
    let bundle_only = vp8(0) + "a=bundle-only\r\n";
    assert_eq!(check(&[&opus(96), &bundle_only], &[&audio(96), &format!("video 9 {savpf} 100")]).len(), 2);
    // What cannot be used is passed over for what can.
    check(&[&opus(70), &opus(96)], &[&format!("audio 0 {savpf} 70"), &audio(96)]);
    check(&["m=audio 9 RTP/AVP 0\r\n", &opus(96)], &["audio 0 RTP/AVP 0", &audio(96)]);
    check(
        &["m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=inactive\r\n", &opus(96)],
        &[&format!("audio 0 {savpf} 0"), &audio(96)],
    );
    check(&[&opus(100), &vp8(9)], &[&audio(100), &format!("video 0 {savpf} 100")]);
    let old_data = "m=application 9 DTLS/SCTP 5000\r\na=sctpmap:5000 webrtc-datachannel 1024\r\n";
    check(&[&opus(96), old_data], &[&audio(96), "application 0 DTLS/SCTP 5000"]);
    // RFC 8829 5.3.1: the protocol is the offer's.
    check(&["m=audio 9 RTP/SAVPF 0\r\n", DATA], &["audio 9 RTP/SAVPF 0", data]);
    check(&["m=audio 9 UDP/TLS/RTP/SAVP 13 0\r\n"], &["audio 9 UDP/TLS/RTP/SAVP 0"]);
}

#[test]
fn what_the_service_does_not_want_is_refused_m_line_by_m_line() {
    let both = offer(&[OPUS, "m=video 9 UDP/TLS/RTP/SAVPF 100\r\na=rtpmap:100 VP8/90000\r\n"]);
    let ports = |wants: Wants| {
        let sdp = ask(&both, wants).unwrap().sdp;
        m_lines(&sdp).iter().map(|m| m.split(' ').nth(1).unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ports(Wants { audio: true, video: true }), ["9", "9"]);
    assert_eq!(ports(Wants { audio: true, video: false }), ["9", "0"]);
    assert_eq!(ports(Wants { audio: false, video: true }), ["0", "9"]);
    let nothing = ask(&offer(&[OPUS]), Wants { audio: false, video: true });
    assert_eq!(nothing.err(), Some(InvalidOffer::NoUsableMedia));
}

#[test]
fn what_could_never_connect_is_refused_by_name() {
    let good = offer(&["m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=sendrecv\r\n"]);
    assert!(answered(&good).is_ok());
    let check = |from: &str, to: &str, expected: InvalidOffer| {
        let bad = good.replace(from, to);
        assert_ne!(bad, good, "{from:?} is not there");
        assert_eq!(answered(&bad).err(), Some(expected), "{bad}");
    };
    check("BUNDLE 0", "BUNDLE 7", InvalidOffer::NotBundled);
    check("BUNDLE 0", "LS 0", InvalidOffer::NotBundled);
    check("actpass", "passive", InvalidOffer::Setup);
    check("actpass", "holdconn", InvalidOffer::Setup);
    check("a=ice-ufrag:abcd\r\n", "", InvalidOffer::NoIceCredentials);
    check("a=ice-pwd:0123456789abcdefghijklmn\r\n", "", InvalidOffer::NoIceCredentials);
    check("a=ice-pwd:0123456789abcdefghijklmn", "a=ice-pwd:short", InvalidOffer::IceCredentials);
    check("a=ice-ufrag:abcd", "a=ice-ufrag:a:cd", InvalidOffer::IceCredentials);
    check("a=mid:0\r\n", "", InvalidOffer::NoMid);
    check("m=audio 9", "m=audio 0", InvalidOffer::NoUsableMedia);
    check("a=sendrecv", "a=inactive", InvalidOffer::NoUsableMedia);
    check("SAVPF 0", "SAVPF 13", InvalidOffer::NoUsableMedia);
    check("a=fingerprint:", "a=fingerprint-was:", InvalidOffer::NoFingerprint);
    check("sha-256 AB", "md5 AB", InvalidOffer::FingerprintHash);
    check("sha-256 AB", "sha-1 AB", InvalidOffer::FingerprintHash);
    check("sha-256 AB:", "sha-256 ", InvalidOffer::Fingerprint);
    check("sha-256 AB", "sha-256 XY", InvalidOffer::Fingerprint);
    check("UDP/TLS/RTP/SAVPF", "RTP/AVP", InvalidOffer::PlainRtp);
    check("UDP/TLS/RTP/SAVPF", "RTP/AVPF", InvalidOffer::PlainRtp);
    check("a=rtcp-mux\r\n", "", InvalidOffer::NoRtcpMux);
    check("SAVPF 0\r\n", "SAVPF 80\r\na=rtpmap:80 opus/48000/2\r\n", InvalidOffer::RtcpPayloadType);
    check("SAVPF 0\r\n", "SAVPF 0\r\na=rtpmap:0 opus/48000/2\r\n", InvalidOffer::ContradictoryCodecs);
    check("m=audio 9 UDP/TLS/RTP/SAVPF 0", "m=audio 9", InvalidOffer::MediaLine);

    let video = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 VP8/90000\r\n";
    let same = offer(&[OPUS, video]).replace("a=mid:1", "a=mid:0");
    assert_eq!(answered(&same).err(), Some(InvalidOffer::SameMid));
}

#[test]
fn h264_is_answered_with_what_it_was_offered_with() {
    let check = |fmtp: &str, expected: &str| {
        let video = format!("m=video 9 UDP/TLS/RTP/SAVPF 102\r\na=rtpmap:102 H264/90000\r\n{fmtp}");
        let (sdp, tracks) = answered(&offer(&[&video])).unwrap();
        assert_eq!((tracks[0].codec, tracks[0].payload_type), (CodecName::H264, 102));
        let line = format!("a=fmtp:102 level-asymmetry-allowed=1;{expected}");
        assert!(sdp.lines().any(|l| l == line), "no {line} in\n{sdp}");
    };
    check("", "packetization-mode=0;profile-level-id=42000a");
    check("a=fmtp:102 packetization-mode=1\r\n", "packetization-mode=1;profile-level-id=42000a");
    check(
        "a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42E01F\r\n",
        "packetization-mode=1;profile-level-id=42e01f",
    );
    // A profile that is not served is no reason to refuse what else there is.
    let high = "m=video 9 UDP/TLS/RTP/SAVPF 102 96\r\na=rtpmap:102 H264/90000\r\n\
                a=fmtp:102 packetization-mode=1;profile-level-id=640c1f\r\na=rtpmap:96 VP8/90000\r\n";
    assert_eq!(answered(&offer(&[high])).unwrap().1[0].codec, CodecName::Vp8);
}

#[test]
fn key_frames_are_asked_for_in_the_ways_that_were_offered() {
    let feedback = |lines: &str| {
        let video = format!("m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 VP8/90000\r\n{lines}");
        let (sdp, _) = answered(&offer(&[&video])).unwrap();
        sdp.lines().filter_map(|line| line.strip_prefix("a=rtcp-fb:96 ").map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(feedback(""), Vec::<String>::new());
    assert_eq!(feedback("a=rtcp-fb:96 nack\r\na=rtcp-fb:96 ccm fir\r\n"), ["ccm fir"]);
    assert_eq!(feedback("a=rtcp-fb:96 nack pli\r\na=rtcp-fb:96 ccm fir\r\n"), ["nack pli", "ccm fir"]);
}

/// RFC 8843 7.3.1: until the answer each m-line may have a transport of its own. The one that is used is that of the first
/// m-line of the group that is taken; candidates of the others lead nowhere.
#[test]
fn the_first_m_line_that_is_taken_brings_the_transport() {
    let candidate = |port: u16| format!("a=candidate:1 1 udp 2130706431 192.0.2.1 {port} typ host\r\n");
    let other = |section: String| {
        section
            .replace("a=ice-ufrag:abcd", "a=ice-ufrag:other")
            .replace("a=ice-pwd:0123456789abcdefghijklmn", "a=ice-pwd:otherotherotherotherother")
            .replace("AB:AB", "CD:CD")
    };
    let data = format!("{DATA}{}{}", candidate(3), candidate(4));
    let sdp = offer(&[&format!("{OPUS}{}", candidate(2)), &data]);
    let at = sdp.find("m=application").unwrap();
    let (audio, data) = sdp.split_at(at);
    let remote = |sdp: &str| {
        let answered = ask(sdp, Wants { audio: true, video: true }).unwrap();
        (answered.remote.ufrag, answered.remote.pwd, answered.remote_candidates)
    };
    let ours = |n: usize| ("abcd".to_owned(), "0123456789abcdefghijklmn".to_owned(), n);
    assert_eq!(remote(&sdp), ours(3));
    assert_eq!(remote(&format!("{audio}{}", other(data.to_owned()))), ours(1));
    let data_first = format!("{}{data}", other(audio.to_owned())).replace("BUNDLE 0 1", "BUNDLE 1 0");
    assert_eq!(remote(&data_first), ours(2));
    // A video that nobody wants is not asked.
    let video = "m=video 9 UDP/TLS/RTP/SAVPF 98\r\na=rtpmap:98 VP9/90000\r\n";
    let sdp = offer(&[video, OPUS]);
    let (video, audio) = sdp.split_at(sdp.find("m=audio").unwrap());
    assert_eq!(remote(&format!("{}{audio}", other(video.to_owned()))), ours(0));
}

/// What a client is told about its offer is in words of ours, and short; every reason has other words.
#[test]
fn reasons_are_a_closed_set() {
    use InvalidOffer::*;
    let all = [
        TooLong,
        NotSdp,
        TooManySections,
        MediaLine,
        NoUsableMedia,
        ContradictoryCodecs,
        SharedPayloadType,
        RtcpPayloadType,
        NoRtcpMux,
        PlainRtp,
        NoMid,
        SameMid,
        NotBundled,
        Setup,
        NoIceCredentials,
        IceCredentials,
        NoFingerprint,
        FingerprintHash,
        Fingerprint,
        TwoFingerprints,
        Unanswerable,
    ];
    let mut texts: Vec<String> = all.iter().map(ToString::to_string).collect();
    assert!(texts.iter().all(|text| text.len() <= 160 && !text.contains("rtc::")), "{texts:?}");
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), all.len());
    // The core is the one that might speak in others: what it says stays here.
    let error = CoreError::ErrSessionDescriptionNoFingerprint;
    assert_eq!(unanswerable(error).to_string(), "the offer cannot be answered");
}

fn mutation() -> impl Strategy<Value = (usize, usize, String)> {
    let text = prop_oneof![
        Just(String::new()),
        Just("\r\n".to_owned()),
        Just("m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:9\r\na=rtpmap:96 VP8/90000\r\n".to_owned()),
        Just("a=ice-lite\r\n".to_owned()),
        "[ -~]{0,6}",
    ];
    (0..2_000_usize, 0..30_usize, text)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// However an offer is damaged: it is refused in our words, or answered m-line by m-line. The core never has a say in
    /// it, since it only reads what was written here.
    #[test]
    fn damaged_offers(mutations in proptest::collection::vec(mutation(), 0..6)) {
        let video = "m=video 9 UDP/TLS/RTP/SAVPF 102 100\r\na=rtpmap:100 VP8/90000\r\na=rtpmap:102 H264/90000\r\n\
                     a=fmtp:102 packetization-mode=1;profile-level-id=42e01f\r\na=rtcp-fb:* nack pli\r\n";
        let mut sdp = offer(&[OPUS, video, DATA]);
        for (at, length, text) in mutations {
            let at = at % (sdp.len() + 1);
            let end = (at + length).min(sdp.len());
            sdp.replace_range(at..end, &text);
        }
        match answered(&sdp) {
            Err(why) => prop_assert_ne!(why, InvalidOffer::Unanswerable, "{}", sdp),
            Ok((answer, tracks)) => {
                prop_assert!((1..=2).contains(&tracks.len()));
                prop_assert_eq!(m_lines(&answer).len(), sdp.lines().filter(|l| l.starts_with("m=")).count());
                prop_assert!(tracks.len() < 2 || tracks[0].payload_type != tracks[1].payload_type);
                prop_assert!(tracks.iter().all(|track| !(64..=95).contains(&track.payload_type)));
            }
        }
    }
}
