//! The services that are served, whoever tells of them: files, which are read again when they change, or the API server
//! ([`kubernetes`](crate::kubernetes)). A file that cannot be used changes nothing.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use streamfleet_process::config::{Mistake, Mistakes};
use streamfleet_service::files::{self, Texts};
use streamfleet_service::ice::{IceServers, Turn};
use streamfleet_service::service::Ice;
use streamfleet_service::turn::TurnSecret;
use streamfleet_service::{Catalog, Service};
use streamfleet_session::ServiceName;
use streamfleet_store::Store;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::directory::{Directory, directory};
use crate::identify::Identifier;
use crate::keyring::Keyring;
use crate::limit::Rates;
use crate::secret::Secrets;

/// How often files are looked at. A ConfigMap takes a minute to reach its pods: this adds nothing to it.
const LOOK: Duration = Duration::from_secs(2);
/// Where a service names the secret of its TURN servers.
const TURN_SECRET: &str = "spec.media.turn.secret";
/// Where the configuration names them.
pub const FILES: &str = "services";

/// A service, and what is needed to serve it.
#[derive(Debug)]
pub struct Desk {
    /// What it is.
    pub service: Arc<Service>,
    /// Who calls it.
    pub identifier: Identifier,
    /// What verifies its tokens.
    pub keyring: Keyring,
    /// What its clients are told of STUN and TURN servers; `None` where its workers know.
    pub ice: Option<IceServers>,
    /// How often it may be asked; `None` for any.
    pub rates: Option<Rates>,
    /// Its workers.
    pub directory: Directory,
    /// Which versions of its secrets it was made of.
    secrets: Vec<u64>,
    /// Its directory is kept while somebody has this.
    kept: Arc<DropGuard>,
}

/// All services.
#[derive(Debug, Default)]
pub struct Roster {
    /// Which one a request is for.
    pub catalog: Catalog,
    is_unread: bool,
    desks: HashMap<ServiceName, Arc<Desk>>,
}

/// What desks are made with.
#[derive(Clone)]
pub struct Means {
    /// What the fleet knows.
    pub store: Arc<dyn Store>,
    /// For keys.
    pub http: reqwest::Client,
    /// Where the secrets are that services name.
    pub secrets: Secrets,
    /// Owns the tasks.
    pub tasks: TaskTracker,
    /// Ends them.
    pub stop: CancellationToken,
}

impl Roster {
    /// The one before anybody has told which services there are.
    #[must_use]
    pub fn unread() -> Self {
        Self { is_unread: true, ..Self::default() }
    }

