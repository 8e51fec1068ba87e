//! The folder that recordings go to: its room, and the names in it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use streamfleet_audio::wav;

use crate::PcmFormat;

/// A WAV file's header.
const HEADER: u64 = 44;

/// Characters of a session's id that are kept in its file's name: a name may have 255 bytes, and needs some for its
/// number and ending.
const NAME: usize = 100;

/// Recordings of one session's id before it has to clear up: ids come back, and each of them is another file.
const SAME_NAME: u32 = 1_000;

/// One folder and how much may be in it.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    max_bytes: u64,
    /// Bytes that running recordings may yet come to.
    reserved: Arc<Mutex<u64>>,
}

/// Room in the folder, given back when dropped.
#[derive(Debug)]
struct Reserved {
    bytes: u64,
    total: Arc<Mutex<u64>>,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        *self.total.lock() -= self.bytes;
    }
}

impl Folder {
    /// Makes the folder if need be.
    pub(super) fn open(path: &Path, max_bytes: u64) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        let folder = Self { path: path.to_owned(), max_bytes, reserved: Arc::default() };
        folder.used()?;
        Ok(folder)
    }

    /// Bytes in the files of the folder now: they may be moved away at any time.
    fn used(&self) -> io::Result<u64> {
        let mut used = 0;
        for entry in fs::read_dir(&self.path)? {
            // A file that went between the listing and the look takes no room.
            used += entry?.metadata().map_or(0, |metadata| metadata.len());
        }
        Ok(used)
    }

    /// Sets room aside for the longest recording; `None` when there is not enough. A running recording is counted
    /// by what it may come to and by what is on disk, so the bound is kept with some to spare. The file is made when
    /// there is something to put into it.
    pub(super) fn begin(&self, id: &str, format: PcmFormat, longest: Duration) -> io::Result<Option<Recording>> {
        let bytes = HEADER + 2 * format.samples_in(longest) as u64;
        let mut total = self.reserved.lock();
        if self.used()? + *total + bytes > self.max_bytes {
            return Ok(None);
        }
        *total += bytes;
        drop(total);
        let reserved = Reserved { bytes, total: self.reserved.clone() };
        let stem = file_stem(id);
        Ok(Some(Recording { folder: self.path.clone(), stem, format, longest, file: None, reserved: Some(reserved) }))
    }
}

type Writer = wav::Writer<BufWriter<File>>;

/// One session's file.
pub(super) struct Recording {
    folder: PathBuf,
    stem: String,
    format: PcmFormat,
    longest: Duration,
    /// The open file and its name. Dropped without `close`, it still gets a valid header.
    file: Option<(Writer, String)>,
    reserved: Option<Reserved>,
}

impl Recording {
    pub(super) fn write(&mut self, samples: &[i16]) -> io::Result<()> {
        if samples.is_empty() {
            return Ok(());
        }
        let (writer, _) = match &mut self.file {
            Some(open) => open,
            None => self.file.insert(create(&self.folder, &self.stem, self.format, self.longest)?),
        };
        writer.write(samples).map_err(io::Error::other)?;
        Ok(())
    }

    /// Completes the file and gives the reserved room back; its name, if there was anything to record.
    pub(super) fn close(&mut self) -> io::Result<Option<String>> {
        let closed = self.file.take().map(|(writer, name)| writer.finish().map(|()| name).map_err(io::Error::other));
        self.reserved = None;
        closed.transpose()
    }
}

impl std::fmt::Debug for Recording {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recording").field("stem", &self.stem).finish_non_exhaustive()
    }
}

/// Makes a file that was not there before, whatever else is in the folder: `create_new` follows no symbolic link.
fn create(folder: &Path, stem: &str, format: PcmFormat, longest: Duration) -> io::Result<(Writer, String)> {
    for number in 1..=SAME_NAME {
        let name = if number == 1 { format!("{stem}.wav") } else { format!("{stem}-{number}.wav") };
        match OpenOptions::new().write(true).create_new(true).open(folder.join(&name)) {
            Ok(file) => {
                let writer = Writer::new(BufWriter::new(file), format, longest).map_err(io::Error::other)?;
                return Ok((writer, name));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "too many recordings of one session id"))
}

/// A name that means nothing to a file system: no separator, no dot, no leading dash, bounded. Different ids may come
/// to the same name; their files get different numbers.
fn file_stem(id: &str) -> String {
    let kept = id.chars().take(NAME).map(|c| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' });
    format!("session-{}", kept.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_tame() {
        fn check(id: &str, expected: &str) {
            assert_eq!(file_stem(id), expected);
        }
        check("x7f3k2", "session-x7f3k2");
        check("..", "session-__");
        check("../../etc/passwd", "session-______etc_passwd");
        check("-rf", "session--rf");
        check("a.b~c:d@e\0\\é", "session-a_b_c_d_e___");
        check("", "session-");
        assert_eq!(file_stem(&"a".repeat(4_000)).len(), "session-".len() + NAME);
    }
}
