//! What a call says, piece by piece: a sound, or a script that listens to the answers.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use streamfleet_audio::PcmFormat;
use streamfleet_audio::analysis::level_dbfs;
use streamfleet_client::AudioChunk;

use super::sound::AUDIBLE_DBFS;
use super::source::{Source, TONE_RATE};
use super::turns::{Act, Input, Progress, Runner, TurnReport};

/// How long to listen on after the last word: a round trip with its buffers.
pub(crate) const AFTER: Duration = Duration::from_millis(500);

/// One call's words.
pub(crate) enum Mouth {
    /// A sound for so long, then silence.
    Sound { source: Box<Source>, length: Duration },
    /// A conversation.
    Script(Speaker),
}

/// The speaking half of a conversation.
pub(crate) struct Speaker {
    runner: Rc<RefCell<Runner>>,
    /// The turn that is spoken, and how much of it has been.
    speaking: Option<(usize, usize)>,
    /// When the last turn was over.
    over: Option<Instant>,
}

/// The listening half of a conversation. Without a script, nothing depends on what is heard.
pub(crate) struct Ear(Option<Rc<RefCell<Runner>>>);

/// Whether there is more to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// The piece was filled; these are to be done beside it.
    Filled(Vec<Act>),
    Over,
}

impl Mouth {
    /// Both halves of a conversation.
    pub(crate) fn script(runner: Runner) -> (Self, Ear) {
        let runner = Rc::new(RefCell::new(runner));
        let ear = Ear(Some(Rc::clone(&runner)));
        (Self::Script(Speaker { runner, speaking: None, over: None }), ear)
    }

    /// A sound, to which nobody has to listen.
    pub(crate) fn sound(source: Source, length: Duration) -> (Self, Ear) {
        (Self::Sound { source: Box::new(source), length }, Ear(None))
    }

    pub(crate) fn format(&self) -> PcmFormat {
        match self {
            Self::Sound { source, .. } => source.format(),
            Self::Script(_) => PcmFormat::mono(TONE_RATE),
        }
    }

    /// Fills the piece that begins at `position` of the call.
    pub(crate) fn fill(&mut self, now: Instant, position: Duration, piece: &mut [i16]) -> Piece {
        match self {
            Self::Sound { source, length } if position < *length => source.fill(piece),
            // After the last word the microphone stays open: what ends would be concealed at the other side, and here.
            Self::Sound { length, .. } if position < *length + AFTER => piece.fill(0),
            Self::Sound { .. } => return Piece::Over,
            Self::Script(speaker) => return speaker.fill(now, piece),
        }
        Piece::Filled(Vec::new())
    }
}

impl Speaker {
    fn fill(&mut self, now: Instant, piece: &mut [i16]) -> Piece {
        let mut runner = self.runner.borrow_mut();
        runner.handle_timeout(now);
        let mut beside = Vec::new();
        while let Some(act) = runner.poll_act() {
            match act {
                Act::Play(turn) => self.speaking = Some((turn, 0)),
                act => beside.push(act),
            }
        }
        piece.fill(0);
        if let Some((turn, position)) = &mut self.speaking {
            let rest = runner.clip(*turn).get(*position..).unwrap_or_default();
            let count = rest.len().min(piece.len());
            piece[..count].copy_from_slice(&rest[..count]);
            *position += count;
        }
        if runner.progress() != Progress::Running && now >= *self.over.get_or_insert(now) + AFTER {
            return Piece::Over;
        }
        Piece::Filled(beside)
    }
}

impl Ear {
    /// A piece of the other side is heard.
    pub(crate) fn hear(&self, now: Instant, chunk: &AudioChunk) {
        if let Some(runner) = &self.0
            && level_dbfs(&chunk.samples) > AUDIBLE_DBFS
        {
            let until = chunk.at + chunk.format.duration(chunk.samples.len());
            runner.borrow_mut().handle_input(now, Input::Sound { from: chunk.at, until });
        }
    }

    /// The server said something.
    pub(crate) fn told(&self, now: Instant, text: &str) {
        if let Some(runner) = &self.0 {
            runner.borrow_mut().handle_input(now, Input::Event(text));
        }
    }

    /// What became of the script's turns.
    pub(crate) fn turns(&self, now: Instant) -> Vec<TurnReport> {
        self.0.as_ref().map(|runner| runner.borrow().reports(now)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::script::{Clip, Turn};

    const PIECE: Duration = Duration::from_millis(20);

    /// The loudness of each piece, and how many there are.
    fn pieces(mouth: &mut Mouth) -> Vec<bool> {
        let (start, mut found) = (Instant::now(), Vec::new());
        let mut piece = vec![0; 960];
        loop {
            let position = PIECE * found.len() as u32;
            match mouth.fill(start + position, position, &mut piece) {
                Piece::Over => return found,
                Piece::Filled(_) => found.push(piece.iter().any(|sample| *sample != 0)),
            }
        }
    }

    #[test]
    fn a_sound_is_followed_by_an_open_microphone() {
        let (mut mouth, ear) = Mouth::sound(Source::tone(440), Duration::from_secs(1));
        let found = pieces(&mut mouth);
        assert_eq!(found.len(), 75);
        assert!(found[..50].contains(&true) && !found[50..].contains(&true));
        assert!(ear.turns(Instant::now()).is_empty());
    }

    #[test]
    fn a_script_speaks_when_its_turns_say() {
        let clip = |ms: usize| Clip { samples: vec![5; ms * 48].into() };
        let silence = Turn::Silence(Duration::from_millis(200));
        let turns = vec![Turn::Play(clip(100)), silence, Turn::Play(clip(50))];
        let (mut mouth, ear) = Mouth::script(Runner::new(turns, Instant::now()));
        let found = pieces(&mut mouth);
        let loud: Vec<_> = (0..found.len()).filter(|n| found[*n]).collect();
        assert_eq!(loud, [0, 1, 2, 3, 4, 15, 16, 17]);
        assert!(ear.turns(Instant::now()).iter().all(|turn| turn.ok));
    }
}
