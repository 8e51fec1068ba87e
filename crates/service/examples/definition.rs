//! Writes what is made of the definition: `crds/streamservices.yaml` and `docs/streamservice.md`.

use std::path::Path;

use streamfleet_service::resource::{definition_yaml, reference};

fn main() -> std::io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::create_dir_all(root.join("crds"))?;
    std::fs::write(root.join("crds/streamservices.yaml"), definition_yaml())?;
    std::fs::write(root.join("docs/streamservice.md"), reference())
}
