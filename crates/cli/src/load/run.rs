//! The sockets and the clock: sets up sessions, carries their datagrams, measures, takes them down.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{IsTerminal as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use streamfleet_client::{ServiceUrl, random_id};
use streamfleet_net::demux::{Kind, classify};
use streamfleet_net::{
    Offload, Outbox, RecvBatch, SocketOptions, SocketSet, UdpSocket, raise_descriptor_limit, set_timer_slack,
    thread_cpu_time,
};
use streamfleet_rtp::rtcp::WallClock;

use super::arguments::{Args, Carrier, Output, Plan};
use super::clip::Clip;
use super::media::{Phase, Tally, Voice};
use super::peer::Factory;
use super::probe::Probe;
use super::report::{Report, Run};
use super::session::{Change, Failure, Session, Turn};
use super::signal::Signaling;
use super::sockets;
use super::table::{HEADINGS, Progress};

/// After the last session has begun: what is not connected by then is measured as not connected.
pub(super) const RAMP_GRACE: Duration = Duration::from_secs(20);
/// Between the last connection and measuring: the server's and our own buffers settle.
pub(super) const SETTLE: Duration = Duration::from_secs(1);
/// After measuring: what is under way may still come.
pub(super) const DRAIN: Duration = Duration::from_secs(1);
/// How often the table gets a line.
pub(super) const REDRAW: Duration = Duration::from_secs(1);
/// How often replies are looked for while some are to come.
const REPLY_TICK: Duration = Duration::from_millis(2);
/// The kernel's buffers of each socket: a session's packets of a second.
const BUFFER: usize = 64 << 10;
/// Descriptors for everything that is not a session's socket.
const OTHER_DESCRIPTORS: u64 = 64;

/// Runs the command.
pub(crate) fn run(args: &Args) -> ExitCode {
    let result = args.plan().and_then(|plan| {
        let report = measure(&plan)?;
        print(&plan.output, &report)?;
        Ok(report.status())
    });
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            // Nothing can be done about a closed output.
            let _ = writeln!(std::io::stderr(), "streamfleet load: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn print(output: &Output, report: &Report) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match output {
        Output::Text => writeln!(out, "{report}")?,
        Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(report)?)?,
        Output::Both(path) => {
            writeln!(out, "{report}")?;
            let json = serde_json::to_string_pretty(report)?;
            std::fs::write(path, json + "\n").with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(())
}

/// Does what is planned, on the calling thread.
fn measure(plan: &Plan) -> anyhow::Result<Report> {
    let limit = raise_descriptor_limit().context("the limit of open files cannot be read")?;
    let most = limit.saturating_sub(OTHER_DESCRIPTORS);
    anyhow::ensure!(plan.sessions as u64 <= most, "the limit of open files allows {most} sessions; raise `ulimit -n`");
    // Packets are timed by the millisecond. Where a sandbox forbids this they are 50 µs later.
    let _ = set_timer_slack(Duration::from_micros(10));
    match plan.carrier {
        Carrier::Socket(rates) => sockets::measure(plan, rates),
        Carrier::WebRtc => {
            let mut load = Load::new(plan)?;
            load.run()?;
            Ok(load.report())
        }
    }
}

/// A session and its socket.
struct Line {
    session: Session,
    /// `None` once the session is over.
    socket: Option<UdpSocket>,
    connected: Connected,
    deadline: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Connected {
    No,
    /// The kernel knows the only peer.
    Yes,
}

struct Load<'a> {
    plan: &'a Plan,
    factory: Factory,
    speech: Rc<Clip>,
    bursts: Rc<Clip>,
    own_delay: Duration,
    signaling: Signaling,
    local: SocketAddr,
    set: SocketSet,
    batch: RecvBatch,
    lines: Vec<Line>,
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    tally: Tally,
    out: Outbox,
    clock: WallClock,
    next_session: Instant,
    /// When the phase ends at the latest.
    phase_end: Instant,
    measured: Window,
    /// The figures of [`Run`] as they are found.
    result: Run,
    send_errors: u64,
    screen: Screen,
}

/// When measuring began, and what had been used and received by then.
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub(super) at: Instant,
    pub(super) cpu: Duration,
    pub(super) received: u64,
}

