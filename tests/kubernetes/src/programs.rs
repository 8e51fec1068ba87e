//! Where programs are: Kubernetes' own, and the product's.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::machine::text;

/// The folder that `tests/setup/kubernetes.sh` fills.
const VARIABLE: &str = "STREAMFLEET_TEST_KUBERNETES";

/// Kubernetes, and what it runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs(PathBuf);

impl Programs {
    /// Those of the environment, else asked of `tests/setup/kubernetes.sh`.
    ///
    /// # Errors
    /// When they were not built.
    pub fn find() -> Result<Self> {
        if let Some(folder) = env::var_os(VARIABLE) {
            return Ok(Self(folder.into()));
        }
        let mut asks = Command::new(root().join("tests/setup/kubernetes.sh"));
        asks.arg("--where");
        let said = text(asks.output(), &asks)?;
        let line = said.lines().find_map(|line| line.strip_prefix(VARIABLE)?.strip_prefix('='));
        Ok(Self(line.with_context(|| format!("no {VARIABLE} in {said}"))?.into()))
    }

    /// Those in this folder.
    pub fn at(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.0
    }

    /// One of them.
    pub fn program(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

/// The root of the checkout.
///
/// # Panics
/// Never: the manifest of this crate is in it.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("invariant: the manifest is in <root>/tests/kubernetes")
}

/// The folder that programs are built in, this one too.
pub(crate) fn profile() -> Result<PathBuf> {
    let own = env::current_exe()?;
    // <target>/<profile>/<program>, or a test's: <target>/<profile>/deps/<test>-<hash>
    let folder = own.ancestors().skip(1).find(|folder| !folder.ends_with("deps"));
    Ok(folder.context("no folder of programs")?.to_owned())
}

/// The folder of everything that is built.
pub(crate) fn target() -> Result<PathBuf> {
    Ok(profile()?.parent().context("no target folder")?.to_owned())
}

/// A program of this machine's, as a shell finds it.
pub(crate) fn installed(name: &str) -> Result<PathBuf> {
    let folders = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("{name} is missing: `make test` installs it"))
}

/// A program of the product's that was built beside this one.
///
/// # Errors
/// When it was not.
pub fn built(name: &str) -> Result<PathBuf> {
    let program = profile()?.join(name);
    ensure!(
        program.is_file(),
        "{} is missing: `cargo build --workspace` makes it, `make test` does so first",
        program.display()
    );
    Ok(program)
}
