//! What is shown: facts as tables of texts. Pure.

use super::facts::{Facts, Name, Service, State, Tone, Worker};

/// What somebody has chosen to see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Choice {
    /// One namespace, or all.
    pub(super) namespace: Option<String>,
    /// One service, or all.
    pub(super) service: Option<Name>,
    /// Workers above the first that is shown.
    pub(super) scroll: usize,
}

impl Choice {
    fn takes(&self, service: &Name) -> bool {
        self.is_in(service) && self.service.as_ref().is_none_or(|chosen| chosen == service)
    }

    /// Whether it is in the namespace that is shown.
    pub(super) fn is_in(&self, service: &Name) -> bool {
        self.namespace.as_ref().is_none_or(|namespace| *namespace == service.namespace)
    }
}

/// Everything on the screen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct View {
    /// Who tells it, what of it is shown, and when.
    pub(super) title: String,
    /// How much there is.
    pub(super) summary: String,
    pub(super) tables: Vec<Table>,
    /// What is wrong at present.
    pub(super) problem: Option<String>,
}

/// A table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) head: Vec<&'static str>,
    pub(super) rows: Vec<Row>,
    /// What stands there instead of rows.
    pub(super) empty: &'static str,
    /// Rows above the first that is shown.
    pub(super) scroll: usize,
}

/// A row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) cells: Vec<String>,
    pub(super) look: Look,
}

/// How a line looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Look {
    #[default]
    Plain,
    /// A title, or the head of a table.
    Head,
    /// Somebody has chosen it.
    Chosen,
    /// It is on its way out, or in.
    Passing,
    /// Somebody should look at it.
    Warning,
    /// Less important than the rest.
    Dim,
}

/// Decisions that are shown at most: those of the last hour of a busy fleet are more than anybody reads.
const MAX_DECISIONS: usize = 50;

/// `3h05m`, `4m10s`, `7s`, `2d03h`.
pub(super) fn length(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

fn or_dash(text: Option<impl ToString>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| text.to_string())
}

fn of_all(some: impl ToString, all: Option<impl ToString>) -> String {
    all.map_or_else(|| some.to_string(), |all| format!("{}/{}", some.to_string(), all.to_string()))
}

/// Who tells, and of what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Teller {
    pub(super) name: String,
    pub(super) scope: Scope,
    /// What somebody should know of that.
    pub(super) note: Option<String>,
}

/// Of what somebody tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Scope {
    #[default]
    AllNamespaces,
    Namespace(String),
    /// One service, which is in none.
    Service,
}

impl Scope {
    fn words(&self, choice: &Choice) -> Option<String> {
        match (self, &choice.namespace) {
            (Self::Service, _) => None,
            (Self::AllNamespaces, None) => Some("all namespaces".to_owned()),
            (Self::Namespace(namespace), _) | (_, Some(namespace)) => Some(format!("namespace {namespace}")),
        }
    }
}

impl View {
    /// `problem` is what is wrong at present; `now` is in seconds since the Unix epoch.
    pub(super) fn of(facts: &Facts, choice: &Choice, teller: &Teller, problem: Option<String>, now: i64) -> Self {
        let scope = teller.scope.words(choice);
        let clock = jiff::Timestamp::from_second(now).map(|time| time.strftime("%H:%M:%S UTC").to_string());
        let title = ["streamfleet top".to_owned(), teller.name.clone()].into_iter().chain(scope).chain(clock.ok());
        // A router is asked for sessions, and they say nothing of that.
        let none = |words| if teller.scope == Scope::Service { "only a cluster tells of this" } else { words };
        let services: Vec<(&Name, &Service)> = facts.services.iter().filter(|(name, _)| choice.is_in(name)).collect();
        let workers: Vec<(&Name, &Worker)> =
            facts.workers.iter().filter(|(_, worker)| choice.takes(&worker.service)).collect();
        Self {
            title: title.collect::<Vec<_>>().join("   "),
            summary: summary(&services, &workers, choice),
            tables: vec![
                services_table(&services, choice),
                workers_table(facts, &workers, choice, now),
                Table { empty: none("nobody drains"), ..drains_table(&workers, now) },
                Table { empty: none("nothing was decided lately"), ..decisions_table(facts, choice, now) },
            ],
            problem: problem.or(teller.note.clone()),
        }
    }
}

fn summary(services: &[(&Name, &Service)], workers: &[(&Name, &Worker)], choice: &Choice) -> String {
    let chosen: Vec<&Service> =
        services.iter().filter(|(name, _)| choice.takes(name)).map(|(_, service)| *service).collect();
    let sessions: u64 = chosen.iter().map(|service| u64::from(service.sessions)).sum();
    let capacity: u64 = chosen.iter().filter_map(|service| service.capacity.map(u64::from)).sum();
    let in_state = |state: &dyn Fn(&State) -> bool| workers.iter().filter(|(_, worker)| state(&worker.state)).count();
    let draining = in_state(&|state| matches!(state, State::Draining | State::Ending));
    let starting = in_state(&|state| matches!(state, State::Starting(_)));
    let plural = |number: usize, noun: &str| format!("{number} {noun}{}", if number == 1 { "" } else { "s" });
    let mut parts = vec![plural(chosen.len(), "service"), plural(workers.len(), "worker")];
    parts.extend((starting > 0).then(|| format!("{starting} starting")));
    parts.extend((draining > 0).then(|| format!("{draining} draining")));
    parts.push(format!("{} sessions", of_all(sessions, Some(capacity).filter(|capacity| *capacity > 0))));
    parts.join("   ")
}

