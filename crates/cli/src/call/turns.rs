//! Following a script: a pure state machine that hears and speaks.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::Serialize;
use streamfleet_client::Digit;

use super::script::{Clip, Turn};

/// Messages that are kept for an `expect` to come; a conversation has a few a second.
const MAX_EVENTS: usize = 256;
/// A gap in what is heard that does not end a sound: two frames and a late third.
const GAP: Duration = Duration::from_millis(100);

/// What happens.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Input<'a> {
    /// Something audible is heard in this time.
    Sound { from: Instant, until: Instant },
    /// The server said something.
    Event(&'a str),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Speak turn number so much.
    Play(usize),
    Say(String),
    Press(Digit),
}

/// How the conversation went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Running,
    /// Every turn was taken.
    Done,
    /// This turn did not come about.
    Failed,
}

/// One turn, afterwards. Times are milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct TurnReport {
    pub(crate) turn: &'static str,
    /// When it began, since the call's beginning.
    pub(crate) at_ms: f64,
    pub(crate) took_ms: f64,
    pub(crate) ok: bool,
    /// `wait_for_reply`: from our last word to the reply's first sound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reply_after_ms: Option<f64>,
    /// `interrupt`: how long the other side was still heard after we began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) heard_on_ms: Option<f64>,
}

/// The conversation.
#[derive(Debug)]
pub(crate) struct Runner {
    turns: Vec<Turn<Clip>>,
    at: usize,
    start: Instant,
    entered: Instant,
    stage: Stage,
    ear: Ear,
    /// Since the last one that was expected.
    events: VecDeque<String>,
    /// When our last word ended.
    spoken: Instant,
    acts: VecDeque<Act>,
    reports: Vec<TurnReport>,
    progress: Progress,
}

/// How far the turn is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Fresh,
    Speaking { since: Instant },
}

/// What is heard.
#[derive(Clone, Copy, Debug, Default)]
struct Ear {
    /// When what may be a reply began.
    begun: Option<Instant>,
    last: Option<Instant>,
    /// There was something whose end can be waited for.
    heard: bool,
}

impl Ear {
    /// We speak: what sounds now goes on, what is over counts no more.
    fn reset(&mut self, now: Instant) {
        self.heard = self.sounds(now);
        self.begun = self.heard.then_some(now);
    }

    /// Our last word is said: what was over before it is no reply to it. A greeting that ran into our words is none, nor is
    /// what we interrupted; but the end of that is what comes next.
    fn replied(&mut self, last_word: Instant, over: Over) {
        if !self.sounds(last_word) {
            self.begun = None;
            self.heard &= over == Over::Them;
        }
    }

    fn sounds(&self, at: Instant) -> bool {
        self.last.is_some_and(|last| last + GAP > at)
    }
}

/// What we speak over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    Silence,
    Them,
}

/// What became of a turn.
enum Taken {
    No,
    Yes(Figures),
    Failed,
}

#[derive(Default)]
struct Figures {
    reply_after: Option<Duration>,
    heard_on: Option<Duration>,
}

impl Runner {
    pub(crate) fn new(turns: Vec<Turn<Clip>>, now: Instant) -> Self {
        Self {
            turns,
            at: 0,
            start: now,
            entered: now,
            stage: Stage::Fresh,
            ear: Ear::default(),
            events: VecDeque::new(),
            spoken: now,
            acts: VecDeque::new(),
            reports: Vec::new(),
            progress: Progress::Running,
        }
    }

    pub(crate) fn handle_input(&mut self, now: Instant, input: Input<'_>) {
        // What is due comes first: our last word may have been said before this was heard.
        self.handle_timeout(now);
        match input {
            Input::Sound { from, until } => {
                self.ear.begun.get_or_insert(from);
                self.ear.last = self.ear.last.max(Some(until));
                self.ear.heard = true;
            }
            Input::Event(text) => {
                if self.events.len() == MAX_EVENTS {
                    self.events.pop_front();
                }
                self.events.push_back(text.to_owned());
            }
        }
        self.handle_timeout(now);
    }

