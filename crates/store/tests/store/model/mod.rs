//! Random words of two routers and two workers, against a model that says what they mean in the plainest way.

mod run;

use std::collections::BTreeMap;
use std::time::Duration;

use streamfleet_session::{CloseReason, ResumeToken};
use streamfleet_store::{
    Bounds, ClaimRequest, ContextId, Delivery, EMPTY_RETENTION, Gate, Held, Phase, RECENT, Restoration, Settling,
    TOKEN_GRACE, Terms, Ticket,
};

#[derive(Debug, Clone, PartialEq)]
enum Role {
    Holder,
    Taker,
    /// Superseded or moved: it has no id any more.
    Former,
}

#[derive(Debug, Clone)]
struct Live {
    ticket: Ticket,
    id: usize,
    worker: usize,
    role: Role,
    phase: Phase,
    user: Option<usize>,
    pinned: bool,
    /// When it was claimed.
    since: u64,
    /// Void then.
    due: Option<u64>,
    context: ContextId,
    /// What its client was given, if it moves and has not connected.
    moves: Option<(ResumeToken, Delivery)>,
    asked: Option<CloseReason>,
    /// Its client has been counted.
    came: bool,
}

#[derive(Debug, Clone)]
struct Worker {
    /// Which of the registrations it is.
    registration: usize,
    renewed: u64,
    said: Option<(u32, Gate, usize)>,
    asked: Gate,
    /// Which of the orders that it is, counted from 1.
    order: usize,
}

/// What a worker knows of a session that it has, whatever the store knows.
#[derive(Debug, Clone)]
struct Mine {
    ticket: Ticket,
    id: usize,
    worker: usize,
    user: Option<usize>,
    pinned: bool,
    /// As which it was reported last; before that it has not begun.
    phase: Option<Phase>,
    since: u64,
    context: ContextId,
    /// What its client was given last, of which it knows.
    token: ResumeToken,
    generation: u64,
}

/// Which tokens of a context are good.
#[derive(Debug, Clone, Copy)]
struct Good {
    current: ResumeToken,
    /// What was given for it to a client that moves.
    offered: Option<ResumeToken>,
    /// The one before it, until then.
    previous: Option<(ResumeToken, u64)>,
    /// How many were given before the one that was given last.
    generation: u64,
    /// When it was opened last, of all that were.
    opened: usize,
}

/// What should be so. Contexts are never written here, so of each only the tokens outlive its last session.
#[derive(Debug, Default)]
struct Model {
    now: u64,
    registrations: usize,
    opens: usize,
    /// When it is sure that all who live are known.
    settled: u64,
    workers: BTreeMap<usize, Worker>,
    live: Vec<Live>,
    tokens: BTreeMap<ContextId, Good>,
    /// Those of an id that no session holds any more, and until when they are known; the one that goes first at the front.
    empty: BTreeMap<usize, Vec<(u64, ContextId)>>,
    /// The last of an id to end, and when.
    over: BTreeMap<usize, (CloseReason, u64)>,
    arrived: u64,
    departed: u64,
    refused: u64,
    /// By router: calls, and until when.
    held: BTreeMap<usize, (u32, u64)>,
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap()
}

impl Model {
    fn terms() -> (u64, u64, u64) {
        let terms = Terms::default();
        (millis(terms.lease), millis(terms.reservation), millis(terms.afterlife))
    }

    /// Nothing speaks against it that it lives at a worker that has not told of it.
    fn may_live(&self, id: usize) -> bool {
        self.over.get(&id).is_none_or(|(reason, _)| *reason == CloseReason::WorkerLost)
    }

    fn compare_settling(&self, seen: Settling) {
        let left = self.settled.saturating_sub(self.now);
        // A server's clock goes on meanwhile.
        let is_so = match seen {
            Settling::Nobody => self.workers.is_empty(),
            Settling::Done => left == 0 && !self.workers.is_empty(),
            Settling::For(seen) => !seen.is_zero() && millis(seen) <= left && millis(seen) + 1000 > left,
        };
        assert!(is_so, "{seen:?} and {left}, {} workers", self.workers.len());
    }

