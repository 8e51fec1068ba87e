//! What a test that fails leaves behind.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};

use crate::{World, in_a_fleet, plain, shape};

/// The processes that this one has started and not yet seen end.
fn children() -> Result<Vec<u32>> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // proc(5): `pid (comm) state ppid …`, where `comm` may have anything. One that has just ended has none.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let fields = stat.rsplit_once(')').context("no name")?.1;
        if fields.split_whitespace().nth(1) == Some(own.as_str()) {
            found.push(pid);
        }
    }
    Ok(found)
}

#[test]
fn a_test_that_panics_leaves_no_process_behind() -> Result<()> {
    let started = Mutex::new(Vec::new());
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        in_a_fleet(shape(plain(&["memory"])), async |world: &mut World| {
            // One that is stopped hears of no signal but the last.
            world.fleet.workers[0].server.signal("STOP")?;
            world.fleet.redis.signal("STOP")?;
            *started.lock().unwrap_or_else(PoisonError::into_inner) = children()?;
            panic!("on purpose")
        })
    }));
    ensure!(outcome.is_err(), "it has panicked");
    let started = started.into_inner().unwrap_or_else(PoisonError::into_inner);
    // Two routers, two workers and a Redis.
    ensure!(started.len() >= 5, "only {started:?} were there");
    let left: Vec<u32> = started.into_iter().filter(|pid| Path::new(&format!("/proc/{pid}")).exists()).collect();
    ensure!(left.is_empty(), "{left:?} go on");
    Ok(())
}
