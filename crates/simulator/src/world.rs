//! Pods, sessions and a router, event by event. What is decided is decided by a [`Keeper`].

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use streamfleet_placement::{Key, Packing, Policy, Seed, Worker as Seat, first};

use crate::load::{Load, Session};
use crate::outcome::{Outcome, Tally};

/// What both sides of a comparison have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// Sessions that one pod takes.
    pub capacity: u32,
    /// How long a pod takes from its creation until it serves.
    pub start: Duration,
    /// Pods that there are at least, and at the beginning.
    pub min: u32,
    /// Pods that serve at most.
    pub max: u32,
    /// How long a router holds an offer that it has no place for.
    pub hold: Duration,
    /// When it holds one at all.
    pub holding: Holding,
}

/// When a router holds an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holding {
    /// While no pod serves; with full ones it refuses at once.
    NoneServes,
    /// Also while all that serve are full, and fewer than may.
    NoPlace,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            capacity: 20,
            start: Duration::from_secs(30),
            min: 1,
            max: 1_000,
            hold: Duration::from_secs(20),
            holding: Holding::NoPlace,
        }
    }
}

/// Offers that a router holds for one service.
const MAX_HELD: usize = 256;

/// Who decides how many pods there are.
pub(crate) trait Keeper {
    /// How often it looks, in milliseconds.
    fn interval(&self) -> u64;
    /// Where sessions go.
    fn packing(&self) -> Packing;
    /// Looks, and does what it decides.
    fn look(&mut self, world: &mut World<'_>);
}

/// Where a pod is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Starting,
    Serving,
    Draining,
    /// Its process ends as soon as it is empty.
    Ending,
    Gone,
}

/// A pod.
#[derive(Debug, Clone)]
pub(crate) struct Pod {
    pub(crate) way: Way,
    /// When it was created, when it came to serve, when its way last changed: milliseconds.
    pub(crate) created: u64,
    pub(crate) ready: Option<u64>,
    pub(crate) since: u64,
    pub(crate) sessions: u32,
    /// Its index among the router's seats.
    seat: usize,
    /// Its index among the pods that are not gone.
    place: usize,
}

/// Everything that happens.
pub(crate) struct World<'l> {
    pub(crate) setup: &'l Setup,
    pub(crate) now: u64,
    pods: Vec<Pod>,
    /// Those that are not gone.
    alive: Vec<u32>,
    /// What the router chooses from, and whose each is.
    seats: Vec<Seat>,
    seated: Vec<u32>,
    policy: Policy,
    ends: BinaryHeap<Reverse<(u64, u32)>>,
    starts: BinaryHeap<Reverse<(u64, u32)>>,
    deadlines: BinaryHeap<Reverse<(u64, u32)>>,
    held: VecDeque<(u64, Session)>,
    placed: u64,
    pub(crate) tally: Tally,
}

/// Plays a load.
pub(crate) fn play(setup: &Setup, load: &Load, keeper: &mut impl Keeper) -> Outcome {
    let mut world = World::new(setup, keeper.packing());
    let mut sessions = load.sessions().iter().copied().peekable();
    let mut look = 0;
    loop {
        let arrival = sessions.peek().map(|session| session.start);
        let next = [arrival, Some(look), world.next()].into_iter().flatten().min().unwrap_or(look);
        if next >= load.until() {
            break;
        }
        world.pass(next);
        world.happen();
        if let Some(session) = sessions.next_if(|session| session.start <= next) {
            world.offer(session);
        }
        if look <= next {
            keeper.look(&mut world);
            world.sample();
            look += keeper.interval();
        }
    }
    world.pass(load.until());
    world.tally.outcome(load)
}

impl<'l> World<'l> {
    fn new(setup: &'l Setup, packing: Packing) -> Self {
        let mut world = Self {
            setup,
            now: 0,
            pods: Vec::new(),
            alive: Vec::new(),
            seats: Vec::new(),
            seated: Vec::new(),
            policy: Policy { packing, ..Policy::default() },
            ends: BinaryHeap::new(),
            starts: BinaryHeap::new(),
            deadlines: BinaryHeap::new(),
            held: VecDeque::new(),
            placed: 0,
            tally: Tally::default(),
        };
        for _ in 0..setup.min {
            let pod = world.create();
            world.serve(pod);
        }
        world.starts.clear();
        world
    }

    /// The pods that are not gone.
    pub(crate) fn alive(&self) -> impl Iterator<Item = (u32, &Pod)> {
        self.alive.iter().map(|pod| (*pod, &self.pods[*pod as usize]))
    }

    pub(crate) fn held(&self) -> u32 {
        u32::try_from(self.held.len()).unwrap_or(u32::MAX)
    }

    /// Makes a pod, which will serve when it has started.
    pub(crate) fn create(&mut self) -> u32 {
        let id = u32::try_from(self.pods.len()).expect("nobody makes four billion pods in a simulation");
        let place = self.alive.len();
        self.pods.push(Pod {
            way: Way::Starting,
            created: self.now,
            ready: None,
            since: self.now,
            sessions: 0,
            seat: 0,
            place,
        });
        self.alive.push(id);
        self.starts.push(Reverse((self.now + millis(self.setup.start), id)));
        self.tally.pods.change(1);
        id
    }

    /// Has a pod take sessions, for the first time or again.
    pub(crate) fn serve(&mut self, id: u32) {
        let (now, seat) = (self.now, self.seats.len());
        let pod = &mut self.pods[id as usize];
        if matches!(pod.way, Way::Serving | Way::Ending | Way::Gone) {
            return;
        }
        pod.way = Way::Serving;
        pod.ready.get_or_insert(now);
        pod.since = now;
        pod.seat = seat;
        self.seats.push(Seat {
            seed: Seed::of(&format!("pod-{id}")),
            active: pod.sessions,
            capacity: self.setup.capacity,
        });
        self.seated.push(id);
        self.tally.capacity.change(i64::from(self.setup.capacity));
        self.answer();
    }