    fn close(&mut self, ticket: Ticket, reason: CloseReason) {
        let Some(at) = self.live.iter().position(|live| live.ticket == ticket) else { return };
        let gone = self.live.remove(at);
        let taker = self.live.iter_mut().find(|live| live.id == gone.id && live.role == Role::Taker);
        match (&gone.role, taker) {
            (Role::Holder, Some(taker)) => (taker.role, taker.came) = (Role::Holder, taker.came || gone.came),
            // A claim that nobody has confirmed has never been.
            (Role::Holder, None) => self.departed += u64::from(gone.came),
            (Role::Taker | Role::Former, _) => {}
        }
        self.over.insert(gone.id, (reason, self.now));
        if self.live.iter().all(|live| live.context != gone.context) {
            let empty = self.empty.entry(gone.id).or_default();
            empty.push((self.now + millis(EMPTY_RETENTION), gone.context));
            empty.sort_unstable();
            if empty.len() > Bounds::default().closed_per_key {
                empty.remove(0);
            }
        }
        self.forget_tokens();
    }

    fn forget_tokens(&mut self) {
        let Self { now, live, empty, tokens, .. } = self;
        empty.values_mut().for_each(|empty| empty.retain(|(until, _)| *now < *until));
        let mut known = live.iter().map(|live| live.context).collect::<Vec<_>>();
        known.extend(empty.values().flatten().map(|(_, context)| *context));
        tokens.retain(|context, _| known.contains(context));
    }

    fn close_all(&mut self, which: impl Fn(&Live) -> bool, reason: CloseReason) -> u32 {
        let tickets: Vec<Ticket> = self.live.iter().filter(|live| which(live)).map(|live| live.ticket).collect();
        tickets.iter().for_each(|ticket| self.close(*ticket, reason));
        u32::try_from(tickets.len()).unwrap()
    }

    fn sweep(&mut self) -> u32 {
        let (now, (lease, _, afterlife)) = (self.now, Self::terms());
        self.close_all(|live| live.due.is_some_and(|due| due <= now), CloseReason::ConnectTimeout);
        self.over.retain(|_, (_, at)| now < *at + afterlife);
        self.forget_tokens();
        let lost: Vec<usize> =
            self.workers.iter().filter(|(_, worker)| worker.renewed + lease <= now).map(|(name, _)| *name).collect();
        lost.into_iter()
            .map(|worker| {
                self.workers.remove(&worker);
                self.close_all(|live| live.worker == worker, CloseReason::WorkerLost)
            })
            .sum()
    }

    fn takes(&self, context: ContextId, shown: Option<ResumeToken>) -> bool {
        let Some(good) = self.tokens.get(&context) else { return false };
        let previous = good.previous.filter(|(_, until)| self.now < *until).map(|(token, _)| token);
        shown.is_some() && [Some(good.current), good.offered, previous].contains(&shown)
    }

    fn grace(&self) -> u64 {
        self.now + millis(TOKEN_GRACE)
    }

    /// A context whose only token this is.
    fn fresh(&mut self, context: ContextId, token: ResumeToken, generation: u64) {
        self.opens += 1;
        let good = Good { current: token, offered: None, previous: None, generation, opened: self.opens };
        self.tokens.insert(context, good);
    }

    /// The token is replaced for whoever showed one.
    fn replace(&mut self, context: ContextId, shown: Option<ResumeToken>, next: ResumeToken) {
        let grace = self.grace();
        let good = self.tokens.get_mut(&context).unwrap();
        let is_first = shown.is_some() && [Some(good.current), good.offered].contains(&shown);
        let previous = shown.filter(|_| is_first).map(|shown| (shown, grace));
        *good = Good { current: next, offered: None, previous, generation: good.generation + 1, ..*good };
    }

    /// One more is given to whoever showed one, beside it.
    fn offer(&mut self, context: ContextId, shown: ResumeToken, next: ResumeToken) {
        let good = self.tokens.get_mut(&context).unwrap();
        if shown == good.current || Some(shown) == good.offered {
            (good.current, good.previous) = (shown, None);
        }
        good.offered = Some(next);
        good.generation += 1;
    }

    fn confirm(&mut self, context: ContextId, token: ResumeToken, delivery: Delivery) -> bool {
        let grace = self.grace();
        let Some(good) = self.tokens.get_mut(&context) else { return false };
        if good.offered == Some(token) {
            let shown = good.previous.unwrap_or((good.current, grace));
            let previous = Some(shown).filter(|_| delivery == Delivery::Sent);
            *good = Good { current: token, offered: None, previous, ..*good };
        }
        good.current == token
    }