impl Window {
    pub(super) fn open(tally: &Tally, now: Instant) -> Self {
        Self { at: now, cpu: thread_cpu_time(), received: tally.received }
    }
}

impl<'a> Load<'a> {
    fn new(plan: &'a Plan) -> anyhow::Result<Self> {
        let bursts = Clip::bursts()?;
        let own_delay = Probe::calibrate(&bursts)?;
        let now = Instant::now();
        let tally = Tally::default();
        let measured = Window::open(&tally, now);
        Ok(Self {
            factory: Factory::new(&plan.profiles)?,
            speech: Rc::new(Clip::speech()?),
            bursts: Rc::new(bursts),
            own_delay,
            signaling: Signaling::start(plan.service.clone(), plan.sessions)?,
            local: local_address(&plan.service.url)?,
            set: SocketSet::new()?,
            batch: RecvBatch::new(Offload::Off),
            lines: Vec::with_capacity(plan.sessions),
            timers: BinaryHeap::with_capacity(plan.sessions * 2),
            tally,
            out: Outbox::new(),
            clock: WallClock::new(now, SystemTime::now()),
            next_session: now,
            phase_end: now + plan.spacing * plan.sessions as u32 + RAMP_GRACE,
            measured,
            result: Run { url: plan.service.url.to_string(), ..Run::default() },
            send_errors: 0,
            screen: Screen::new(&plan.output, now, measured),
            plan,
        })
    }

    fn run(&mut self) -> anyhow::Result<()> {
        let mut ready = Vec::new();
        let mut now = Instant::now();
        while self.phase(now) {
            while self.next_session <= now && self.lines.len() < self.plan.sessions && self.tally.phase == Phase::Ramp {
                self.begin(now)?;
                self.next_session += self.plan.spacing;
                now = Instant::now();
            }
            while let Some(reply) = self.signaling.poll() {
                self.turn(reply.session, now, |session, turn| session.answer(reply.answer, reply.at, turn));
            }
            while let Some(Reverse((at, id))) = self.timers.peek().copied().filter(|Reverse((at, _))| *at <= now) {
                self.timers.pop();
                if self.lines[id].deadline == Some(at) {
                    self.lines[id].deadline = None;
                    self.turn(id, now, Session::handle_timeout);
                }
            }
            self.screen.draw(now, &self.tally, self.counts());
            self.set.wait(self.patience(Instant::now()), &mut ready)?;
            for token in &ready {
                self.receive(*token as usize);
            }
            now = Instant::now();
        }
        self.close(now);
        Ok(())
    }

    /// Makes the next session and posts its offer.
    fn begin(&mut self, now: Instant) -> anyhow::Result<()> {
        let id = self.lines.len();
        let options =
            SocketOptions { recv_buffer: BUFFER, send_buffer: BUFFER, gso: Offload::Off, ..SocketOptions::default() };
        let any = if self.local.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind(SocketAddr::new(any, 0), options).context("no socket for another session")?;
        self.set.add(&socket, id as u64)?;
        let mut random = [0; 8];
        self.factory.provider().random().fill(&mut random)?;
        let [s0, s1, s2, s3, seed @ ..] = random;
        let voice = Voice {
            ssrc: u32::from_be_bytes([s0, s1, s2, s3]),
            clip: Rc::clone(if self.plan.is_probe(id) { &self.bursts } else { &self.speech }),
            probe: if self.plan.is_probe(id) { Some(Box::new(Probe::new(self.own_delay)?)) } else { None },
        };
        let local = SocketAddr::new(self.local.ip(), socket.local_addr().port());
        let (session, offer) = Session::new(&self.factory, local, voice, u32::from_be_bytes(seed), self.clock, now)?;
        self.lines.push(Line { session, socket: Some(socket), connected: Connected::No, deadline: None });
        self.signaling.post(id, random_id(), offer);
        Ok(())
    }

