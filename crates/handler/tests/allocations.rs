//! A frame that goes through a link costs no allocation once the queues have grown and the pool is filled.

use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use streamfleet_counting::{Counting, calls};
use streamfleet_handler::{AudioFrame, Emit, Input, LinkConfig, PcmFormat, Pushed, link};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("nothing to wait for"),
    }
}

#[test]
fn a_frame_there_and_back_allocates_nothing() {
    const ROUNDS: u32 = 100_000;
    let (media, task) = link(LinkConfig::default(), Arc::new(|| ()));
    let format = PcmFormat::mono(24_000);
    let round = || {
        let mut samples = media.buffer();
        samples.resize(480, 1);
        let frame = AudioFrame { samples, format, timestamp: Duration::ZERO };
        assert_eq!(media.push(Input::Audio(frame)), Pushed::Queued);
        let Some(Input::Audio(frame)) = now(task.recv()) else { panic!("an input") };
        now(task.send(Emit::Audio(frame))).unwrap();
        let Some(Emit::Audio(frame)) = media.pop() else { panic!("an echo") };
        media.recycle(black_box(frame.samples));
    };
    (0..100).for_each(|_| round());
    let before = calls();
    let began = Instant::now();
    (0..ROUNDS).for_each(|_| round());
    let each = began.elapsed() / ROUNDS;
    assert_eq!(calls() - before, 0);
    println!("{each:?} for buffer, push, recv, send, pop and recycle of one frame");
}
