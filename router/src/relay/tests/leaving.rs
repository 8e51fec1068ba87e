//! A relay that is to leave.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use tokio::time::timeout;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_still_come_are_waited_for() {
    let (worker, metrics) = (socket(), Metrics::new("test", "0"));
    let plan = plan(([127, 0, 0, 1], 0).into(), &[], 0);
    let relay = Relay::bind(plan, &Minted(worker.local_addr().unwrap()), &metrics).await.unwrap();
    let (door, traffic, mut running) = (relay.door(), relay.traffic(), tokio::task::JoinSet::new());
    running.spawn(relay.run());
    let is_over = Arc::new(AtomicBool::new(false));
    let over = is_over.clone();
    let talks = thread::spawn(move || {
        let client = socket();
        client.connect(door).unwrap();
        client.send(&check("12345678")).unwrap();
        let (came, from) = receive(&worker);
        answer(&worker, &came, from, Standing::Confirmed, b"\x01\x01");
        while !over.load(Relaxed) {
            client.send(&[128; 200]).unwrap();
            thread::sleep(Duration::from_millis(20));
        }
    });
    let mut gone = pin!(traffic.has_gone());
    assert!(timeout(Duration::from_secs(3), &mut gone).await.is_err(), "one talks");
    is_over.store(true, Relaxed);
    talks.join().unwrap();
    timeout(SOON, gone).await.expect("nobody talks");
    drop(running);
}
