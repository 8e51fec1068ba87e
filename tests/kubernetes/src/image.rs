//! Container images as users get them: packed by images/pack.py, without a container engine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::UNIX_EPOCH;

use anyhow::{Context as _, Result};
use ring::digest::{SHA256, digest};

use crate::machine::text;
use crate::programs::{built, installed, profile, root};

/// What the chart's store is called here.
pub(crate) const REDIS: &str = "redis:test";

/// The product's programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// `streamfleet-worker`.
    Worker,
    /// `streamfleet-router`.
    Router,
    /// `streamfleet-operator`.
    Operator,
    /// `streamfleet`, the command.
    Command,
}

impl Product {
    /// All that an installation runs.
    pub const ALL: [Self; 4] = [Self::Worker, Self::Router, Self::Operator, Self::Command];

    /// The name of its program, which is its image's too.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Worker => "streamfleet-worker",
            Self::Router => "streamfleet-router",
            Self::Operator => "streamfleet-operator",
            Self::Command => "streamfleet",
        }
    }

    /// Its image, of the program that was built beside this one.
    ///
    /// # Errors
    /// When it was not built.
    pub fn image(self) -> Result<Image> {
        Image::of(&format!("{}:test", self.name()), &built(self.name())?)
    }
}

/// How an image's layers are in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layers {
    /// As they are, which takes no time.
    Plain,
    /// By gzip, as `make images` has them.
    Compressed,
}

/// An image in a file that container runtimes import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// What pods call it.
    pub name: String,
    /// The file.
    pub path: PathBuf,
}

impl Image {
    /// Packs a program as its entry point, without symbols, into the folder of what is built, wherever the program is. It is not
    /// packed again while neither it nor the packer has changed.
    ///
    /// # Errors
    /// What the packer says.
    pub fn of(name: &str, program: &Path) -> Result<Self> {
        Self::packed(name, program, Layers::Plain)
    }

    /// The same, with its layers as they are said to be.
    ///
    /// # Errors
    /// What the packer says.
    pub fn packed(name: &str, program: &Path, layers: Layers) -> Result<Self> {
        let folder = profile()?.join("images");
        fs::create_dir_all(&folder)?;
        let (stem, present) = called(name, program, layers)?;
        let path = folder.join(format!("{present}.tar"));
        if !path.exists() {
            // Those of older builds of it are of no use; what another process packs at this moment is.
            let is_old = |name: &str| name.starts_with(&stem) && !name.starts_with(&present);
            for old in fs::read_dir(&folder)?.flatten().filter(|old| old.file_name().to_str().is_some_and(is_old)) {
                drop(fs::remove_file(old.path()));
            }
            // Into place at once: several tests may pack the same image.
            let partial = folder.join(format!("{present}.{}", std::process::id()));
            let mut packs = Command::new("python3");
            packs.arg(packer()).args(["image", "--strip"]).args(layers.flag()).arg(&partial).arg(name).arg(program);
            text(packs.output(), &packs)?;
            fs::rename(&partial, &path)?;
        }
        Ok(Self { name: name.to_owned(), path })
    }

    /// The store that the chart brings along: this machine's own.
    ///
    /// # Errors
    /// When it is not installed.
    pub fn redis() -> Result<Self> {
        Self::of(REDIS, &installed("redis-server")?)
    }

    /// Its size in bytes, which is what it has on a node.
    ///
    /// # Errors
    /// When the file is gone.
    pub fn bytes(&self) -> Result<u64> {
        Ok(fs::metadata(&self.path)?.len())
    }
}

impl Layers {
    /// What the packer is told.
    const fn flag(self) -> Option<&'static str> {
        match self {
            Self::Plain => Some("--plain"),
            Self::Compressed => None,
        }
    }

    /// How names of files begin.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Compressed => "compressed-",
        }
    }
}

fn packer() -> PathBuf {
    root().join("images/pack.py")
}

/// What files of an image of this program are called, and what the present one is.
fn called(name: &str, program: &Path, layers: Layers) -> Result<(String, String)> {
    let changed = fs::metadata(program)?.modified()?.duration_since(UNIX_EPOCH)?.as_nanos();
    let file = program.file_name().and_then(|name| name.to_str()).context("a program without a name")?;
    let stem = format!("{}{}-{file}-", layers.prefix(), name.replace([':', '/'], "_"));
    let of = [program.as_os_str().as_encoded_bytes(), &changed.to_le_bytes(), &fs::read(packer())?].concat();
    let hash: String = digest(&SHA256, &of).as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let present = format!("{stem}{hash}");
    Ok((stem, present))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_packed_where_things_are_built_and_once() {
        let program = installed("true").unwrap();
        let image = Image::of("local/test-image:1", &program).unwrap();
        let folder = profile().unwrap().join("images");
        assert_eq!(image.path.parent(), Some(folder.as_path()));
        let packed = || fs::metadata(&image.path).unwrap().modified().unwrap();
        let first = packed();
        assert_eq!(Image::of("local/test-image:1", &program).unwrap(), image);
        assert_eq!(packed(), first, "nothing has changed");
        let mut lists = Command::new("tar");
        let listed = text(lists.arg("-tf").arg(&image.path).output(), &lists).unwrap();
        assert!(listed.contains("index.json\n") && listed.contains("manifest.json\n"), "{listed}");
        let said = Image::of("without-a-tag", &program).unwrap_err();
        assert!(format!("{said:#}").contains("no tag"), "{said:#}");
        fs::remove_file(&image.path).unwrap();
    }

    #[test]
    fn layers_are_compressed_as_those_of_a_release() {
        let program = installed("true").unwrap();
        let [plain, compressed] = [Layers::Plain, Layers::Compressed]
            .map(|layers| Image::packed("local/test-layers:1", &program, layers).unwrap());
        let [plain, compressed] = [plain, compressed].map(|image| {
            let bytes = fs::read(&image.path).expect("one does not remove the other");
            fs::remove_file(&image.path).unwrap();
            // Files are in the archive as they are, each from a block on: what gzip begins with shows (RFC 1952).
            let layers = bytes.chunks(512).filter(|block| block.starts_with(&[0x1f, 0x8b, 8])).count();
            (layers, bytes.len())
        });
        assert_eq!((plain.0, compressed.0), (0, 2), "what programs share, and the program");
        assert!(compressed.1 < plain.1, "{compressed:?}, {plain:?}");
    }

    #[test]
    fn another_program_of_the_name_is_another_image() {
        let of = |name: &str| called("a/b:1", &installed(name).unwrap(), Layers::Plain).unwrap();
        let ((stem, first), (_, other)) = (of("true"), of("false"));
        assert_eq!(stem, "a_b_1-true-");
        assert!(first.starts_with(&stem) && first != other);
    }
}