    /// Goes on as far as it can. To be called as often as the microphone hands pieces over.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while self.progress == Progress::Running {
            let Some(turn) = self.turns.get(self.at).cloned() else {
                self.progress = Progress::Done;
                return;
            };
            let (figures, ok) = match self.take(now, &turn) {
                Taken::No => return,
                Taken::Yes(figures) => (figures, true),
                Taken::Failed => (Figures::default(), false),
            };
            self.reports.push(TurnReport {
                turn: turn.name(),
                at_ms: ms(self.entered - self.start),
                took_ms: ms(now - self.entered),
                ok,
                reply_after_ms: figures.reply_after.map(ms),
                heard_on_ms: figures.heard_on.map(ms),
            });
            (self.at, self.entered, self.stage) = (self.at + 1, now, Stage::Fresh);
            if !ok {
                self.progress = Progress::Failed;
            }
        }
    }

    pub(crate) fn poll_act(&mut self) -> Option<Act> {
        self.acts.pop_front()
    }

    pub(crate) fn progress(&self) -> Progress {
        self.progress
    }

    /// The samples of a turn that is spoken.
    pub(crate) fn clip(&self, turn: usize) -> &[i16] {
        match self.turns.get(turn) {
            Some(Turn::Play(clip) | Turn::Interrupt { sound: clip, .. }) => &clip.samples,
            _ => &[],
        }
    }

    /// How long we speak in all.
    pub(crate) fn spoken_time(&self) -> Duration {
        let length = |turn: &Turn<Clip>| match turn {
            Turn::Play(clip) | Turn::Interrupt { sound: clip, .. } => clip.length(),
            _ => Duration::ZERO,
        };
        self.turns.iter().map(length).sum()
    }

    /// The turns that were taken, and the one that is under way, which has not come about.
    pub(crate) fn reports(&self, now: Instant) -> Vec<TurnReport> {
        let mut reports = self.reports.clone();
        if self.progress == Progress::Running
            && let Some(turn) = self.turns.get(self.at)
        {
            reports.push(TurnReport {
                turn: turn.name(),
                at_ms: ms(self.entered - self.start),
                took_ms: ms(now.saturating_duration_since(self.entered)),
                ok: false,
                reply_after_ms: None,
                heard_on_ms: None,
            });
        }
        reports
    }

    fn take(&mut self, now: Instant, turn: &Turn<Clip>) -> Taken {
        let late = |within: &Duration| now >= self.entered + *within;
        match turn {
            Turn::Play(clip) => match self.stage {
                Stage::Speaking { since } => self.spoken_out(now, since, clip, Over::Silence),
                _ => self.speak(now),
            },
            Turn::WaitForReply { within } => match self.ear.begun {
                Some(begun) => Taken::Yes(Figures {
                    reply_after: Some(begun.saturating_duration_since(self.spoken)),
                    ..Figures::default()
                }),
                None if late(within) => Taken::Failed,
                None => Taken::No,
            },
            Turn::WaitForEnd { within, quiet } => match (self.ear.heard, self.ear.last) {
                (true, Some(last)) if now >= last + *quiet => Taken::Yes(Figures::default()),
                _ if late(within) => Taken::Failed,
                _ => Taken::No,
            },
            Turn::Interrupt { after, sound, within } => match (self.stage, self.ear.begun) {
                (Stage::Speaking { since }, _) => {
                    let heard_on = self.ear.last.map(|last| last.saturating_duration_since(since));
                    match self.spoken_out(now, since, sound, Over::Them) {
                        Taken::Yes(figures) => Taken::Yes(Figures { heard_on, ..figures }),
                        taken => taken,
                    }
                }
                (_, Some(begun)) if now >= begun + *after => self.speak(now),
                (_, None) if late(within) => Taken::Failed,
                _ => Taken::No,
            },
            Turn::Silence(time) => {
                if late(time) {
                    Taken::Yes(Figures::default())
                } else {
                    Taken::No
                }
            }
            Turn::Say(text) => {
                self.acts.push_back(Act::Say(text.clone()));
                Taken::Yes(Figures::default())
            }
            Turn::Digits(keys) => {
                self.acts.extend(keys.iter().copied().map(Act::Press));
                Taken::Yes(Figures::default())
            }
            Turn::Expect { event, within } => match self.events.iter().position(|text| text.contains(event.as_str())) {
                Some(at) => {
                    self.events.drain(..=at);
                    Taken::Yes(Figures::default())
                }
                None if late(within) => Taken::Failed,
                None => Taken::No,
            },
        }
    }

    fn speak(&mut self, now: Instant) -> Taken {
        self.ear.reset(now);
        self.acts.push_back(Act::Play(self.at));
        self.stage = Stage::Speaking { since: now };
        Taken::No
    }

    fn spoken_out(&mut self, now: Instant, since: Instant, clip: &Clip, over: Over) -> Taken {
        let last_word = since + clip.speech();
        if now >= last_word && self.spoken < last_word {
            self.spoken = last_word;
            self.ear.replied(last_word, over);
        }
        if now < since + clip.length() { Taken::No } else { Taken::Yes(Figures::default()) }
    }
}

fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e4).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::source::TONE_RATE;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    fn clip(ms: u64) -> Clip {
        speech(ms, 0)
    }

    /// Words, and the silence that a recording has behind them.
    fn speech(ms: u64, silence_ms: u64) -> Clip {
        let samples = |ms: u64| ms as usize * TONE_RATE as usize / 1_000;
        Clip { samples: [vec![8_000; samples(ms)], vec![0; samples(silence_ms)]].concat().into() }
    }

    /// A world of milliseconds: sounds are heard and messages come at their times.
    struct World {
        runner: Runner,
        acts: Vec<(u64, Act)>,
        over: u64,
    }

    fn run(turns: Vec<Turn<Clip>>, sounds: &[(u64, u64)], events: &[(u64, &str)]) -> World {
        let start = Instant::now();
        let mut runner = Runner::new(turns, start);
        let mut acts = Vec::new();
        for at in 0..30_000 {
            let now = start + MS * at as u32;
            let sounding = |(from, to): &&(u64, u64)| (*from..*to).contains(&at) && (at - from).is_multiple_of(20);
            for (_, to) in sounds.iter().filter(sounding) {
                let until = start + MS * (at + 20).min(*to) as u32;
                runner.handle_input(now, Input::Sound { from: now, until });
            }
            for (_, text) in events.iter().filter(|(ms, _)| *ms == at) {
                runner.handle_input(now, Input::Event(text));
            }
            runner.handle_timeout(now);
            acts.extend(std::iter::from_fn(|| runner.poll_act()).map(|act| (at, act)));
            if runner.progress() != Progress::Running {
                return World { runner, acts, over: at };
            }
        }
        panic!("it never ends: {runner:?}");
    }

    #[test]
    fn a_question_and_its_answer() {
        let turns = vec![
            Turn::Play(clip(500)),
            Turn::WaitForReply { within: 2_000 * MS },
            Turn::WaitForEnd { within: 5_000 * MS, quiet: 300 * MS },
            Turn::Silence(100 * MS),
            Turn::Play(clip(100)),
        ];
        // A sentence, a breath, another sentence.
        let world = run(turns, &[(1_200, 2_000), (2_200, 3_000)], &[]);
        assert_eq!(world.runner.progress(), Progress::Done);
        assert_eq!(world.acts, [(0, Act::Play(0)), (3_400, Act::Play(4))]);
        assert_eq!(world.over, 3_500);
        let reports = world.runner.reports(Instant::now());
        assert_eq!(reports[1].reply_after_ms, Some(700.0));
        assert_eq!((reports[2].at_ms, reports[2].took_ms), (1_200.0, 2_100.0));
    }

    #[test]
    fn an_interruption() {
        let turns = vec![
            Turn::Play(clip(200)),
            Turn::Interrupt { after: 400 * MS, sound: clip(600), within: 2_000 * MS },
            Turn::WaitForEnd { within: 2_000 * MS, quiet: 200 * MS },
        ];
        // Stops 80 ms after the interruption at 900.
        let world = run(turns, &[(500, 980)], &[]);
        assert_eq!(world.acts, [(0, Act::Play(0)), (900, Act::Play(1))]);
        let reports = world.runner.reports(Instant::now());
        assert_eq!(reports[1].heard_on_ms, Some(80.0));
        assert_eq!(world.over, 1_500, "it was quiet long enough by then");
    }

    #[test]
    fn what_was_over_before_our_last_word_is_no_reply() {
        #[track_caller]
        fn check(question: Clip, sounds: &[(u64, u64)], reply_at: u64, after_ms: f64) {
            let turns = vec![Turn::Play(question), Turn::WaitForReply { within: 5_000 * MS }];
            let world = run(turns, sounds, &[]);
            assert_eq!((world.runner.progress(), world.over), (Progress::Done, reply_at));
            assert_eq!(world.runner.reports(Instant::now())[1].reply_after_ms, Some(after_ms));
        }
        let (greeting, reply) = ((100, 600), (2_500, 3_000));
        check(clip(2_000), &[greeting, reply], 2_500, 500.0);
        check(clip(2_000), &[reply], 2_500, 500.0);
        // It came in the recording's silence, and may be over when that is.
        check(speech(2_000, 1_500), &[greeting, reply], 3_500, 500.0);
        check(speech(2_000, 1_500), &[greeting, (2_500, 3_600)], 3_500, 500.0);
        // It began while we spoke and goes on.
        check(clip(2_000), &[(1_500, 2_500)], 2_000, 0.0);
    }

    #[test]
    fn the_end_after_an_interruption_is_that_of_what_was_interrupted_or_of_the_next_reply() {
        let interrupt = Turn::Interrupt { after: 400 * MS, sound: clip(600), within: 2_000 * MS };
        let end = Turn::WaitForEnd { within: 5_000 * MS, quiet: 200 * MS };
        let sounds = [(500, 980), (2_500, 3_000)];
        assert_eq!(run(vec![interrupt.clone(), end.clone()], &sounds, &[]).over, 1_500);
        let reply = Turn::WaitForReply { within: 5_000 * MS };
        let world = run(vec![interrupt, reply, end], &sounds, &[]);
        assert_eq!((world.runner.progress(), world.over), (Progress::Done, 3_200));
        assert_eq!(world.runner.reports(Instant::now())[1].reply_after_ms, Some(1_000.0));
    }

    #[test]
    fn what_does_not_come_fails_the_script() {
        #[track_caller]
        fn check(turn: Turn<Clip>, sounds: &[(u64, u64)], events: &[(u64, &str)], over: u64) {
            let world = run(vec![turn, Turn::Silence(MS)], sounds, events);
            assert_eq!((world.runner.progress(), world.over), (Progress::Failed, over));
            let reports = world.runner.reports(Instant::now());
            assert_eq!(reports.iter().map(|report| report.ok).collect::<Vec<_>>(), [false]);
        }
        let within = 1_000 * MS;
        check(Turn::WaitForReply { within }, &[], &[], 1_000);
        check(Turn::WaitForEnd { within, quiet: 300 * MS }, &[(100, 5_000)], &[], 1_000);
        check(Turn::WaitForEnd { within, quiet: 300 * MS }, &[], &[], 1_000);
        check(Turn::Interrupt { after: MS, sound: clip(10), within }, &[], &[], 1_000);
        check(Turn::Expect { event: "pause".into(), within }, &[], &[(5, "log: started_talking")], 1_000);
    }

    #[test]
    fn messages_are_expected_in_order_and_each_once() {
        let expect = |event: &str| Turn::Expect { event: event.into(), within: 1_000 * MS };
        let events = [(10, "log: started_talking"), (20, "log: pause_detected"), (30, "log: started_talking")];
        let turns = vec![Turn::Play(clip(100)), expect("started"), expect("pause"), expect("started")];
        assert_eq!(run(turns.clone(), &[], &events).over, 100, "what came while we spoke counts");
        let world = run([turns, vec![expect("pause")]].concat(), &[], &events);
        assert_eq!(world.runner.progress(), Progress::Failed);
    }

    #[test]
    fn texts_and_keys() {
        let keys: Vec<_> = ['1', '#'].map(|key| Digit::new(key).unwrap()).to_vec();
        let world = run(vec![Turn::Say("hi".into()), Turn::Digits(keys.clone())], &[], &[]);
        let expected = [Act::Say("hi".into()), Act::Press(keys[0]), Act::Press(keys[1])].map(|act| (0, act));
        assert_eq!(world.acts, expected);
    }

    #[test]
    fn a_call_that_ends_early_fails_the_turn_under_way() {
        let start = Instant::now();
        let mut runner = Runner::new(vec![Turn::Play(clip(100)), Turn::Silence(MS)], start);
        runner.handle_timeout(start);
        let reports = runner.reports(start + 50 * MS);
        assert_eq!((reports.len(), reports[0].ok, reports[0].took_ms), (1, false, 50.0));
    }

    proptest! {
        /// Whatever is heard, a script ends, and its turns are taken in their order.
        #[test]
        fn it_ends(kinds in prop::collection::vec(0u8..5, 1..8), from in 0u64..2_000, length in 0u64..4_000) {
            let turns: Vec<Turn<Clip>> = kinds.iter().map(|kind| match kind {
                0 => Turn::Play(clip(100)),
                1 => Turn::WaitForReply { within: 900 * MS },
                2 => Turn::WaitForEnd { within: 900 * MS, quiet: 200 * MS },
                3 => Turn::Interrupt { after: 100 * MS, sound: clip(50), within: 900 * MS },
                _ => Turn::Silence(70 * MS),
            }).collect();
            let names: Vec<_> = turns.iter().map(Turn::name).collect();
            let world = run(turns, &[(from, from + length)], &[]);
            let taken: Vec<_> = world.runner.reports(Instant::now()).iter().map(|report| report.turn).collect();
            prop_assert_eq!(&names[..taken.len()], &taken[..]);
        }
    }
}
