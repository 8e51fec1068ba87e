//! The configuration files that the chart writes, read by the programs that they are for: included by the tests of each.

use std::path::Path;

/// The files that the chart makes of the values of its tests.
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/charts/golden");

/// The file `name` of the ConfigMap in what was rendered, if there is one.
fn written(rendered: &str, name: &str) -> Option<String> {
    let (_, rest) = rendered.split_once(&format!("\n  {name}: |\n"))?;
    let lines = rest.lines().take_while(|line| line.is_empty() || line.starts_with("    "));
    Some(lines.map(|line| line.get(4..).unwrap_or_default()).collect::<Vec<_>>().join("\n"))
}

/// Asserts that every file `name` has no `mistakes`, and that a key which nobody knows would be one.
pub(super) fn assert_read(name: &str, mistakes: impl Fn(&str) -> Vec<String>) {
    let mut seen = 0;
    for file in Path::new(GOLDEN).read_dir().unwrap() {
        let path = file.unwrap().path();
        let Some(text) = written(&std::fs::read_to_string(&path).unwrap(), name) else { continue };
        assert_eq!(mistakes(&text), [""; 0], "{}", path.display());
        for (known, wrong) in [("store:", "stores:"), ("listen:", "listens:")] {
            assert!(!mistakes(&text.replacen(known, wrong, 1)).is_empty(), "{wrong} in {}", path.display());
        }
        seen += 1;
    }
    assert!(seen >= 4, "{seen} files in {GOLDEN}");
}
