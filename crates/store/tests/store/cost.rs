//! What each operation costs a Redis, measured by the Redis, and that docs/store.md says the same.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use streamfleet_session::CloseReason;
use streamfleet_store::{
    Batch, Calls as _, Demand, Directory as _, Entry, Expected, Filter, MAX_BATCH, MAX_CAPACITY, Outputs as _, Owner,
    Phase, RedisStore, Sessions as _, Store, Told, Waits, Whose,
};

use crate::arrangements::{connected, unhurried};
use crate::server::{Server, free_port};
use crate::world::{beat, id, name, object, request, restored, with_token};

/// What one operation cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cost {
    round_trips: u64,
    /// Commands inside of the script.
    commands: u64,
    bytes_in: u64,
    bytes_out: u64,
}

/// Reads and resets the server's own counters.
fn counted(server: &Server) -> Cost {
    let info = server.command(&["INFO", "everything"]);
    server.command(&["CONFIG", "RESETSTAT"]);
    let mut cost = Cost { round_trips: 0, commands: 0, bytes_in: 0, bytes_out: 0 };
    for line in info.lines() {
        let Some((key, value)) = line.trim().split_once(':') else { continue };
        match key {
            "total_net_input_bytes" => cost.bytes_in = value.parse().unwrap(),
            "total_net_output_bytes" => cost.bytes_out = value.parse().unwrap(),
            _ => {}
        }
        let Some(command) = key.strip_prefix("cmdstat_") else { continue };
        let calls: u64 = value.strip_prefix("calls=").unwrap().split(',').next().unwrap().parse().unwrap();
        match command {
            "evalsha" | "eval" => cost.round_trips += calls,
            "info" | "config|resetstat" | "command|docs" => {}
            _ => cost.commands += calls,
        }
    }
    cost
}

struct Bench {
    server: Server,
    /// What counting itself costs.
    own: Cost,
    rows: BTreeMap<&'static str, Cost>,
}

impl Bench {
    async fn measure(&mut self, what: &'static str, operation: impl Future<Output = ()>) {
        counted(&self.server);
        operation.await;
        let all = counted(&self.server);
        let cost = Cost {
            bytes_in: all.bytes_in.saturating_sub(self.own.bytes_in),
            bytes_out: all.bytes_out.saturating_sub(self.own.bytes_out),
            ..all
        };
        self.rows.insert(what, cost);
    }
}

#[tokio::test]
async fn every_operation_costs_what_the_table_says() {
    let server = Server::start(None, free_port(), &[]);
    let store = connected(unhurried(&server)).await;
    let service = "test/assistant".parse().unwrap();
    let service = &service;
    // Once each, so that the server knows the scripts.
    walk(&store, service, None).await;
    server.command(&["FLUSHALL"]);
    counted(&server);
    let own = counted(&server);
    let mut bench = Bench { server, own, rows: BTreeMap::new() };
    walk(&store, service, Some(&mut bench)).await;

    let table = include_str!("../../../../docs/store.md");
    for (what, cost) in &bench.rows {
        println!("| {what} | {} | {} | {} | {} |", cost.round_trips, cost.commands, cost.bytes_in, cost.bytes_out);
    }
    for (what, cost) in &bench.rows {
        let row = table.lines().find(|line| line.starts_with(&format!("| {what} |")));
        let row = row.unwrap_or_else(|| panic!("docs/store.md has no row for {what}"));
        let cells: Vec<u64> = row.split('|').filter_map(|cell| cell.trim().parse().ok()).collect();
        let [round_trips, commands, bytes_in, bytes_out] = cells[..] else { panic!("{row}") };
        assert_eq!((cost.round_trips, cost.commands), (round_trips, commands), "{what}");
        // Numbers differ in length from run to run.
        let near = |measured: u64, said: u64| measured.abs_diff(said) <= 30 + said / 10;
        assert!(near(cost.bytes_in, bytes_in) && near(cost.bytes_out, bytes_out), "{what}: {cost:?}");
    }
    let rows = &bench.rows;
    assert_eq!(rows["renew, no session"].commands, rows["renew, 50 sessions"].commands, "leases are the workers'");
}

