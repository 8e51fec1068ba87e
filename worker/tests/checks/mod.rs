//! What must hold for any text that is given as the worker's configuration. The fuzz target and the replay of its corpus
//! run this same function.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use serde_json::Value;
use streamfleet_process::config::{Loaded, Mistakes};
use streamfleet_worker::config::{Surroundings, TokenOrigin, WorkerConfig, WorkerPlan};

/// Mistakes reported of one file at most: the configuration's own bound, and the one that says there are more.
const MAX_MISTAKES: usize = 101;

/// A YAML file, and the plan that is made of it.
pub(crate) fn config(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Loaded { config, mistakes, .. } = WorkerConfig::layers().yaml("worker.yaml", text).load::<WorkerConfig>();
    assert!(mistakes.iter().count() <= MAX_MISTAKES, "{mistakes}");
    // What was wrong stands at its default by now, so the checks go on as they do in the program's messages.
    let handler = |name: &str, _: &Value| if name == "echo" { Ok(()) } else { Err("there is none".to_owned()) };
    let cores = NonZeroUsize::new(2).expect("two is not zero");
    let manifests = |_: &[PathBuf], _: &mut Mistakes| Vec::new();
    match config.build(Surroundings { cores, random: [7; 32], handler: &handler, manifests: &manifests, store: None }) {
        Ok(plan) => plan_is_usable(&plan),
        Err(mistakes) => assert!(!mistakes.is_empty()),
    }
}

fn plan_is_usable(plan: &WorkerPlan) {
    assert!(!plan.services.is_empty() && plan.loops.get() <= 256);
    let names: BTreeSet<_> = plan.services.iter().map(|service| &service.name).collect();
    let paths: Vec<_> = plan.services.iter().flat_map(|s| std::iter::once(&s.path).chain(&s.aliases)).collect();
    assert_eq!(names.len(), plan.services.len());
    assert_eq!(paths.iter().collect::<BTreeSet<_>>().len(), paths.len(), "a route would be taken twice");
    assert!(plan.advertise.iter().all(|ip| !ip.is_unspecified() && !ip.is_multicast()));
    assert!(plan.udp.port() == 0 || usize::from(plan.udp.port()) + plan.loops.get() <= 1 << 16);
    if plan.admin_token_origin == TokenOrigin::Made {
        assert!(plan.admin_token.matches(&"07".repeat(32)));
    }
}
