//! Replies that hold up their threads: everybody else has others.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use streamfleet_tests::judged;

use crate::caller::{Caller, Plan, Via};
use crate::context::outputs;
use crate::limits::check_echo;
use crate::outputs::post;
use crate::replies::{control, end, unbroken};
use crate::{each_with, plain, service};

/// For as long a reply holds up its thread: what is seen after that shows nothing.
const BLOCKS: Duration = Duration::from_secs(30);

/// As many as there are cores, which would be all threads that the process has for anything. One more is left for the handlers
/// that hold up none.
#[test]
fn as_many_blocked_replies_as_cores_harm_nobody_else() -> Result<()> {
    judged(|| {
        let cores = thread::available_parallelism()?.get();
        let threads = (cores + 1).to_string();
        for via in Via::ALL {
            let services = [plain(&["pause-blocks"]), vec![service("echo", "plain-echo", json!({}))]].concat();
            let rows = [(via.name().to_owned(), ())];
            each_with(&[("STREAMFLEET_HANDLERS_THREADS", &threads)], services, rows, |server, ()| async move {
                let neighbour = Caller::dial(&server, Via::WebSocket, Plan::of("echo")).await?;
                let mut callers = Vec::new();
                for _ in 0..cores {
                    callers.push(Caller::dial(&server, via, Plan::of("pause-blocks")).await?);
                }
                let story = async {
                    let began = Instant::now();
                    for caller in &callers {
                        let asked = json!({ "webrtc_id": caller.id().as_str() });
                        let answer = post(&server, "/pause-blocks/trigger_response", &asked)?;
                        ensure!(answer.status == 200, "{answer:?}");
                        ensure!(outputs(&server, "pause-blocks", caller, 1)? == [json!("blocks")], "it does not block");
                    }
                    let listed = control(&server, "GET", "/pause-blocks/sessions")?;
                    ensure!(listed["sessions"].as_array().is_some_and(|all| all.len() == cores), "{listed}");
                    let newcomer = Caller::dial(&server, Via::WebSocket, Plan::of("echo")).await?;
                    check_echo(&newcomer).await?;
                    newcomer.hang_up().await;
                    for caller in &callers {
                        end(&server, "pause-blocks", caller).await?;
                    }
                    let took = began.elapsed();
                    ensure!(took < BLOCKS, "after {took:?} nothing is blocked any more");
                    Ok(())
                };
                unbroken(&neighbour, story).await?;
                for caller in callers {
                    caller.hang_up().await;
                }
                neighbour.hang_up().await;
                Ok(())
            })?;
        }
        Ok(())
    })
}