fn services_table(services: &[(&Name, &Service)], choice: &Choice) -> Table {
    let row = |(name, service): &(&Name, &Service)| {
        let ready = service.ready.map(|ready| if ready { "yes" } else { "no" });
        let workers = service.workers.map(|count| of_all(count.ready, Some(count.desired)));
        let cells = vec![
            name.to_string(),
            or_dash(ready),
            or_dash(workers),
            or_dash(service.draining),
            of_all(service.sessions, service.capacity),
            service.remark.clone().or(service.url.clone()).unwrap_or_default(),
        ];
        let look = match service.ready {
            _ if choice.service.as_ref() == Some(*name) => Look::Chosen,
            Some(false) => Look::Warning,
            _ => Look::Plain,
        };
        Row { cells, look }
    };
    Table {
        head: vec!["SERVICE", "READY", "WORKERS", "DRAINING", "SESSIONS", ""],
        rows: services.iter().map(row).collect(),
        empty: "no services",
        scroll: 0,
    }
}

fn sessions_of(facts: &Facts, worker: &Worker) -> String {
    let per_worker = facts.services.get(&worker.service).and_then(|service| service.per_worker);
    match worker.sessions {
        Some(sessions) => of_all(sessions, per_worker),
        None => of_all("?", per_worker),
    }
}

fn workers_table(facts: &Facts, workers: &[(&Name, &Worker)], choice: &Choice, now: i64) -> Table {
    let row = |(name, worker): &(&Name, &Worker)| {
        let variant = worker.variant.as_ref().map(|variant| format!(" [{variant}]")).unwrap_or_default();
        let cells = vec![
            name.name.clone(),
            format!("{}{variant}", worker.service),
            worker.state.to_string(),
            sessions_of(facts, worker),
            or_dash(worker.created.map(|created| length(now - created))),
            or_dash(worker.node.as_ref()),
        ];
        let look = match worker.state {
            State::Serving | State::Unknown => Look::Plain,
            State::Starting(Some(_)) | State::Over(_) => Look::Warning,
            State::Starting(None) | State::Draining | State::Ending => Look::Passing,
        };
        Row { cells, look }
    };
    let rows: Vec<Row> = workers.iter().map(row).collect();
    Table {
        head: vec!["WORKER", "SERVICE", "STATE", "SESSIONS", "AGE", "NODE"],
        scroll: choice.scroll.min(rows.len().saturating_sub(1)),
        rows,
        empty: "no workers",
    }
}

/// The longest first.
fn drains_table(workers: &[(&Name, &Worker)], now: i64) -> Table {
    let mut drains: Vec<_> =
        workers.iter().filter_map(|(name, worker)| Some((worker.drain.as_ref()?, *name, *worker))).collect();
    drains.sort_by_key(|(drain, name, _)| (drain.since.unwrap_or(i64::MAX), *name));
    let row = |(drain, name, worker): (_, &Name, &Worker)| {
        let drain: &super::facts::Drain = drain;
        let ending = (worker.state == State::Ending).then(|| "its pod is being deleted".to_owned());
        let cells = vec![
            name.to_string(),
            or_dash(drain.since.map(|since| length(now - since))),
            or_dash(worker.sessions),
            drain.reason.clone().or(ending).unwrap_or_default(),
        ];
        Row { cells, look: Look::Passing }
    };
    Table {
        head: vec!["DRAINS", "FOR", "SESSIONS LEFT", "WHY"],
        rows: drains.into_iter().map(row).collect(),
        empty: "",
        scroll: 0,
    }
}

/// The latest first.
fn decisions_table(facts: &Facts, choice: &Choice, now: i64) -> Table {
    let mut said: Vec<_> = facts.said.iter().filter(|(_, said)| choice.takes(&said.of)).collect();
    said.sort_by_key(|(name, said)| (std::cmp::Reverse(said.at), *name));
    let row = |(_, said): (_, &super::facts::Said)| {
        let times = if said.times > 1 { format!(" (x{})", said.times) } else { String::new() };
        let cells =
            vec![length(now - said.at), said.of.to_string(), said.reason.clone(), format!("{}{times}", said.note)];
        Row { cells, look: if said.tone == Tone::Warning { Look::Warning } else { Look::Plain } }
    };
    Table {
        head: vec!["AGO", "SERVICE", "DECISION", ""],
        rows: said.into_iter().take(MAX_DECISIONS).map(row).collect(),
        empty: "",
        scroll: 0,
    }
}

#[cfg(test)]
#[path = "view_tests.rs"]
pub(super) mod tests;
