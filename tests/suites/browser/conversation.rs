//! Conversations on the demo page, by a real Chromium whose microphone says two sentences: pauses, replies, interruptions and
//! the handler's end, over WebRTC and over a WebSocket, judged by what the page plays.

use std::io::{self, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use streamfleet_tests::{Script, Server, root};

/// A conversation takes 25 s; starting a browser takes 2 s on an idle core, and others may hold the cores.
const LIMIT: Duration = Duration::from_secs(240);

/// A browser that loses more sound than this, or sends more of it too late to be heard, has had no core when it needed one: what
/// is heard then has gaps that no server made.
const LOST_S: f64 = 0.5;
/// What the worker's quality counts.
const FRAME_S: f64 = 0.02;
/// So often a conversation that has lost too much is had once more.
const RUNS: usize = 4;

/// The recording's sentences, in seconds: 2.2 s and 1.4 s of speech.
const FIRST: [f64; 2] = [0.9, 3.3];
const SECOND: [f64; 2] = [4.35, 5.9];

/// One conversation at a time: a browser that is starved of its cores plays with gaps, and they are what is judged here.
static SPEAKING: Mutex<()> = Mutex::new(());

/// What the page and its sound did while `microphone` was said again and again.
fn talked(handler: &str, transport: &str, microphone: &Value, turns: u32) -> Result<Option<Value>> {
    talked_with(handler, transport, &json!({ "microphone": microphone, "turns": turns }))
}

/// The same, with `more` that the person at the page does, or that is looked for. `None` when this machine never left the
/// browser enough of its cores: then nothing can be said about what is heard, and the log says so.
fn talked_with(handler: &str, transport: &str, more: &Value) -> Result<Option<Value>> {
    let _speaking = SPEAKING.lock().unwrap_or_else(PoisonError::into_inner);
    for run in 1..=RUNS {
        let (lost, talked) = talked_once(handler, transport, more)?;
        if lost < LOST_S {
            return Ok(Some(talked));
        }
        // Past the harness, which shows what failed tests print.
        writeln!(
            io::stderr(),
            "{handler} over {transport}, run {run} of {RUNS}: {lost:.1} s of sound were lost or late, not judged"
        )?;
    }
    Ok(None)
}

/// What holds however busy the machine is; and how much sound was lost, s.
fn talked_once(handler: &str, transport: &str, more: &Value) -> Result<(f64, Value)> {
    let server = Server::start(&[])?;
    let wav = root().join("crates/pause/tests/data/two-sentences.wav");
    let mut options = json!({ "url": server.url(), "handler": handler, "transport": transport, "wav": wav });
    for (key, value) in more.as_object().into_iter().flatten() {
        options[key] = value.clone();
    }
    let mut script = Script::browser("talk", &options)?;
    let connected = script.expect("connected", LIMIT)?;
    assert_eq!(connected["chosen"], transport, "the page uses what was chosen");
    let talked = script.expect("talked", LIMIT)?;
    assert_eq!(talked["broken"], json!([]), "failed requests and errors of the page");
    assert_eq!(talked["tracks"], json!(["ended"]), "the microphone is given back: {talked}");
    assert_eq!(talked["shown"]["start"], "Start", "another call could begin");
    assert_eq!(talked["shown"]["playing"], false, "nothing is played any more");
    script.expect("done", LIMIT)?;
    script.finish(LIMIT)?;
    server.await_no_sessions(&[&format!("/{handler}")], Duration::from_secs(5))?;
    Ok((number(&talked["lost_s"]) + late(&server), talked))
}

/// What came from the client too late to be heard, s, as the server says at the end of its session.
fn late(server: &Server) -> f64 {
    let printed = server.printed();
    let frames =
        printed.split_once("frames_concealed=").and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
    frames.map_or(0.0, |frames: f64| frames * FRAME_S)
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The server's messages about turns, in order, with the second in which the page got them.
fn logs(talked: &Value) -> Vec<(&str, f64)> {
    let words = ["started_talking", "pause_detected", "response_starting", "end_stream"];
    let of =
        |mark: &Value| words.into_iter().find(|word| mark["what"] == *word).map(|word| (word, number(&mark["at"])));
    list(&talked["marks"]).iter().filter_map(of).collect()
}

/// Every word comes back once its sentence is over, no louder and no softer.
fn the_parrot_repeats(transport: &str) -> Result<()> {
    let microphone = json!([2.0, FIRST, 4.5, SECOND, 4.0]);
    let Some(talked) = talked("parrot", transport, &microphone, 2)? else { return Ok(()) };

    let words: Vec<&str> = logs(&talked).into_iter().map(|(word, _)| word).collect();
    let turn = ["started_talking", "pause_detected", "response_starting"];
    assert!(words.len() >= 6 && words.chunks(3).all(|words| turn.starts_with(words)), "{words:?}");

    let (spoken, replies) = (list(&talked["spoken"]), list(&talked["replies"]));
    assert!(replies.len() >= 2, "{talked}");
    for (sentence, reply) in spoken.iter().zip(replies).take(2) {
        let length = |span: &Value| number(&span[1]) - number(&span[0]);
        let (said, back) = (length(sentence), length(&reply["span"]));
        println!(
            "{transport}: {said:.2} s said, {back:.2} s back {:.2} s later, {} pieces alike by {:.2}, {:+.1} dB",
            number(&reply["delay"]),
            reply["pieces"],
            number(&reply["match"]),
            number(&reply["gain_db"])
        );
        // Play-out pauses on a machine that is busy; what must not be is that words are missing.
        assert!((-0.25..1.5).contains(&(back - said)), "{said} s said, {back} s back");
        assert!(number(&reply["in_order"]) > 0.7, "words of this sentence, in their order: {reply}");
        // Unrelated sound is alike by 0.3 at most.
        assert!(number(&reply["match"]) > 0.5, "the same words: {reply}");
        assert!(number(&reply["gain_db"]).abs() < 2.0, "as loud as they were said: {reply}");
        assert!(number(&reply["span"][0]) > number(&sentence[1]), "not before the sentence is over");
    }
    let shown = &talked["shown"]["turns"];
    for turn in list(shown).iter().take(2) {
        let events: Vec<&Value> = list(&turn["rows"]).iter().map(|row| &row["event"]).collect();
        for event in ["started_talking", "pause_detected", "response_starting", "output", "silent"] {
            assert!(events.contains(&&json!(event)), "the page shows {event}: {shown}");
        }
    }
    Ok(())
}

#[test]
fn a_parrot_repeats_each_sentence_over_webrtc() -> Result<()> {
    the_parrot_repeats("webrtc")
}

#[test]
fn a_parrot_repeats_each_sentence_over_a_websocket() -> Result<()> {
    the_parrot_repeats("websocket")
}

/// It says eight seconds of notes at a time: an answer falls silent `within` this many seconds of the first words over it,
/// and its goodbye is heard to the last note before the page ends the call.
fn the_secretary_listens_and_hangs_up(transport: &str, within: f64) -> Result<()> {
    let microphone = json!([2.0, FIRST, 2.5, SECOND, 3.0]);
    let Some(talked) = talked("secretary", transport, &microphone, 0)? else { return Ok(()) };

    let interruptions = list(&talked["interruptions"]);
    assert!(interruptions.len() >= 2, "two answers are talked over: {talked}");
    for interruption in interruptions {
        let (fell, had) = (number(&interruption["fell_after"]), number(&interruption["had_sounded"]));
        println!(
            "{transport}: an answer of 8 s, after {had:.1} s, fell silent {:.0} ms after the first words",
            fell * 1e3
        );
        assert!(had < 7.0, "it would have gone on: {interruption}");
        assert!(fell < 2.0, "{fell} s: {interruption}");
    }
    // A busy machine may stand still for one of them; what waits at the server would be heard at each, for 0.5 s more.
    let best =
        interruptions.iter().map(|interruption| number(&interruption["fell_after"])).fold(f64::INFINITY, f64::min);
    assert!(best < within, "{best} s: {interruptions:?}");

    let logs = logs(&talked);
    let Some(&("end_stream", told)) = logs.last() else { panic!("the end is the last word: {logs:?}") };
    let Some(&("response_starting", began)) = logs.iter().rev().nth(1) else { panic!("after the goodbye: {logs:?}") };
    let goodbye = list(&talked["replies"]).last().cloned().unwrap_or_default();
    let (from, to) = (number(&goodbye["span"][0]), number(&goodbye["span"][1]));
    println!(
        "{transport}: a goodbye of {:.2} s, {:.0} ms longer than its message; notes {}",
        to - from,
        (to - told) * 1e3,
        goodbye["notes"]
    );
    assert!(from > began - 0.1 && (to - from - 1.2).abs() < 0.1, "all 1.2 s of it: {goodbye}");
    for hz in ["784", "659", "523"] {
        assert!((number(&goodbye["notes"][hz]) - 400.0).abs() < 90.0, "each note, and the last one too: {goodbye}");
    }
    assert!(told > to - 0.4, "said when all was sent: {told}, heard until {to}");
    assert_eq!(talked["shown"]["state"], "The handler ended the conversation. It said: Goodbye.");
    let states: Vec<&str> =
        list(&talked["marks"]).iter().filter_map(|mark| mark["what"].as_str()?.strip_prefix("state ")).collect();
    assert!(states.ends_with(&["connected", "ending", "ended"]), "{states:?}");

    let shown = talked["shown"]["turns"].to_string();
    assert!(shown.matches("\"interrupted\"").count() >= 2, "the page shows both interruptions: {shown}");
    assert!(shown.contains("Greeting"), "{shown}");
    Ok(())
}

/// Up to 60 ms are on their way, and the browser stretches what it has when no more comes.
#[test]
fn a_secretary_falls_silent_and_hangs_up_over_webrtc() -> Result<()> {
    the_secretary_listens_and_hangs_up("webrtc", 0.45)
}

/// Up to 200 ms are with the client already, which is not told of first words that they interrupt.
#[test]
fn a_secretary_falls_silent_and_hangs_up_over_a_websocket() -> Result<()> {
    the_secretary_listens_and_hangs_up("websocket", 0.45)
}

/// Somebody says nothing and presses "Reply now" three times: each answer is another turn's, the next press ends it, and the
/// third has the handler hang up. What is sent from the page beside it is taken, and what comes back is shown.
fn the_secretary_is_asked_to_reply(transport: &str) -> Result<()> {
    let press = |wait: f64| json!({ "wait_s": wait, "press": "#trigger" });
    let mut acts = vec![json!({ "row": "response_starting", "wait_s": 1.5,
                                "send": { "kind": "input", "text": "[\"slow\", 7]" } })];
    let has_messages = transport == "webrtc";
    if has_messages {
        acts.push(json!({ "wait_s": 0.1, "send": { "kind": "message", "text": "hello" } }));
    }
    acts.extend([press(0.2), press(2.6), press(2.6)]);
    let more = json!({ "microphone": [60.0], "turns": 0, "acts": acts, "tones": [784, 659, 523, 622, 392] });
    let Some(talked) = talked_with("secretary", transport, &more)? else { return Ok(()) };

    let words: Vec<&str> = logs(&talked).into_iter().map(|(word, _)| word).collect();
    let count = |word: &str| words.iter().filter(|found| **found == word).count();
    assert_eq!((count("started_talking"), count("pause_detected")), (0, 3), "{words:?}");
    let reply = list(&talked["replies"]).last().cloned().unwrap_or_default();
    println!("{transport}: notes of three replies {}", reply["notes"]);
    // Two and a half seconds of each answer, whose notes of half a second alternate; then the goodbye, whole.
    for hz in ["622", "392"] {
        assert!((600.0..2_300.0).contains(&number(&reply["notes"][hz])), "the answer with {hz} Hz: {reply}");
    }
    for hz in ["784", "659", "523"] {
        assert!((number(&reply["notes"][hz]) - 400.0).abs() < 90.0, "the goodbye: {reply}");
    }
    let shown = &talked["shown"];
    assert_eq!(shown["state"], "The handler ended the conversation. It said: Goodbye.");
    let rows: Vec<&Value> = list(&shown["turns"]).iter().flat_map(|turn| list(&turn["rows"])).collect();
    let outputs: Vec<Value> = rows
        .iter()
        .filter(|row| row["event"] == "output")
        .filter_map(|row| serde_json::from_str(row["text"].as_str()?).ok())
        .collect();
    let turns: Vec<&Value> = outputs.iter().map(|output| &output["turn"]).collect();
    assert_eq!(turns, [1, 2, 3], "each turn's output is shown: {shown}");
    assert_eq!(
        rows.iter().filter(|row| row["text"].to_string().contains("You asked for a reply")).count(),
        3,
        "{shown}"
    );

    let messages = list(&shown["messages"]);
    let has = |from: &str, kind: &str, text: &str| {
        messages.iter().any(|message| *message == json!({ "from": from, "kind": kind, "text": text }))
    };
    assert!(has("you", "input", "[\"slow\",7]"), "the server took it: {shown}");
    assert_eq!(has("server", "log", "Server received: hello"), has_messages, "{shown}");
    assert!(messages.iter().all(|message| message["from"] != "page"), "no complaint of the page: {shown}");
    Ok(())
}

#[test]
fn a_secretary_replies_when_asked_over_webrtc() -> Result<()> {
    the_secretary_is_asked_to_reply("webrtc")
}

#[test]
fn a_secretary_replies_when_asked_over_a_websocket() -> Result<()> {
    the_secretary_is_asked_to_reply("websocket")
}

/// "Reply now" in the middle of a sentence: the words so far come back while the rest is still being said.
#[test]
fn a_parrot_that_is_asked_does_not_wait_for_the_end_of_a_sentence() -> Result<()> {
    let acts = json!([{ "row": "started_talking", "wait_s": 0.9, "press": "#trigger" }]);
    let more = json!({ "microphone": [2.5, FIRST, 6.0], "turns": 1, "acts": acts });
    let Some(talked) = talked_with("parrot", "webrtc", &more)? else { return Ok(()) };
    let (sentence, reply) = (&list(&talked["spoken"])[0], &list(&talked["replies"])[0]);
    println!("a sentence of {}, asked for: {reply}", sentence);
    assert!(number(&reply["span"][0]) < number(&sentence[1]), "before the sentence is over: {sentence} {reply}");
    assert!(number(&reply["match"]) > 0.5, "the same words: {reply}");
    assert!(number(&reply["gain_db"]).abs() < 2.0, "as loud as they were said: {reply}");
    Ok(())
}
