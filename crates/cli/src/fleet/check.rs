//! What is wrong with what a router and a worker are told: said once, whichever of them would say it, before any is started.

use std::sync::Arc;

use streamfleet_handler::Registry;
use streamfleet_process::config::Mistakes;
use streamfleet_router::config::RouterConfig;
use streamfleet_router::roster;
use streamfleet_service::Service;
use streamfleet_store::{Backend, Bounds, Memory};
use streamfleet_worker::config::WorkerConfig;
use streamfleet_worker::program::plan_with;

use super::layout::Layout;
use super::parts::Common;

impl Common {
    /// Notes what a first router and a first worker find wrong; the others are told the same. `services` are those that can be used
    /// of the files that are named: what is wrong with the others is noted.
    pub(super) fn check(
        &self,
        layout: &Layout,
        registry: &Registry,
        services: &[(String, Service)],
        mistakes: &mut Mistakes,
    ) {
        let memory = || Backend::Memory(Arc::new(Memory::new(Bounds::default())));
        let store = self.redis.is_none().then(memory);
        let noted = mistakes.clone();
        let mut add = |found: Option<Mistakes>| found.into_iter().for_each(|found| mistakes.extend_new(found));
        for at in layout.workers.iter().take(1) {
            let environment = self.worker(*at, &self.worker_name(0, 0));
            let loaded = WorkerConfig::layers().environment(environment).load::<WorkerConfig>();
            let read = |_: &[_], mistakes: &mut Mistakes| {
                mistakes.extend(noted.clone());
                services.to_vec()
            };
            add(loaded.build(|config| plan_with(config, registry, store.as_ref(), &read)).err());
        }
        for at in layout.routers.iter().take(1) {
            let loaded = RouterConfig::layers().environment(self.router(*at)).load::<RouterConfig>();
            let built = loaded.build(|config| match &store {
                Some(store) => config.build_on(store.clone()),
                None => config.build(),
            });
            add(built.err());
        }
        let services: Vec<Service> = services.iter().map(|(_, service)| service.clone()).collect();
        let mut found = Mistakes::new();
        roster::check(&services, &mut found);
        add(Some(found));
    }
}
