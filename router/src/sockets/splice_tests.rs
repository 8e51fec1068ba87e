use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};
use tokio::join;

use super::*;

const TEXT: &[u8] = b"\x81\x02ab";
const CLOSE: &[u8] = b"\x88\x02\x03\xe8";

/// The far ends of a pair that is spliced, and the pair.
struct Scene {
    client: DuplexStream,
    worker: DuplexStream,
    octets: Octets,
    stop: CancellationToken,
    near: (DuplexStream, DuplexStream),
}

fn scene(buffer: usize) -> Scene {
    let ((client, near_client), (worker, near_worker)) = (duplex(buffer), duplex(buffer));
    let (octets, stop) = (Octets::default(), CancellationToken::new());
    Scene { client, worker, octets, stop, near: (near_client, near_worker) }
}

async fn all(stream: &mut DuplexStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    bytes
}

#[tokio::test(start_paused = true)]
async fn bytes_go_both_ways_and_the_first_come_first() {
    let Scene { mut client, mut worker, octets, stop, near } = scene(64);
    let first: Vec<u8> = [0x82, 126, 0, 200].into_iter().chain((0..200).map(|n| n as u8)).collect();
    let ends = async {
        client.write_all(TEXT).await.unwrap();
        let mut heard = vec![0; first.len() + TEXT.len()];
        worker.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, [&first[..], TEXT].concat());
        worker.write_all(TEXT).await.unwrap();
        worker.write_all(CLOSE).await.unwrap();
        drop(worker);
        assert_eq!(all(&mut client).await, [TEXT, CLOSE].concat());
    };
    let (parted, ()) = join!(splice(near.0, near.1, first.clone(), &stop, &octets), ends);
    assert_eq!(parted, Parted::Worker);
    assert_eq!(octets.read(), ((first.len() + TEXT.len()) as u64, (TEXT.len() + CLOSE.len()) as u64));
}

/// What the client is told last when its worker goes after having said this, and how it ended.
async fn after(said: &'static [u8]) -> (Vec<u8>, Parted) {
    let Scene { mut client, mut worker, octets, stop, near } = scene(1 << 10);
    let ends = async {
        worker.write_all(said).await.unwrap();
        drop(worker);
        all(&mut client).await
    };
    let (parted, heard) = join!(splice(near.0, near.1, Vec::new(), &stop, &octets), ends);
    assert_eq!(&heard[..said.len()], said);
    (heard[said.len()..].to_vec(), parted)
}

#[tokio::test(start_paused = true)]
async fn a_client_hears_that_its_worker_is_gone() {
    let lost = b"\x88\x0d\x03\xf3worker_lost".to_vec();
    assert_eq!(after(b"").await, (lost.clone(), Parted::WorkerLost));
    assert_eq!(after(TEXT).await, (lost, Parted::WorkerLost));
    // In the middle of a frame nothing else can be said.
    assert_eq!(after(b"\x81\x7e\x01").await, (Vec::new(), Parted::WorkerLost));
    assert_eq!(after(b"\x81\x02a").await, (Vec::new(), Parted::WorkerLost));
    // Nor after the end.
    assert_eq!(after(CLOSE).await, (Vec::new(), Parted::Worker));
}

