//! Files and folders that hold manifests, as they are named in a configuration.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use streamfleet_process::config::Mistakes;

use crate::manifest;
use crate::service::Service;

/// Files of a folder that are read: a folder with more is another one by mistake.
const MAX_FILES: usize = 1_000;

/// The texts of all files, by name; of a folder, of its `.yaml` and `.yml` files. `key` is where the configuration names them.
///
/// # Errors
/// Every file that cannot be read.
pub fn texts(key: &str, paths: &[PathBuf]) -> Result<Vec<(String, String)>, Mistakes> {
    let mut mistakes = Mistakes::new();
    let mut texts = Vec::new();
    for path in paths {
        let named = |error: std::io::Error| format!("{}: {error}", path.display());
        for file in mistakes.check(key, files(path).map_err(named)).unwrap_or_default() {
            let text = text(&file).map_err(|error| format!("{}: {error}", file.display()));
            texts.extend(mistakes.check(key, text).map(|text| (file.display().to_string(), text)));
        }
    }
    mistakes.or(texts)
}

/// The services in these texts.
///
/// # Errors
/// Every mistake in each of them, with the field, and the file that it is in.
pub fn services(texts: &[(String, String)]) -> Result<Vec<Service>, Mistakes> {
    Ok(located(texts)?.into_iter().map(|(_, service)| service).collect())
}

/// Likewise, each with the file that it is in: for whoever finds mistakes in it that a manifest alone does not show.
///
/// # Errors
/// As of [`services`].
pub fn located(texts: &[(String, String)]) -> Result<Vec<(String, Service)>, Mistakes> {
    let mut mistakes = Mistakes::new();
    let mut services = Vec::new();
    for (name, text) in texts {
        match manifest::read(name, text) {
            Ok(found) => services.extend(found.into_iter().map(|service| (name.clone(), service))),
            Err(found) => mistakes.extend(found),
        }
    }
    mistakes.or(services)
}

fn files(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path)?.take(MAX_FILES) {
        let file = entry?.path();
        if file.extension().is_some_and(|ending| ending == "yaml" || ending == "yml") {
            found.push(file);
        }
    }
    found.sort();
    Ok(found)
}

/// What a file says of its length need not be true (a device, a file that grows): no more is read than a manifest may have.
fn text(file: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(file)?.take(manifest::MAX_TEXT as u64 + 1).read_to_string(&mut text)?;
    if text.len() > manifest::MAX_TEXT { Err(std::io::ErrorKind::FileTooLarge.into()) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ECHO: &str = "
apiVersion: streamfleet.dev/v1alpha1
kind: StreamService
metadata: {name: echo}
spec: {handler: {name: echo}}
";

    #[test]
    fn a_folder_is_its_manifests() {
        let folder = std::env::temp_dir().join(format!("streamfleet-manifests-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for (name, text) in [
            ("b.yml", ECHO.replace("{name: echo}\nspec", "{name: b}\nspec")),
            ("a.yaml", ECHO.to_owned()),
            ("c.txt", "no manifest".to_owned()),
        ] {
            std::fs::write(folder.join(name), text).unwrap();
        }
        let found = services(&texts("manifests", std::slice::from_ref(&folder)).unwrap()).unwrap();
        let names: Vec<_> = found.iter().map(|service| service.name.as_str()).collect();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(names, ["echo", "b"]);
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_name() {
        let paths = ["/nonexistent/a.yaml", "/dev/zero"].map(PathBuf::from);
        let mistakes = texts("manifests", &paths).unwrap_err();
        let mistakes: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        assert!(mistakes[0].starts_with("manifests: /nonexistent/a.yaml: "), "{mistakes:?}");
        assert!(mistakes[1].starts_with("manifests: /dev/zero: "), "{mistakes:?}");
    }
}