    /// Has a pod take no more sessions.
    pub(crate) fn drain(&mut self, id: u32) {
        self.leave_seat(id);
        let pod = &mut self.pods[id as usize];
        if matches!(pod.way, Way::Serving | Way::Starting) {
            pod.way = Way::Draining;
            pod.since = self.now;
        }
    }

    /// Tells a pod to end: it drains, and after `grace` its sessions are killed.
    pub(crate) fn end(&mut self, id: u32, grace: Duration) {
        self.leave_seat(id);
        let pod = &mut self.pods[id as usize];
        pod.way = Way::Ending;
        if pod.sessions == 0 {
            self.remove(id);
        } else {
            self.deadlines.push(Reverse((self.now + millis(grace), id)));
        }
    }

    /// Takes a pod away. Sessions that it still has are killed.
    pub(crate) fn remove(&mut self, id: u32) {
        self.leave_seat(id);
        let pod = &mut self.pods[id as usize];
        if pod.way == Way::Gone {
            return;
        }
        pod.way = Way::Gone;
        self.tally.killed += u64::from(pod.sessions);
        self.tally.sessions.change(-i64::from(pod.sessions));
        self.tally.departed += u64::from(pod.sessions);
        pod.sessions = 0;
        let place = pod.place;
        self.alive.swap_remove(place);
        if let Some(moved) = self.alive.get(place) {
            self.pods[*moved as usize].place = place;
        }
        self.tally.pods.change(-1);
    }

    fn leave_seat(&mut self, id: u32) {
        let pod = &self.pods[id as usize];
        if pod.way != Way::Serving {
            return;
        }
        let seat = pod.seat;
        self.seats.swap_remove(seat);
        self.seated.swap_remove(seat);
        if let Some(moved) = self.seated.get(seat) {
            self.pods[*moved as usize].seat = seat;
        }
        self.tally.capacity.change(-i64::from(self.setup.capacity));
    }

    /// The next moment at which something happens by itself.
    fn next(&self) -> Option<u64> {
        let ends = self.ends.peek().map(|Reverse((at, _))| *at);
        let starts = self.starts.peek().map(|Reverse((at, _))| *at);
        let deadlines = self.deadlines.peek().map(|Reverse((at, _))| *at);
        let patience = self.held.front().map(|(until, _)| *until);
        [ends, starts, deadlines, patience].into_iter().flatten().min()
    }

    fn pass(&mut self, now: u64) {
        self.tally.pass(now - self.now);
        self.now = now;
    }

    /// What happens by itself now: sessions end before pods are judged.
    fn happen(&mut self) {
        while let Some(id) = due(&mut self.ends, self.now) {
            let pod = &mut self.pods[id as usize];
            if pod.way == Way::Gone {
                continue;
            }
            pod.sessions -= 1;
            self.tally.departed += 1;
            self.tally.sessions.change(-1);
            match pod.way {
                Way::Serving => {
                    self.seats[pod.seat].active -= 1;
                    self.answer();
                }
                Way::Ending if pod.sessions == 0 => self.remove(id),
                _ => {}
            }
        }
        while let Some(id) = due(&mut self.deadlines, self.now) {
            self.remove(id);
        }
        while let Some(id) = due(&mut self.starts, self.now) {
            if self.pods[id as usize].way == Way::Starting {
                self.serve(id);
            }
        }
        // Who is left over has found no place: he is refused when his time is over, or nothing comes that he could wait for.
        let may_wait = self.may_wait();
        while self.held.front().is_some_and(|(until, _)| !may_wait || *until <= self.now) {
            self.held.pop_front();
            self.tally.refused += 1;
        }
    }

    /// Whether an offer without a place is held.
    fn may_wait(&self) -> bool {
        match self.setup.holding {
            Holding::NoneServes => self.seats.is_empty(),
            Holding::NoPlace => self.seats.len() < self.setup.max as usize,
        }
    }

    /// A session is asked for.
    fn offer(&mut self, session: Session) {
        if self.place(session) {
            return;
        }
        if self.may_wait() && self.held.len() < MAX_HELD && !self.setup.hold.is_zero() {
            self.held.push_back((self.now + millis(self.setup.hold), session));
            self.tally.held += 1;
        } else {
            self.tally.refused += 1;
        }
    }

    /// Gives those who wait a place, while there is one.
    fn answer(&mut self) {
        while let Some((_, session)) = self.held.front().copied() {
            if !self.place(session) {
                break;
            }
            self.held.pop_front();
            self.tally.waits.push(self.now - session.start);
        }
    }

    fn place(&mut self, session: Session) -> bool {
        self.placed += 1;
        let Some(seat) = first(Key::of(&self.placed.to_string()), &self.seats, &self.policy) else { return false };
        self.seats[seat].active += 1;
        let id = self.seated[seat];
        self.pods[id as usize].sessions += 1;
        self.ends.push(Reverse((self.now + session.duration, id)));
        self.tally.arrived += 1;
        self.tally.sessions.change(1);
        true
    }

    fn sample(&mut self) {
        self.tally.sample(self.now);
    }
}

/// Takes what is due.
fn due(heap: &mut BinaryHeap<Reverse<(u64, u32)>>, now: u64) -> Option<u32> {
    let Reverse((at, _)) = heap.peek()?;
    if *at > now {
        return None;
    }
    heap.pop().map(|Reverse((_, id))| id)
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