#[tokio::test(start_paused = true)]
async fn the_last_words_of_either_side_arrive() {
    let Scene { mut client, mut worker, octets, stop, near } = scene(1 << 10);
    let ends = async {
        // A client that closes its side at once still hears the answer.
        client.write_all(b"\x88\x82\0\0\0\0\x03\xe8").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(all(&mut worker).await.len(), 8);
        worker.write_all(CLOSE).await.unwrap();
        drop(worker);
        assert_eq!(all(&mut client).await, CLOSE);
    };
    let (parted, ()) = join!(splice(near.0, near.1, Vec::new(), &stop, &octets), ends);
    assert_eq!(parted, Parted::Client);
    let Scene { mut client, mut worker, octets, stop, near } = scene(1 << 10);
    let ends = async move {
        worker.write_all(CLOSE).await.unwrap();
        let mut heard = [0; CLOSE.len()];
        client.read_exact(&mut heard).await.unwrap();
        client.write_all(b"\x88\x82\0\0\0\0\x03\xe8").await.unwrap();
        worker.read_exact(&mut [0; 8]).await.unwrap();
        drop((client, worker));
    };
    let (parted, ()) = join!(splice(near.0, near.1, Vec::new(), &stop, &octets), ends);
    assert_eq!(parted, Parted::Worker, "its client has answered");
    let Scene { client, mut worker, octets, stop, near } = scene(1 << 10);
    let ends = async {
        drop(client);
        assert_eq!(all(&mut worker).await, b"", "the worker hears that nobody is there");
    };
    let (parted, ()) = join!(splice(near.0, near.1, Vec::new(), &stop, &octets), ends);
    assert_eq!(parted, Parted::ClientLost);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_stops_sends_clients_elsewhere() {
    let Scene { mut client, mut worker, octets, stop, near } = scene(1 << 10);
    let ends = async {
        worker.write_all(b"\x81\x02a").await.unwrap();
        sleep(Duration::from_millis(100)).await;
        stop.cancel();
        // The frame that is under way is whole first.
        sleep(Duration::from_millis(100)).await;
        worker.write_all(b"b").await.unwrap();
        all(&mut client).await
    };
    let (parted, heard) = join!(splice(near.0, near.1, Vec::new(), &stop, &octets), ends);
    assert_eq!((&heard[..], parted), (&b"\x81\x02ab\x88\x11\x03\xf4service_restart"[..], Parted::Restart));
    let Scene { mut client, mut worker, octets, stop, near } = scene(1 << 10);
    let ends = async {
        worker.write_all(b"\x81\x02a").await.unwrap();
        sleep(Duration::from_millis(100)).await;
        stop.cancel();
        all(&mut client).await
    };
    let (parted, heard) = join!(splice(near.0, near.1, Vec::new(), &stop, &octets), ends);
    assert_eq!((&heard[..], parted), (&b"\x81\x02a"[..], Parted::Restart), "one that is never whole is not waited for");
}

#[tokio::test(start_paused = true)]
async fn who_takes_nothing_is_given_up() {
    let Scene { client, mut worker, octets, stop, near } = scene(64);
    let flood = async {
        let sent = worker.write_all(&b"\x82\x03abc".repeat(100_000)).await;
        assert!(sent.is_err(), "it is not read without end");
    };
    let began = now();
    let (parted, ()) = join!(splice(near.0, near.1, Vec::new(), &stop, &octets), flood);
    let took = now() - began;
    assert_eq!(parted, Parted::ClientStalled);
    assert!((STALLED..STALLED + 2 * LOOK).contains(&took), "{took:?}");
    assert!(octets.read().1 <= 64);
    drop(client);

    let Scene { mut client, worker, octets, stop, near } = scene(64);
    let talk = async {
        let _ = client.write_all(&b"\x82\x83\0\0\0\0abc".repeat(100)).await;
        all(&mut client).await
    };
    let (parted, heard) = join!(splice(near.0, near.1, Vec::new(), &stop, &octets), talk);
    assert_eq!((parted, &heard[4..]), (Parted::WorkerLost, &b"worker_lost"[..]));
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn a_pair_at_rest_is_no_pair() {
    let Scene { mut client, worker, octets, stop, near } = scene(64);
    let began = now();
    let (parted, heard) = join!(splice(near.0, near.1, Vec::new(), &stop, &octets), all(&mut client));
    let took = now() - began;
    assert_eq!((parted, &heard[4..]), (Parted::WorkerLost, &b"worker_lost"[..]));
    assert!((IDLE..IDLE + 2 * LOOK).contains(&took), "{took:?}");
    drop(worker);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever the sides write, in whatever pieces, and however little the pipes take: all of it arrives, in order.
    #[test]
    fn nothing_is_lost(seed in any::<u64>(), buffer in 1..300_usize, up in 0..20_000_usize, down in 0..20_000_usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (sent, heard) = runtime.block_on(async {
            let Scene { client, worker, octets, stop, near } = scene(buffer);
            let mut random = StdRng::seed_from_u64(seed);
            let mut bytes = |count| -> Vec<u8> { (0..count).map(|_| rand::Rng::random(&mut random)).collect() };
            // Frames as far as the splice looks: one for each direction, and the end after the worker's.
            let frame = |payload: Vec<u8>| {
                [&[0x82, 127][..], &(payload.len() as u64).to_be_bytes(), &payload].concat()
            };
            let (up, down) = (frame(bytes(up)), [frame(bytes(down)), CLOSE.to_vec()].concat());
            let (mut client_read, mut client_write) = tokio::io::split(client);
            let (mut worker_read, mut worker_write) = tokio::io::split(worker);
            let mut random = StdRng::seed_from_u64(seed ^ 1);
            let cuts: Vec<usize> = (0..64).map(|_| *[1, 7, 100, 5000].choose(&mut random).unwrap()).collect();
            let say = async |write: &mut tokio::io::WriteHalf<DuplexStream>, bytes: &[u8]| {
                let (mut at, mut cuts) = (0, cuts.iter().cycle());
                while at < bytes.len() {
                    let end = (at + cuts.next().unwrap()).min(bytes.len());
                    write.write_all(&bytes[at..end]).await.unwrap();
                    at = end;
                }
            };
            let (mut above, mut below) = (vec![0; up.len()], vec![0; down.len()]);
            let talk = async {
                let (.., above_read, below_read) = join!(
                    say(&mut client_write, &up),
                    say(&mut worker_write, &down),
                    worker_read.read_exact(&mut above),
                    client_read.read_exact(&mut below),
                );
                above_read.and(below_read).unwrap();
                drop((worker_read, worker_write, client_read, client_write));
            };
            let (_, ()) = join!(splice(near.0, near.1, Vec::new(), &stop, &octets), talk);
            ((up, down), (above, below))
        });
        prop_assert_eq!(sent, heard);
    }
}