    /// Lets something happen to a session, and does what it wants done.
    fn turn(&mut self, id: usize, now: Instant, happen: impl FnOnce(&mut Session, &mut Turn<'_>)) {
        let Some(line) = self.lines.get_mut(id) else { return };
        let mut turn = Turn { now, factory: &self.factory, tally: &mut self.tally, out: &mut self.out };
        happen(&mut line.session, &mut turn);
        self.send_errors += line.transmit(&mut self.out);
        match line.session.poll_change() {
            // Where the kernel refuses, sends take a little longer.
            Some(Change::Connected(remote)) if line.connect(remote).is_ok() => line.connected = Connected::Yes,
            Some(Change::Connected(_)) | None => {}
            Some(Change::Failed) => {
                line.session.close(now, &mut self.out);
                line.transmit(&mut self.out);
                line.socket = None;
            }
        }
        let deadline = line.session.poll_timeout(now);
        if deadline != line.deadline {
            line.deadline = deadline;
            self.timers.extend(deadline.map(|at| Reverse((at, id))));
        }
    }

    /// Takes what has come for a session.
    fn receive(&mut self, id: usize) {
        let Some(socket) = self.lines.get(id).and_then(|line| line.socket.clone()) else { return };
        let count = match self.batch.recv(&socket) {
            Ok(count) => count,
            Err(error) => {
                let failure = Failure::Broken(error.to_string());
                self.turn(id, Instant::now(), |session, _| session.abort(failure));
                return;
            }
        };
        let now = Instant::now();
        for i in 0..count {
            let (datagram, from) = self.batch.datagram(i);
            if classify(datagram) == Kind::Rtp {
                // Nearly all of them; they change no timer and cause nothing to be sent.
                let mut turn = Turn { now, factory: &self.factory, tally: &mut self.tally, out: &mut self.out };
                self.lines[id].session.handle_datagram(from, datagram, &mut turn);
            } else {
                let mut datagram = datagram.to_vec();
                self.turn(id, now, |session, turn| session.handle_datagram(from, &mut datagram, turn));
            }
        }
    }

    /// Sessions that are active, and that failed.
    fn counts(&self) -> (usize, usize) {
        let count = |is: fn(&Session) -> bool| self.lines.iter().filter(|line| is(&line.session)).count();
        (count(Session::is_active), count(Session::is_over))
    }

    /// How long there is nothing to do.
    fn patience(&self, now: Instant) -> Duration {
        let mut until = self.phase_end.min(self.screen.next);
        if let Some(Reverse((at, _))) = self.timers.peek() {
            until = until.min(*at);
        }
        if self.lines.len() < self.plan.sessions && self.tally.phase == Phase::Ramp {
            until = until.min(self.next_session);
        }
        if self.signaling.outstanding() > 0 {
            until = until.min(now + REPLY_TICK);
        }
        until.saturating_duration_since(now)
    }

    /// Goes on to the next phase where it is time; false after the last.
    fn phase(&mut self, now: Instant) -> bool {
        if self.signaling.is_interrupted() && self.tally.phase != Phase::Drain {
            self.phase_end = now;
        }
        match self.tally.phase {
            Phase::Ramp => {
                let begun = self.lines.len() == self.plan.sessions;
                let decided = |line: &Line| line.session.is_active() || line.session.is_over();
                if begun && self.phase_end > now + SETTLE && self.lines.iter().all(decided) {
                    self.phase_end = now + SETTLE;
                }
                if begun && self.lines.iter().all(|line| line.session.is_over()) {
                    return false;
                }
                if now >= self.phase_end {
                    self.tally.phase = Phase::Measure;
                    self.measured = Window::open(&self.tally, now);
                    self.phase_end = now + self.plan.measure;
                }
            }
            Phase::Measure if now >= self.phase_end => {
                let end = Window::open(&self.tally, now);
                self.result.measured = end.at - self.measured.at;
                self.result.cpu = end.cpu.saturating_sub(self.measured.cpu);
                self.result.received = end.received - self.measured.received;
                self.tally.phase = Phase::Drain;
                self.phase_end = now + DRAIN;
            }
            Phase::Drain => return now < self.phase_end,
            Phase::Measure => {}
        }
        true
    }

    /// Says goodbye everywhere.
    fn close(&mut self, now: Instant) {
        for line in &mut self.lines {
            line.session.close(now, &mut self.out);
            line.transmit(&mut self.out);
        }
    }

    fn report(self) -> Report {
        let end = self.measured.at + self.result.measured;
        let outcome = |line: &Line| (line.session.setup(), line.session.outcome(end));
        let outcomes: Vec<_> = self.lines.iter().map(outcome).collect();
        let run = Run { send_errors: self.send_errors, ..self.result };
        Report::new(run, &outcomes, &self.tally).planned(self.plan, &outcomes)
    }
}

impl Line {
    fn connect(&self, remote: SocketAddr) -> std::io::Result<()> {
        self.socket.as_ref().map_or(Ok(()), |socket| socket.connect(remote))
    }

