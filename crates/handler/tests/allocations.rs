//! A frame that goes through a link costs no allocation once the queues have grown and the pool is filled.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use streamfleet_handler::{AudioFrame, Emit, Input, LinkConfig, PcmFormat, Pushed, link};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counting the calls of each thread.
struct Counting;

// SAFETY: every call is passed on to `System` as it is; counting touches a thread-local integer only, which neither
// allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps `GlobalAlloc::alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps `GlobalAlloc::dealloc`'s contract, and the memory came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps `GlobalAlloc::realloc`'s contract, and the memory came from `System`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

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
    let before = ALLOCATIONS.get();
    let began = Instant::now();
    (0..ROUNDS).for_each(|_| round());
    let each = began.elapsed() / ROUNDS;
    assert_eq!(ALLOCATIONS.get() - before, 0);
    println!("{each:?} for buffer, push, recv, send, pop and recycle of one frame");
}
