//! A terminal: its keys, and what stands on it. It is given back as it was.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::queue;
use crossterm::style::{Attribute, Color, Print, ResetColor, SetAttribute, SetForegroundColor};
use crossterm::terminal::{self, Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen};
use tokio::sync::mpsc;

use super::keys::Key;
use super::render::{Line, Size};
use super::view::Look;

/// How often the thread that reads keys looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);
/// Keys that wait: nobody types faster than frames are drawn for longer than this.
const WAITING: usize = 32;
/// Where a terminal does not say how wide it is.
const WIDTH: usize = 100;

/// What a terminal tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Key(Key),
    /// It has another size.
    Resized,
}

/// What is known of standard output.
pub(super) fn size() -> Size {
    let (width, height) = match terminal::size() {
        Ok((width, height)) if io::stdout().is_terminal() => (usize::from(width), Some(usize::from(height))),
        // A file or a pipe takes all.
        _ => return Size { width: usize::MAX, height: None },
    };
    Size { width: if width == 0 { WIDTH } else { width }, height: height.filter(|height| *height > 0) }
}

/// Whether somebody looks and can press keys.
pub(super) fn is_interactive() -> bool {
    io::stdout().is_terminal() && io::stdin().is_terminal()
}

/// A terminal in our hands.
pub(super) struct Screen {
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Screen {
    /// Takes it: from here on keys come as they are pressed, and what was on it is put aside.
    ///
    /// # Errors
    /// It cannot be.
    pub(super) fn take() -> io::Result<(Self, mpsc::Receiver<Told>)> {
        terminal::enable_raw_mode()?;
        // From here on it is given back, whatever happens.
        let mut screen = Self { stop: Arc::default(), reader: None };
        let mut out = io::stdout().lock();
        queue!(out, EnterAlternateScreen, Hide)?;
        out.flush()?;
        let (sender, receiver) = mpsc::channel(WAITING);
        let stop = screen.stop.clone();
        screen.reader = Some(std::thread::Builder::new().name("keys".to_owned()).spawn(move || read(&stop, &sender))?);
        Ok((screen, receiver))
    }

    /// Shows a frame.
    ///
    /// # Errors
    /// Nobody reads it any more.
    pub(super) fn draw(&self, lines: &[Line]) -> io::Result<()> {
        let mut out = io::BufWriter::new(io::stdout().lock());
        for (n, (look, text)) in lines.iter().enumerate() {
            queue!(out, MoveTo(0, u16::try_from(n).unwrap_or(u16::MAX)))?;
            match look {
                Look::Plain => {}
                Look::Head => queue!(out, SetAttribute(Attribute::Bold))?,
                Look::Chosen => queue!(out, SetAttribute(Attribute::Reverse))?,
                Look::Passing => queue!(out, SetForegroundColor(Color::Cyan))?,
                Look::Warning => queue!(out, SetForegroundColor(Color::Yellow))?,
                Look::Dim => queue!(out, SetAttribute(Attribute::Dim))?,
            }
            queue!(out, Print(text), SetAttribute(Attribute::Reset), ResetColor, Clear(ClearType::UntilNewLine))?;
        }
        queue!(out, Clear(ClearType::FromCursorDown))?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(reader) = self.reader.take() {
            // It has only ever sent.
            let _ = reader.join();
        }
        let mut out = io::stdout().lock();
        // A terminal that is gone needs nothing.
        let _ = queue!(out, Show, LeaveAlternateScreen).and_then(|()| out.flush());
        let _ = terminal::disable_raw_mode();
    }
}

fn read(stop: &AtomicBool, told: &mpsc::Sender<Told>) {
    while !stop.load(Relaxed) {
        let heard = match event::poll(LOOK) {
            Ok(false) => continue,
            Ok(true) => event::read(),
            Err(error) => Err(error),
        };
        let Ok(heard) = heard else {
            // A terminal that is gone presses no keys any more: whoever waits for them ends.
            return;
        };
        // With so many waiting one more changes nothing.
        if let Some(heard) = meaning(&heard)
            && let Err(mpsc::error::TrySendError::Closed(_)) = told.try_send(heard)
        {
            return;
        }
    }
}

fn meaning(heard: &Event) -> Option<Told> {
    let KeyEvent { code, modifiers, kind, .. } = match heard {
        Event::Key(key) => key,
        Event::Resize(..) => return Some(Told::Resized),
        _ => return None,
    };
    if *kind == KeyEventKind::Release {
        return None;
    }
    let key = match code {
        KeyCode::Char('c' | 'd') if modifiers.contains(KeyModifiers::CONTROL) => Key::Quit,
        KeyCode::Char('q') | KeyCode::Esc => Key::Quit,
        KeyCode::Char('n') => Key::Namespace,
        KeyCode::Up | KeyCode::Char('k') => Key::Up,
        KeyCode::Down | KeyCode::Char('j') => Key::Down,
        KeyCode::Left | KeyCode::PageUp => Key::Left,
        KeyCode::Right | KeyCode::PageDown => Key::Right,
        _ => return None,
    };
    Some(Told::Key(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keys_mean() {
        let check = |code: KeyCode, modifiers: KeyModifiers, expected: Option<Key>| {
            let heard = meaning(&Event::Key(KeyEvent::new(code, modifiers)));
            assert_eq!(heard, expected.map(Told::Key), "{code:?} {modifiers:?}");
        };
        check(KeyCode::Char('q'), KeyModifiers::NONE, Some(Key::Quit));
        check(KeyCode::Esc, KeyModifiers::NONE, Some(Key::Quit));
        check(KeyCode::Char('c'), KeyModifiers::CONTROL, Some(Key::Quit));
        check(KeyCode::Char('c'), KeyModifiers::NONE, None);
        check(KeyCode::Char('n'), KeyModifiers::NONE, Some(Key::Namespace));
        check(KeyCode::Up, KeyModifiers::NONE, Some(Key::Up));
        check(KeyCode::PageDown, KeyModifiers::NONE, Some(Key::Right));
        check(KeyCode::Char('x'), KeyModifiers::NONE, None);
        assert_eq!(meaning(&Event::Resize(80, 24)), Some(Told::Resized));
        assert_eq!(meaning(&Event::FocusGained), None);
        let released = KeyEvent::new_with_kind(KeyCode::Char('q'), KeyModifiers::NONE, KeyEventKind::Release);
        assert_eq!(meaning(&Event::Key(released)), None);
    }
}