    /// The client of the session that lives under an id is back on its socket, if it shows this.
    fn back(&mut self, id: usize, shown: ResumeToken, next: ResumeToken) -> Option<ContextId> {
        let theirs = self.live.iter().filter(|live| live.id == id).map(|live| live.context);
        // The one that was opened last, if an earlier one of another client still ends.
        let newest = theirs.max_by_key(|context| self.tokens[context].opened);
        let context = newest.filter(|context| self.takes(*context, Some(shown)));
        if let Some(context) = context {
            self.replace(context, Some(shown), next);
        }
        context
    }

    /// Whether all that is left is counts.
    fn knows_nobody(&self) -> bool {
        self.workers.is_empty() && self.live.is_empty() && self.tokens.is_empty() && self.over.is_empty()
    }

    fn holder(&self, id: usize) -> Option<&Live> {
        self.live.iter().find(|live| live.id == id && live.role == Role::Holder)
    }

    fn load(&self, worker: usize) -> usize {
        self.live.iter().filter(|live| live.worker == worker).count()
    }

    fn has_room(&self, worker: usize) -> bool {
        self.workers.get(&worker).is_some_and(|entry| {
            entry.asked == Gate::Open
                && entry
                    .said
                    .is_some_and(|(capacity, gate, _)| gate == Gate::Open && self.load(worker) < capacity as usize)
        })
    }

    /// A session holds a context of its id that is known.
    fn take_up(&mut self, id: usize, context: ContextId) {
        if let Some(empty) = self.empty.get_mut(&id) {
            empty.retain(|(_, other)| *other != context);
        }
        self.opens += 1;
        self.tokens.get_mut(&context).unwrap().opened = self.opens;
    }

    /// The context of an id whose client shows this.
    fn context_of(&self, id: usize, shown: ResumeToken) -> Option<ContextId> {
        let held = self.live.iter().filter(|live| live.id == id).map(|live| live.context);
        let empty = self.empty.get(&id).into_iter().flatten().map(|(_, context)| *context);
        held.chain(empty).find(|context| self.takes(*context, Some(shown)))
    }

    /// What was given last of a context.
    fn generation(&self, context: ContextId) -> u64 {
        self.tokens[&context].generation
    }

