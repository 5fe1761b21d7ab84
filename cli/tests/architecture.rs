//! Who may depend on whom: docs/architecture.md as a test over the manifests.

use std::collections::BTreeSet;

const PREFIX: &str = "ft-pair-";

/// Each crate with what it may depend on.
const ALLOWED: &[(&str, &[&str])] = &[
    ("shared", &[]),
    ("cpu", &["shared"]),
    ("replay-log", &["shared"]),
    ("machine", &["shared", "cpu"]),
    ("master", &["shared", "cpu", "machine", "replay-log"]),
    ("slave", &["shared", "cpu", "machine", "replay-log"]),
    ("cli", &["shared", "cpu", "machine", "replay-log", "master", "slave"]),
    ("benches", &["machine"]),
];

fn manifest(folder: &str) -> String {
    let path = format!("{}/../{folder}/Cargo.toml", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Own crates named in any dependency section.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let mut in_dependencies = false;
    let mut found = BTreeSet::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            in_dependencies = line.contains("dependencies");
        } else if in_dependencies && line.starts_with(PREFIX) {
            let name = line.split(['.', ' ', '=']).next().expect("split gives one part");
            found.insert(name[PREFIX.len()..].to_owned());
        }
    }
    found
}

#[test]
fn crates_depend_only_on_what_the_architecture_allows() {
    for (folder, allowed) in ALLOWED {
        for dependency in dependencies(&manifest(folder)) {
            assert!(
                allowed.contains(&dependency.as_str()),
                "{folder} depends on {dependency}, which docs/architecture.md does not allow"
            );
        }
    }
}

#[test]
fn every_member_of_the_workspace_has_its_rule() {
    let workspace = manifest(".");
    let members = workspace.lines().find(|line| line.starts_with("members")).unwrap();
    for member in members.split('"').skip(1).step_by(2) {
        assert!(ALLOWED.iter().any(|(folder, _)| *folder == member), "no rule for {member}");
    }
}

#[test]
fn the_check_sees_dependencies() {
    let found = dependencies("[dependencies]\nft-pair-shared.workspace = true\nserde = \"1\"\n");
    assert_eq!(found, BTreeSet::from(["shared".to_owned()]));
}
