//! Where the programs are that the suites run.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};

/// The root of the checkout.
///
/// # Panics
/// Never: the manifest of this crate is in it.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("invariant: the manifest of this crate is in <root>/tests")
}

/// The `streamfleet` program: `STREAMFLEET_BIN`, else the one that was built beside this test.
///
/// # Errors
/// When there is none yet.
pub fn streamfleet() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("STREAMFLEET_BIN") {
        return Ok(path.into());
    }
    built("streamfleet")
}

/// The `streamfleet-worker` program that was built beside this test.
///
/// # Errors
/// When there is none yet.
pub fn worker() -> Result<PathBuf> {
    built("streamfleet-worker")
}

/// The `streamfleet-router` program, likewise.
///
/// # Errors
/// When there is none yet.
pub(crate) fn router() -> Result<PathBuf> {
    built("streamfleet-router")
}

/// The worker with the suites' handlers, likewise.
///
/// # Errors
/// When there is none yet.
pub(crate) fn services() -> Result<PathBuf> {
    built("streamfleet-test-services")
}

fn built(name: &str) -> Result<PathBuf> {
    // <target>/<profile>/deps/<suite>-<hash> → <target>/<profile>/<name>
    let suite = std::env::current_exe()?;
    let profile = suite.ancestors().nth(2).context("the test runs outside a target directory")?;
    let program = profile.join(name);
    ensure!(
        program.is_file(),
        "{} is missing: `cargo build --workspace` makes it, `make test` does so first",
        program.display()
    );
    Ok(program)
}

/// A tool that `tests/setup/tools.sh` installs, by the name of its variable: from the environment, else asked of that script.
///
/// # Errors
/// When it is not installed.
pub fn tool(variable: &str) -> Result<String> {
    if let Ok(value) = std::env::var(variable) {
        return Ok(value);
    }
    static TOOLS: OnceLock<Result<HashMap<String, String>, String>> = OnceLock::new();
    match TOOLS.get_or_init(|| ask().map_err(|error| format!("{error:#}"))) {
        Ok(tools) => tools.get(variable).cloned().with_context(|| format!("tools.sh does not know {variable}")),
        Err(error) => bail!("{error}"),
    }
}

fn ask() -> Result<HashMap<String, String>> {
    let output =
        Command::new(root().join("tests/setup/tools.sh")).arg("--where").output().context("tests/setup/tools.sh")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    let text = String::from_utf8(output.stdout)?;
    Ok(text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}