    /// Sends what is in `out`; returns how many datagrams the kernel did not take.
    fn transmit(&self, out: &mut Outbox) -> u64 {
        let mut errors = 0;
        if let Some(socket) = &self.socket {
            for (to, datagram) in out.iter() {
                let sent = match self.connected {
                    // The first error may be about an earlier datagram.
                    Connected::Yes => socket.send(datagram).or_else(|_| socket.send(datagram)),
                    Connected::No => socket.send_to(datagram, to),
                };
                // Before there is a connection, checks go to addresses that cannot be reached.
                errors += u64::from(sent.is_err() && self.connected == Connected::Yes);
            }
        }
        out.clear();
        errors
    }
}

/// The address that this machine has towards the server: what a host candidate says.
fn local_address(url: &ServiceUrl) -> anyhow::Result<SocketAddr> {
    let (host, port) = url.authority();
    let mut addresses = (host.as_str(), port).to_socket_addrs().with_context(|| format!("cannot find {host}"))?;
    let server = addresses.next().with_context(|| format!("{host} has no address"))?;
    let any = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = std::net::UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(server).with_context(|| format!("there is no way to {server}"))?;
    Ok(socket.local_addr()?)
}

/// The table that grows while sessions run.
pub(super) struct Screen {
    on: Visible,
    next: Instant,
    last: Window,
    start: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Visible {
    No,
    Yes,
}

impl Screen {
    pub(super) fn new(output: &Output, now: Instant, last: Window) -> Self {
        let visible = *output != Output::Json && std::io::stdout().is_terminal();
        if visible {
            // A closed terminal will be noticed by the report.
            let _ = writeln!(std::io::stdout(), "{HEADINGS}");
        }
        let on = if visible { Visible::Yes } else { Visible::No };
        Self { on, next: now + REDRAW, last, start: now }
    }

    /// A line, if it is time for one. `active` and `failed` sessions.
    pub(super) fn draw(&mut self, now: Instant, tally: &Tally, (active, failed): (usize, usize)) {
        if now < self.next {
            return;
        }
        self.next = now + REDRAW;
        if self.on == Visible::No {
            return;
        }
        let current = Window::open(tally, now);
        let seconds = (current.at - self.last.at).as_secs_f64();
        let progress = Progress {
            tally,
            elapsed: now - self.start,
            active,
            failed,
            received_per_s: ((current.received - self.last.received) as f64 / seconds) as u64,
            cpu: (current.cpu.saturating_sub(self.last.cpu)).as_secs_f64() / seconds,
        };
        self.last = current;
        let _ = writeln!(std::io::stdout(), "{progress}");
    }
}