    /// What a claim should give: its place, or the name of the refusal.
    fn claim(
        &mut self,
        claim: &ClaimRequest,
        id: usize,
        who: Option<usize>,
        pinned: bool,
        order: [usize; 2],
    ) -> Result<usize, &'static str> {
        self.sweep();
        let holder = self.holder(id).cloned();
        match &holder {
            Some(holder) if !self.takes(holder.context, claim.claim.token) => return Err("duplicate"),
            Some(holder) if holder.asked.is_some() => return Err("closing"),
            Some(_) => {}
            None if claim.claim.token.is_some() && self.now < self.settled && self.may_live(id) => {
                return Err("settling");
            }
            None => {
                let holders = || self.live.iter().filter(|live| live.role == Role::Holder);
                let over = |bound: Option<std::num::NonZeroU32>, count: usize| {
                    bound.is_some_and(|bound| count >= bound.get() as usize)
                };
                if over(claim.service_limit, holders().count()) {
                    return Err("service");
                }
                if who.is_some() && over(claim.user_limit, holders().filter(|live| live.user == who).count()) {
                    return Err("user");
                }
            }
        }
        // The pin's worker is that of the session with the lowest ticket.
        let bound = self.live.iter().filter(|live| pinned && live.pinned).min_by_key(|live| live.ticket);
        let candidates = bound.map_or(order.to_vec(), |live| vec![live.worker]);
        let worker = candidates.into_iter().find(|worker| self.has_room(*worker)).ok_or("capacity")?;
        let (role, context) = match (&holder, claim.claim.token) {
            (Some(holder), Some(shown)) => {
                self.offer(holder.context, shown, claim.token);
                (Role::Taker, holder.context)
            }
            _ => {
                // One that lost its id still holds its context, and whoever has its token has it back; or of one that is over.
                let known = claim.claim.token.and_then(|shown| self.context_of(id, shown));
                match known {
                    Some(context) => {
                        self.take_up(id, context);
                        self.replace(context, claim.claim.token, claim.token);
                    }
                    None => self.fresh(claim.context, claim.token, 0),
                }
                (Role::Holder, known.unwrap_or(claim.context))
            }
        };
        let due = Some(self.now + Self::terms().1);
        let moves = holder.as_ref().map(|_| (claim.token, claim.delivery));
        let new = Live {
            ticket: claim.ticket,
            id,
            worker,
            role,
            phase: Phase::Reserved,
            user: who,
            pinned,
            since: self.now,
            due,
            context,
            moves,
            asked: None,
            came: false,
        };
        let earlier = self.live.iter().position(|live| live.id == id && live.role == Role::Taker);
        if holder.is_some()
            && let Some(earlier) = earlier
        {
            if self.live[earlier].phase == Phase::Reserved {
                self.close(self.live[earlier].ticket, CloseReason::Superseded);
            } else {
                self.live[earlier].role = Role::Former;
                self.live[earlier].asked.get_or_insert(CloseReason::Superseded);
            }
        }
        self.live.push(new);
        Ok(worker)
    }

    fn report(&mut self, worker: usize, ticket: Ticket, phase: Phase) -> Held {
        let Some(at) = self.live.iter().position(|live| live.ticket == ticket && live.worker == worker) else {
            return Held::No;
        };
        if phase == Phase::Active
            && let Some((token, delivery)) = self.live[at].moves
        {
            let context = self.live[at].context;
            if !self.confirm(context, token, delivery) {
                let live = &mut self.live[at];
                live.asked.get_or_insert(CloseReason::Superseded);
                if live.role == Role::Taker {
                    live.role = Role::Former;
                }
                return Held::No;
            }
            self.live[at].moves = None;
        }
        self.live[at].phase = phase;
        self.live[at].due = None;
        if phase == Phase::Active && self.live[at].role == Role::Taker {
            let id = self.live[at].id;
            let old = self.live.iter_mut().find(|live| live.id == id && live.role == Role::Holder).unwrap();
            old.role = Role::Former;
            old.asked.get_or_insert(CloseReason::Moved);
            self.live[at].came |= old.came;
            self.live[at].role = Role::Holder;
        }
        if self.live[at].role == Role::Holder && !std::mem::replace(&mut self.live[at].came, true) {
            self.arrived += 1;
        }
        Held::Yes
    }

    /// Its worker writes it again.
    fn restore(&mut self, mine: &Mine) -> Restoration {
        let phase = mine.phase.unwrap();
        if let Some(known) = self.live.iter_mut().find(|live| live.ticket == mine.ticket) {
            (known.phase, known.due) = (phase, None);
            let comes = known.role == Role::Holder && !std::mem::replace(&mut known.came, true);
            self.arrived += u64::from(comes);
            return Restoration::Kept;
        }
        let holder = self.holder(mine.id).cloned();
        if let Some(holder) = holder.as_ref().filter(|holder| holder.phase != Phase::Reserved)
            && self.keeps(holder, mine)
        {
            return Restoration::Superseded;
        }
        self.restore_context(mine);
        for live in self.live.iter_mut().filter(|live| live.id == mine.id && live.role != Role::Former) {
            live.role = Role::Former;
            live.asked.get_or_insert(CloseReason::Superseded);
        }
        self.departed += u64::from(holder.is_some_and(|holder| holder.came));
        self.arrived += u64::from(self.now - mine.since <= millis(RECENT));
        let Mine { ticket, id, worker, user, pinned, since, context, .. } = mine.clone();
        self.live.push(Live {
            ticket,
            id,
            worker,
            role: Role::Holder,
            phase,
            user,
            pinned,
            since,
            due: None,
            context,
            moves: None,
            asked: None,
            came: true,
        });
        Restoration::Kept
    }

    /// Whether the holder of an id keeps it. Of two with one context its client is at the one that was given the later token, if that is known
    /// to have come so far; of all others the elder keeps it.
    fn keeps(&self, holder: &Live, mine: &Mine) -> bool {
        let given = Some(self.generation(holder.context)).filter(|_| holder.context == mine.context);
        match given {
            Some(given) if given > mine.generation && holder.phase == Phase::Active => true,
            Some(given) if given < mine.generation && mine.phase == Some(Phase::Active) => false,
            _ => holder.since <= mine.since,
        }
    }

    /// The context of one that is written again: of what the store and the worker know of its tokens, what was given later is good.
    fn restore_context(&mut self, mine: &Mine) {
        let is_held = self.live.iter().any(|live| live.context == mine.context);
        match self.tokens.get(&mine.context).map(|good| good.generation) {
            None => self.fresh(mine.context, mine.token, mine.generation),
            Some(given) => {
                let opened = self.tokens[&mine.context].opened;
                let is_later = if is_held { mine.generation > given } else { mine.generation >= given };
                if is_later {
                    self.fresh(mine.context, mine.token, mine.generation);
                }
                if is_held {
                    self.tokens.get_mut(&mine.context).unwrap().opened = opened;
                } else {
                    self.take_up(mine.id, mine.context);
                }
            }
        }
    }
}