/// Every operation, measured if somebody asks.
async fn walk(store: &RedisStore, service: &streamfleet_session::ServiceName, mut bench: Option<&mut Bench>) {
    macro_rules! cost {
        ($what:literal, $operation:expr) => {{
            let operation = async {
                let _ = $operation.await.unwrap();
            };
            match &mut bench {
                Some(bench) => bench.measure($what, operation).await,
                None => operation.await,
            }
        }};
    }
    cost!("register", store.register(service, &name("a"), Entry::New));
    let epoch = store.register(service, &name("a"), Entry::New).await.unwrap();
    let owner = Owner { worker: name("a"), epoch };
    // The first one opens the gate.
    store.renew(service, &owner, &beat(100)).await.unwrap();
    cost!("renew, no session", store.renew(service, &owner, &beat(100)));
    let claim = request("k3x9a1b2c3", &["a"]);
    cost!("claim", store.claim(service, &claim));
    let detail = object(json!({"transport": "webrtc"}));
    cost!("claim, duplicate", store.claim(service, &request("k3x9a1b2c3", &["a"])));
    cost!("report", store.report(service, &owner, claim.ticket, Phase::Active, &detail));
    let text: std::sync::Arc<str> = format!("\"{}\"", "x".repeat(98)).into();
    let many = vec![text; 21];
    let one = Batch { mark: 7, earlier: &[], first: 1, oldest: 1, texts: &many[..1] };
    cost!("append", store.append(service, &owner, claim.ticket, &one));
    cost!("outputs", store.outputs(service, Whose::Session(&id("k3x9a1b2c3")), None));
    let more = Batch { first: 2, texts: &many[1..], ..one };
    cost!("append, 20", store.append(service, &owner, claim.ticket, &more));
    cost!("enter_call", store.enter_call(service, 7, &id("MZ0123456789abcdef0123456789abcdef")));
    cost!("session_of_call", store.session_of_call(service, 7));
    let contexts = std::sync::Arc::new(store.clone()).contexts(service);
    let document = object(json!({"k": "x".repeat(1000)}));
    cost!("write", contexts.write(claim.context, document.clone(), Expected::Anything));
    cost!("read", contexts.read(claim.context));
    cost!("session", store.session(service, &id("k3x9a1b2c3")));
    cost!("ask", store.ask(service, &id("k3x9a1b2c3"), Some(claim.context), &Demand::End(CloseReason::EndedByControl)));
    let Told::Pending(pending) =
        store.ask(service, &id("k3x9a1b2c3"), None, &Demand::End(CloseReason::EndedByControl)).await.unwrap()
    else {
        panic!("it lives")
    };
    cost!("outcome", store.outcome(service, &pending));
    cost!("end", store.end(service, &owner, claim.ticket, CloseReason::EndedByControl));
    let resumed = with_token("k3x9a1b2c3", &["a"], claim.token);
    cost!("claim, resumed", store.claim(service, &resumed));
    cost!("release", store.release(service, resumed.ticket));
    cost!("reap", store.reap(service));
    for number in 0..50 {
        let claim = request(&format!("session{number:02}"), &["a"]);
        store.claim(service, &claim).await.unwrap();
        store.report(service, &owner, claim.ticket, Phase::Active, &detail).await.unwrap();
    }
    let stays = request("moves", &["a"]);
    store.claim(service, &stays).await.unwrap();
    store.report(service, &owner, stays.ticket, Phase::Active, &detail).await.unwrap();
    let moves = with_token("moves", &["a"], stays.token);
    cost!("claim, moving", store.claim(service, &moves));
    cost!("report, arrived", store.report(service, &owner, moves.ticket, Phase::Active, &detail));
    store.end(service, &owner, stays.ticket, CloseReason::Moved).await.unwrap();
    store.end(service, &owner, moves.ticket, CloseReason::ClientClosed).await.unwrap();
    cost!("renew, 50 sessions", store.renew(service, &owner, &beat(100)));
    cost!("workers", store.workers(service));
    cost!("list", store.list(service, &Filter { limit: 50, ..Filter::default() }));
    cost!("restore", store.restore(service, &owner, &[restored(&request("r1", &[]), Duration::ZERO)]));
    cost!("traffic", store.traffic(service));
    cost!("settling", store.settling(service));
    let waits = Waits { held: 3, refused: 1 };
    cost!("hold", store.hold(service, &"0123456789abcdef".parse().unwrap(), waits));
    cost!("held", store.held());
    cost!("ask_gate", store.ask_gate(service, &name("a"), streamfleet_store::Gate::Draining));
    cost!("leave", store.leave(service, &owner));
}

/// The end of a worker is one step, which nobody else should wait long for: what it costs grows with its sessions and no faster.
#[tokio::test]
async fn the_end_of_the_largest_worker_holds_nobody_up_for_long() {
    let server = Server::start(None, free_port(), &[]);
    let store = connected(unhurried(&server)).await;
    let service = &"test/assistant".parse().unwrap();
    let epoch = store.register(service, &name("a"), Entry::New).await.unwrap();
    let owner = Owner { worker: name("a"), epoch };
    for batch in 0..MAX_CAPACITY / MAX_BATCH as u32 {
        let sessions: Vec<_> = (0..MAX_BATCH)
            .map(|number| restored(&request(&format!("s{batch}-{number}"), &[]), Duration::ZERO))
            .collect();
        store.restore(service, &owner, &sessions).await.unwrap();
        store.renew(service, &owner, &beat(MAX_CAPACITY)).await.unwrap();
    }
    counted(&server);
    store.leave(service, &owner).await.unwrap();
    // Commands and not time: a machine that is busy with other tests is slow at everything.
    let each = counted(&server).commands / u64::from(MAX_CAPACITY);
    assert!(each <= 25, "{each} commands a session");
}
