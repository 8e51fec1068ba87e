//! What the chart writes is what a router reads.

use super::*;

#[path = "../../tests/charts/configurations.rs"]
mod configurations;

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
    configurations::assert_read("router.yaml", mistakes);
}
