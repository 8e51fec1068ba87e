//! Files and folders that hold manifests, as they are named in a configuration.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use streamfleet_process::config::Mistakes;

use crate::manifest;
use crate::service::Service;

/// Files of a folder that are read: a folder with more is another one by mistake.
const MAX_FILES: usize = 1_000;

/// Texts, each with the name of its file.
pub type Texts = Vec<(String, String)>;

/// The texts of all files that can be read, by name; of a folder, of its `.yaml` and `.yml` files. `key` is where the configuration
/// names them: each of the others is a mistake of its value.
pub fn texts(key: &str, paths: &[PathBuf], mistakes: &mut Mistakes) -> Texts {
    let mut texts = Vec::new();
    for path in paths {
        let named = |error: std::io::Error| format!("{}: {error}", path.display());
        for file in mistakes.check(key, files(path).map_err(named)).unwrap_or_default() {
            let text = text(&file).map_err(|error| format!("{}: {error}", file.display()));
            texts.extend(mistakes.check(key, text).map(|text| (file.display().to_string(), text)));
        }
    }
    texts
}

/// The services in these texts that can be used, each with the file that it is in; no two have one name. Every mistake of the others is
/// noted with the field, and the file that it is in. Whoever asks can so go on, and find what else is wrong.
pub fn services(texts: &[(String, String)], mistakes: &mut Mistakes) -> Vec<(String, Service)> {
    let mut names = BTreeSet::new();
    let mut services = Vec::new();
    for (name, text) in texts {
        for service in manifest::usable(name, text, mistakes) {
            if names.insert(service.name.clone()) {
                services.push((name.clone(), service));
            } else {
                mistakes.push("metadata.name", format!("there are two services {} ({name})", service.name));
            }
        }
    }
    services
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
        let mut mistakes = Mistakes::new();
        let found = services(&texts("manifests", std::slice::from_ref(&folder), &mut mistakes), &mut mistakes);
        let names: Vec<_> = found.iter().map(|(_, service)| service.name.as_str()).collect();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!((names, mistakes), (vec!["echo", "b"], Mistakes::new()));
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_name() {
        let paths = ["/nonexistent/a.yaml", "/dev/zero"].map(PathBuf::from);
        let mut mistakes = Mistakes::new();
        assert!(texts("manifests", &paths, &mut mistakes).is_empty());
        let mistakes: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        assert!(mistakes[0].starts_with("manifests: /nonexistent/a.yaml: "), "{mistakes:?}");
        assert!(mistakes[1].starts_with("manifests: /dev/zero: "), "{mistakes:?}");
    }

    #[test]
    fn all_mistakes_are_told_and_what_is_right_is_read() {
        let named = |name: &str| ECHO.replace("{name: echo}\nspec", &format!("{{name: {name}}}\nspec"));
        let texts = [
            ("a.yaml", ECHO.replace("handler:", "handlers:")),
            ("b.yaml", format!("{}---{}---{}", named("b"), named("b"), named("B"))),
            ("c.yaml", "a: [".to_owned()),
            ("d.yaml", named("d")),
        ];
        let mut mistakes = Mistakes::new();
        let found = services(&texts.map(|(name, text)| (name.to_owned(), text)), &mut mistakes);
        let found: Vec<_> = found.iter().map(|(file, service)| (file.as_str(), service.name.as_str())).collect();
        assert_eq!(found, [("b.yaml", "b"), ("d.yaml", "d")]);
        let told = mistakes.to_string();
        for part in
            ["spec.handlers: ", "there are two services b (b.yaml)", "b.yaml, document 3", "c.yaml is not valid"]
        {
            assert_eq!(told.matches(part).count(), 1, "{part} in {told}");
        }
    }
}