    /// Whether a service that is not found may be there all the same.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        self.is_unread
    }

    /// The desk of a service.
    #[must_use]
    pub fn desk(&self, name: &ServiceName) -> Option<&Arc<Desk>> {
        self.desks.get(name)
    }

    /// Every desk.
    pub fn desks(&self) -> impl Iterator<Item = &Arc<Desk>> {
        self.desks.values()
    }

    /// The roster of other services. What has not changed is taken over: rates go on counting, directories stay read.
    ///
    /// # Errors
    /// Services that contradict each other, and keys that cannot be used.
    pub fn next(&self, services: Vec<Service>, means: &Means) -> Result<Self, Mistakes> {
        let mut mistakes = Mistakes::new();
        check(&services, &mut mistakes);
        mistakes.or(())?;
        let (next, deskless) = self.with(Catalog::new(services)?, means);
        let mut mistakes = Mistakes::new();
        for (_, mistake) in deskless {
            if let Some(Mistake { key, message, .. }) = mistake {
                mistakes.push(key, message);
            }
        }
        mistakes.or(next)
    }

    /// Likewise, of services that do not contradict each other. Those whose keys cannot be used have no desk, and whoever calls them is
    /// told that they cannot be reached; what is wrong is returned with their names, or nothing where a Secret is still to be read. Until it is,
    /// a service that was there goes on as it was.
    #[must_use]
    pub fn with(&self, catalog: Catalog, means: &Means) -> (Self, Vec<(ServiceName, Option<Mistake>)>) {
        let (mut desks, mut deskless) = (HashMap::new(), Vec::new());
        for service in catalog.iter() {
            match self.desk_of(service, means) {
                Ok(desk) => drop(desks.insert(service.name.clone(), desk)),
                Err(mistake) => deskless.push((service.name.clone(), mistake)),
            }
        }
        (Self { catalog, is_unread: false, desks }, deskless)
    }

    fn desk_of(&self, service: &Arc<Service>, means: &Means) -> Result<Arc<Desk>, Option<Mistake>> {
        let wrong = |key: &str, error: &dyn std::fmt::Display| {
            let message = format!("{}: {error}", service.name);
            Some(Mistake { key: key.to_owned(), origin: None, message })
        };
        let (old, secrets) = (self.desks.get(&service.name), means.secrets.versions(service));
        if let Some(old) = old.filter(|old| old.service.serves_as(service) && old.secrets == secrets) {
            return Ok(old.clone());
        }
        if means.secrets.are_pending(service) {
            return old.cloned().ok_or(None);
        }
        let keyring = Keyring::new(service, &means.secrets, &means.http, &means.tasks);
        let keyring = keyring.map_err(|error| wrong("spec.identity.jwt", &error))?;
        let namespace = service.name.namespace().unwrap_or_default();
        let ice = service.ice.as_ref().map(|said| ice(said, namespace, &means.secrets)).transpose();
        let ice = ice.map_err(|problem| wrong(TURN_SECRET, &problem))?;
        let (directory, kept) = match old {
            Some(old) => (old.directory.clone(), old.kept.clone()),
            None => means.directory(&service.name),
        };
        let identifier = Identifier::new(&service.identity);
        let rates = Rates::new(&service.limits);
        Ok(Arc::new(Desk { service: service.clone(), identifier, keyring, ice, rates, directory, secrets, kept }))
    }
}

/// Notes what is wrong with services of files that a file alone does not show: those that contradict each other, and keys that cannot be
/// used.
pub fn check(services: &[Service], mistakes: &mut Mistakes) {
    if let Err(found) = Catalog::new(services.iter().cloned()) {
        mistakes.extend(found);
    }
    for service in services {
        let checked = Keyring::check(service).map_err(|error| format!("{}: {error}", service.name));
        mistakes.check("spec.identity.jwt", checked);
        let made = service.ice.as_ref().map(|said| ice(said, "", &Secrets::local())).transpose();
        mistakes.check(TURN_SECRET, made.map_err(|problem| format!("{}: {problem}", service.name)));
    }
}

/// The ICE servers of a service, with the secret that its TURN servers know.
fn ice(said: &Ice, namespace: &str, secrets: &Secrets) -> Result<IceServers, String> {
    let turn = said.turn.as_ref().map(|turn| {
        let text = secrets.read(namespace, &turn.secret).map_err(|error| error.to_string())?;
        let secret = TurnSecret::new(&text).map_err(|error| error.to_string())?;
        Ok::<_, String>(Turn { urls: turn.urls.clone(), secret, ttl: turn.ttl })
    });
    Ok(IceServers { fixed: said.fixed.clone(), turn: turn.transpose()? })
}

/// The texts of these files, and the services in them.
///
/// # Errors
/// Every mistake in each of them, and what is wrong with them together.
pub fn read(paths: &[PathBuf]) -> Result<(Texts, Vec<Service>), Mistakes> {
    let mut mistakes = Mistakes::new();
    let texts = files::texts(FILES, paths, &mut mistakes);
    let services = services(&texts, &mut mistakes);
    check(&services, &mut mistakes);
    mistakes.or((texts, services))
}

fn services(texts: &[(String, String)], mistakes: &mut Mistakes) -> Vec<Service> {
    files::services(texts, mistakes).into_iter().map(|(_, service)| service).collect()
}

impl Means {
    fn directory(&self, service: &ServiceName) -> (Directory, Arc<DropGuard>) {
        let (directory, keeper) = directory();
        let stop = self.stop.child_token();
        let keep = keeper.keep(self.store.clone(), service.clone());
        self.tasks.spawn(stop.clone().run_until_cancelled_owned(keep));
        (directory, Arc::new(stop.drop_guard()))
    }
}

