//! What the chart writes is what the operator reads.

use super::*;

#[path = "../../tests/charts/configurations.rs"]
mod configurations;

fn mistakes(text: &str) -> Vec<String> {
    let variables =
        [("STREAMFLEET_SECRET", "a-secret-of-the-fleet"), ("STREAMFLEET_STORE_REDIS_PASSWORD", "quite-secret")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let loaded = OperatorConfig::layers().yaml("operator.yaml", text).environment(variables).load::<OperatorConfig>();
    let built = loaded.build(OperatorConfig::build);
    let told = built.err().map(|mistakes| mistakes.iter().map(ToString::to_string).collect::<Vec<_>>());
    // Certificates are mounted, which nobody has done here.
    told.unwrap_or_default().into_iter().filter(|mistake| !mistake.contains("/etc/streamfleet/")).collect()
}

#[test]
fn the_chart_writes_what_is_read() {
    configurations::assert_read("operator.yaml", mistakes);
}
