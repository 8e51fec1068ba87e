//! Archives in POSIX's ustar format (pax(1)), the same for the same content: no times, no owners.

/// One that grows in memory.
#[derive(Default)]
pub(crate) struct Archive(Vec<u8>);

/// Headers and contents come in multiples of this.
const BLOCK: usize = 512;
/// Longer names are split in ways that nothing here needs.
const LONGEST_NAME: usize = 100;

impl Archive {
    /// Adds a file, by its path from the root, without a leading slash.
    ///
    /// # Panics
    /// When the path has more than 100 bytes: the paths are this crate's own and the dynamic loader's.
    pub(crate) fn add(&mut self, path: &str, mode: u32, content: &[u8]) {
        assert!(path.len() <= LONGEST_NAME && !path.starts_with('/'), "{path}");
        let mut header = [0; BLOCK];
        let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, path);
        put(100, &format!("{mode:07o}"));
        put(108, "0000000");
        put(116, "0000000");
        put(124, &format!("{:011o}", content.len()));
        put(136, "00000000000");
        // The sum is that of a header whose sum is spaces.
        put(148, "        ");
        put(156, "0");
        put(257, "ustar\u{0}00");
        let sum: u32 = header.iter().copied().map(u32::from).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
    }

    /// Its bytes.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 2 * BLOCK, 0);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    /// What the system's own program sees in it.
    fn listed(archive: Archive, flag: &str) -> String {
        let mut child =
            Command::new("tar").args([flag, "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(&archive.finish()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn other_programs_read_it() {
        let made = || {
            let mut archive = Archive::default();
            archive.add("a/program", 0o755, &[b'x'; 513]);
            archive.add("empty", 0o644, b"");
            archive
        };
        let lines = listed(made(), "-tvf");
        let mut lines = lines.lines();
        let first = lines.next().unwrap();
        assert!(first.starts_with("-rwxr-xr-x") && first.contains(" 513 ") && first.ends_with("a/program"), "{first}");
        assert!(lines.next().unwrap().ends_with("empty"));
        assert_eq!(listed(made(), "-xOf"), "x".repeat(513));
        assert_eq!(made().finish(), made().finish());
    }
}
