//! What the chart writes is what a router reads.

use std::path::Path;

use super::*;

/// The files that the chart makes of the values of its tests.
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/charts/golden");

/// `router.yaml` of the ConfigMap in what was rendered, if there is one.
fn written(rendered: &str) -> Option<String> {
    let (_, rest) = rendered.split_once("  router.yaml: |\n")?;
    let lines = rest.lines().take_while(|line| line.is_empty() || line.starts_with("    "));
    Some(lines.map(|line| line.get(4..).unwrap_or_default()).collect::<Vec<_>>().join("\n"))
}

fn mistakes(text: &str) -> Vec<String> {
    let variables = [
        ("STREAMFLEET_SECRET", "a-secret-of-the-fleet"),
        ("STREAMFLEET_STORE_REDIS_PASSWORD", "quite-secret"),
        ("STREAMFLEET_ADMIN_TOKEN", "a-token-of-the-operator"),
        ("STREAMFLEET_RELAY_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
        ("POD_NAME", "router-0"),
        ("POD_NAMESPACE", "voice"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let loaded = RouterConfig::layers().yaml("router.yaml", text).environment(variables).load::<RouterConfig>();
    let built = loaded.build(RouterConfig::build);
    let told = built.err().map(|mistakes| mistakes.iter().map(ToString::to_string).collect::<Vec<_>>());
    // Certificates are mounted, which nobody has done here.
    told.unwrap_or_default().into_iter().filter(|mistake| !mistake.contains("/etc/streamfleet/")).collect()
}

#[test]
fn the_chart_writes_what_is_read() {
    let mut seen = 0;
    for file in Path::new(GOLDEN).read_dir().unwrap() {
        let path = file.unwrap().path();
        let Some(text) = written(&std::fs::read_to_string(&path).unwrap()) else { continue };
        assert_eq!(mistakes(&text), [""; 0], "{}", path.display());
        // A key that nobody knows, at any depth, would be told.
        for (known, wrong) in [("store:", "stores:"), ("listen:", "listens:")] {
            assert!(!mistakes(&text.replacen(known, wrong, 1)).is_empty(), "{wrong} in {}", path.display());
        }
        seen += 1;
    }
    assert!(seen >= 4, "{seen} files in {GOLDEN}");
}
