//! Container images, packed without a container engine: a program, what it loads, and roots of trust, FROM scratch.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::UNIX_EPOCH;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

use crate::machine::text;
use crate::programs::built;
use crate::tar::Archive;

/// Where a program looks for roots of trust, here and in the image.
const ROOTS: &str = "etc/ssl/certs/ca-certificates.crt";
/// Names of hosts come from files and DNS.
const NAMES: (&str, &str) = ("etc/nsswitch.conf", "hosts: files dns\n");
/// Nobody: no right that an image needs to have.
const USER: &str = "65532:65532";

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
    /// A worker with the handlers of the suites, as somebody builds one on the SDK.
    Services,
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
            Self::Services => "streamfleet-test-services",
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

/// An image in a file that container runtimes import (docker-archive).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// What pods call it.
    pub name: String,
    /// The file.
    pub path: PathBuf,
}

impl Image {
    /// Packs a program as its entry point, beside the program: without symbols, with the loader and the libraries that it names. It
    /// is not packed again while neither has changed.
    ///
    /// # Errors
    /// When `ldd` or `strip` fail, or a library is missing.
    pub fn of(name: &str, program: &Path) -> Result<Self> {
        let folder = program.parent().context("a program without a folder")?.join("images");
        fs::create_dir_all(&folder)?;
        let changed = fs::metadata(program)?.modified()?.duration_since(UNIX_EPOCH)?.as_nanos();
        let file = program.file_name().and_then(|name| name.to_str()).context("a program without a name")?;
        let stem = format!("{}-{file}-", name.replace([':', '/'], "_"));
        let present = format!("{stem}{changed:x}");
        let path = folder.join(format!("{present}.tar"));
        if !path.exists() {
            // Those of older builds of it are of no use; what another process packs at this moment is.
            let is_old = |name: &str| name.starts_with(&stem) && !name.starts_with(&present);
            for old in fs::read_dir(&folder)?.flatten().filter(|old| old.file_name().to_str().is_some_and(is_old)) {
                drop(fs::remove_file(old.path()));
            }
            let stripped = folder.join(format!("{file}-{}.stripped", std::process::id()));
            let mut strip = Command::new("strip");
            strip.arg("-o").arg(&stripped).arg(program);
            text(strip.output(), &strip)?;
            let content = fs::read(&stripped);
            drop(fs::remove_file(&stripped));
            let packed = pack(name, file, &content?, &libraries(program)?)?;
            // Into place at once: several tests may pack the same image.
            let partial = path.with_extension(format!("{}.partial", std::process::id()));
            fs::write(&partial, packed)?;
            fs::rename(&partial, &path)?;
        }
        Ok(Self { name: name.to_owned(), path })
    }

    /// Its size in bytes, which is what it has on a node.
    ///
    /// # Errors
    /// When the file is gone.
    pub fn bytes(&self) -> Result<u64> {
        Ok(fs::metadata(&self.path)?.len())
    }
}

/// What a program loads, by the path at which it looks for it.
fn libraries(program: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let output = Command::new("ldd").arg(program).output().context("ldd")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let mut found = BTreeMap::new();
    for path in loaded(&said)? {
        let content = fs::read(&path).with_context(|| path.clone())?;
        found.insert(path, content);
    }
    Ok(found)
}

/// The paths in what `ldd` says. A program that loads nothing has none.
fn loaded(said: &str) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    for line in said.lines().map(str::trim) {
        ensure!(!line.ends_with("not found"), "{line}");
        let path = line.split_once(" => ").map_or(line, |(_, path)| path);
        match path.split_once(" (0x") {
            Some((path, _)) if path.starts_with('/') => paths.push(path.to_owned()),
            // The kernel's own (linux-vdso.so.1).
            Some(_) => {}
            None if ["statically linked", "not a dynamic executable"].contains(&line) => return Ok(Vec::new()),
            None => bail!("ldd: {said}"),
        }
    }
    Ok(paths)
}

/// The image: a layer with what programs of one build share, and a layer with the program.
fn pack(name: &str, file: &str, program: &[u8], libraries: &BTreeMap<String, Vec<u8>>) -> Result<Vec<u8>> {
    let mut shared = Archive::default();
    let roots = fs::read(Path::new("/").join(ROOTS)).context("roots of trust: `make test` installs ca-certificates")?;
    shared.add(ROOTS, 0o644, &roots);
    shared.add(NAMES.0, 0o644, NAMES.1.as_bytes());
    for (path, content) in libraries {
        shared.add(path.trim_start_matches('/'), 0o755, content);
    }
    let mut own = Archive::default();
    own.add(file, 0o755, program);
    let layers = [shared.finish(), own.finish()];
    let digests: Vec<String> = layers.iter().map(|layer| sha256(layer)).collect();
    let config = json!({
        "architecture": architecture()?, "os": "linux",
        "config": { "Entrypoint": [format!("/{file}")], "User": USER },
        "rootfs": { "type": "layers", "diff_ids": digests.iter().map(|digest| format!("sha256:{digest}")).collect::<Vec<_>>() },
        "history": [],
    });
    let config = config.to_string().into_bytes();
    let (described, files) =
        (format!("{}.json", sha256(&config)), [0, 1].map(|layer: usize| format!("{}.tar", digests[layer])));
    let manifest = json!([{ "Config": described, "RepoTags": [name], "Layers": files }]);
    let mut image = Archive::default();
    image.add(&described, 0o644, &config);
    for (file, layer) in files.iter().zip(&layers) {
        image.add(file, 0o644, layer);
    }
    image.add("manifest.json", 0o644, manifest.to_string().as_bytes());
    Ok(image.finish())
}

fn sha256(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// This machine's, in the words of images.
fn architecture() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("no cluster on {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ldd_says() {
        let said = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(loaded(said).unwrap(), ["/lib/x86_64-linux-gnu/libm.so.6", "/lib64/ld-linux-x86-64.so.2"]);
        assert!(loaded("\tnot a dynamic executable\n").unwrap().is_empty());
        assert!(loaded("\tstatically linked\n").unwrap().is_empty());
        assert!(loaded("\tlibx.so => not found\n").is_err());
        assert!(loaded("ldd: no such file\n").is_err());
    }

    #[test]
    fn a_digest() {
        assert_eq!(sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn the_same_program_is_the_same_image() {
        let libraries = BTreeMap::from([("/lib/x".to_owned(), vec![1, 2, 3])]);
        let made = |program: &[u8]| pack("local/a:1", "a", program, &libraries).unwrap();
        assert_eq!(made(b"p"), made(b"p"));
        assert_ne!(made(b"p"), made(b"q"));
    }
}