/// Reads the files again and again, until it is dropped.
pub async fn follow(paths: Vec<PathBuf>, mut texts_before: Texts, means: Means, roster: watch::Sender<Arc<Roster>>) {
    let mut told = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let paths = paths.clone();
        let read = tokio::task::spawn_blocking(move || {
            let mut mistakes = Mistakes::new();
            (files::texts(FILES, &paths, &mut mistakes), mistakes)
        });
        let Ok((texts, mut mistakes)) = read.await else { continue };
        let is_whole = mistakes.is_empty();
        if is_whole && texts == texts_before {
            continue;
        }
        let services = services(&texts, &mut mistakes);
        if is_whole {
            texts_before = texts;
        }
        let next = if mistakes.is_empty() {
            roster.borrow().next(services, &means)
        } else {
            check(&services, &mut mistakes);
            Err(mistakes)
        };
        match next {
            Ok(next) => {
                told = None;
                tracing::info!(services = next.desks.len(), "services were read again");
                roster.send_replace(Arc::new(next));
            }
            // A file that is being written is looked at again; one that stays broken is told once.
            Err(mistakes) => {
                let text = mistakes.to_string();
                if told.as_ref() != Some(&text) {
                    tracing::error!(mistakes = text, "services stay as they were");
                    told = Some(text);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use streamfleet_store::{Bounds, Memory};

    use super::*;

    fn means() -> Means {
        streamfleet_process::crypto::install();
        Means {
            store: Arc::new(Memory::new(Bounds::default())),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            secrets: Secrets::local(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    fn text(name: &str, spec: &str) -> (String, String) {
        let text = format!(
            "apiVersion: streamfleet.dev/v1alpha1\nkind: StreamService\nmetadata: {{name: {name}}}\nspec: {{handler: {{name: echo}}{spec}}}\n"
        );
        (format!("{name}.yaml"), text)
    }

    /// The services in these texts, of which each can be used.
    fn usable(texts: &[(String, String)]) -> Vec<Service> {
        let mut mistakes = Mistakes::new();
        let services = services(texts, &mut mistakes);
        assert_eq!(mistakes, Mistakes::new());
        services
    }

    #[tokio::test]
    async fn what_has_not_changed_is_taken_over() {
        let means = means();
        let first = [text("a", ""), text("b", "")];
        let first = Roster::default().next(usable(&first), &means).unwrap();
        let second = [text("a", ""), text("b", ", limits: {concurrency: 3}")];
        let second = first.next(usable(&second), &means).unwrap();
        let desk = |roster: &Roster, name: &str| roster.desk(&name.parse().unwrap()).unwrap().clone();
        assert!(Arc::ptr_eq(&desk(&first, "a"), &desk(&second, "a")));
        assert!(!Arc::ptr_eq(&desk(&first, "b"), &desk(&second, "b")));
        assert!(Arc::ptr_eq(&desk(&first, "b").kept, &desk(&second, "b").kept), "its directory stays read");
        assert_eq!(means.tasks.len(), 2);
        // With its last desk a directory is no longer kept.
        drop(first);
        let third = second.next(usable(&[text("a", "")]), &means).unwrap();
        drop(second);
        while means.tasks.len() > 1 {
            tokio::task::yield_now().await;
        }
        drop(third);
    }

    #[test]
    fn services_that_contradict_each_other_are_none() {
        let texts = [text("a", ", path: /x"), text("b", ", path: /x")];
        let mistakes = Roster::default().next(usable(&texts), &means()).unwrap_err();
        assert!(mistakes.to_string().contains("/x of b is taken already"), "{mistakes}");
        let secret = text("a", ", identity: {jwt: {secret: {secretKeyRef: {name: a, key: b}}}}");
        let mistakes = Roster::default().next(usable(&[secret]), &means()).unwrap_err();
        assert!(mistakes.to_string().contains("name a file or a variable"), "{mistakes}");
        let turn = text("a", ", media: {turn: {urls: ['turn:t'], secret: {env: STREAMFLEET_NO_SUCH}}}");
        let mistakes = Roster::default().next(usable(&[turn]), &means()).unwrap_err();
        let expected = "spec.media.turn.secret: a: the variable STREAMFLEET_NO_SUCH with the secret is not set";
        assert!(mistakes.to_string().contains(expected), "{mistakes}");
    }

    #[test]
    fn all_that_is_wrong_with_files_is_told_at_once() {
        let folder = std::env::temp_dir().join(format!("streamfleet-mistakes-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let secret = ", path: /x, identity: {jwt: {secret: {env: STREAMFLEET_NO_SUCH}}}";
        for (file, text) in [
            text("a", ", limits: {concurrency: many}"),
            text("b", ", path: /x"),
            text("c", secret),
            text("d", ", hosts: h"),
        ] {
            std::fs::write(folder.join(file), text).unwrap();
        }
        let mistakes = read(&[folder.clone(), "/nonexistent/e.yaml".into()]).unwrap_err();
        std::fs::remove_dir_all(&folder).unwrap();
        let told: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        for part in [
            "services: /nonexistent/e.yaml: ",
            "spec.limits.concurrency: ",
            "spec.hosts: ",
            "spec.path: /x of c is taken already by /x of b",
            "spec.identity.jwt: c: the variable STREAMFLEET_NO_SUCH",
        ] {
            assert_eq!(told.iter().filter(|told| told.starts_with(part)).count(), 1, "{part} of {told:#?}");
        }
        assert_eq!(told.len(), 5, "{told:#?}");
    }

    /// The log of this thread.
    #[derive(Clone, Default)]
    struct Page(Arc<parking_lot::Mutex<Vec<u8>>>);

    impl std::io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn files_are_followed_and_a_broken_one_changes_nothing() {
        let page = Page::default();
        let writer = page.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        // With one subscriber alone a line that another thread reaches first would be taken for one that nobody wants, for good.
        drop(tracing::subscriber::set_global_default(tracing_subscriber::registry()));
        let _guard = tracing::subscriber::set_default(subscriber);
        let folder = std::env::temp_dir().join(format!("streamfleet-roster-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let write = |name: &str, spec: &str| {
            let (file, text) = text(name, spec);
            // Replaced whole, as a ConfigMap is.
            std::fs::write(folder.join("new"), text).unwrap();
            std::fs::rename(folder.join("new"), folder.join(file)).unwrap();
        };
        write("a", "");
        let (means, paths) = (means(), vec![folder.clone()]);
        let (texts, found) = read(&paths).unwrap();
        let first = Roster::default().next(found, &means).unwrap();
        let (sender, mut roster) = watch::channel(Arc::new(first));
        let stop = means.stop.clone();
        means.tasks.spawn(stop.run_until_cancelled_owned(follow(paths, texts, means.clone(), sender)));
        let names = |roster: &Roster| {
            let mut names: Vec<String> = roster.desks().map(|desk| desk.service.name.to_string()).collect();
            names.sort();
            names.join(" ")
        };
        let limit = |roster: &Roster| {
            roster.desk(&"a".parse().unwrap()).unwrap().service.limits.concurrency.map(std::num::NonZeroU32::get)
        };

        write("b", "");
        roster.changed().await.unwrap();
        assert_eq!(names(&roster.borrow_and_update()), "a b");
        write("a", ", limits: {concurrency: nonsense}");
        tokio::time::sleep(LOOK * 5).await;
        assert!(!roster.has_changed().unwrap(), "a broken file keeps the old one");
        let log = String::from_utf8(std::mem::take(&mut *page.0.lock())).unwrap();
        assert_eq!(log.matches("services stay as they were").count(), 1, "told once: {log}");
        assert!(log.contains("a.yaml") && log.contains("concurrency"), "{log}");
        write("a", ", limits: {concurrency: 7}");
        roster.changed().await.unwrap();
        assert_eq!(limit(&roster.borrow_and_update()), Some(7));
        std::fs::remove_file(folder.join("b.yaml")).unwrap();
        roster.changed().await.unwrap();
        assert_eq!(names(&roster.borrow_and_update()), "a");
        means.stop.cancel();
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
