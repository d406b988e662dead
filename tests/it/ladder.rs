//! Imports only go down: each module knows only modules on rungs below its own.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The ladder, lowest rung first. Modules on one rung do not know each other.
const LADDER: [&[&str]; 14] = [
    &["reason", "clock", "shutdown", "proto"],
    &["telemetry"],
    &["net"],
    &["event"],
    &["usage"],
    &["run"],
    &["engine"],
    &["sequencer"],
    &["access", "fanout"],
    &["calls"],
    &["ingest", "egress", "operator"],
    &["config", "client"],
    &["app", "page"],
    &["cli"],
];

#[test]
fn imports_only_go_down_the_ladder() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for file in rust_files(&src) {
        let module = module_of(&src, &file);
        if module == "lib" || module == "main" {
            continue;
        }
        let rung = rung_of(&module).unwrap_or_else(|| panic!("{module} is on no rung"));
        for imported in imports(&fs::read_to_string(&file).unwrap()) {
            if imported == module {
                continue;
            }
            match rung_of(&imported) {
                Some(below) if below < rung => {}
                Some(_) => wrong.push(format!("{}: {module} → {imported}", file.display())),
                None => wrong.push(format!("{}: {imported} is on no rung", file.display())),
            }
        }
        seen.insert(module);
    }
    assert!(
        wrong.is_empty(),
        "imports that go up or sideways:\n{}",
        wrong.join("\n")
    );
    let listed: BTreeSet<String> = LADDER.concat().iter().map(ToString::to_string).collect();
    assert_eq!(
        seen, listed,
        "the ladder lists exactly the modules that exist"
    );
}

#[test]
fn an_upward_import_is_seen() {
    let text =
        "use crate::{clock::Clock, egress::{A, B}};\nfn f() { crate::app::x() }\n// crate::cli\n";
    let found: Vec<String> = imports(text).into_iter().collect();
    assert_eq!(found, ["app", "clock", "egress"]);
}

fn rung_of(module: &str) -> Option<usize> {
    LADDER.iter().position(|rung| rung.contains(&module))
}

/// The modules of this crate that `text` names.
fn imports(text: &str) -> BTreeSet<String> {
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        // `$crate::` and names that merely end in `crate` are not ours.
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(group_heads(group)),
            None => found.extend(head(rest)),
        }
    }
    found
}

/// The first names of the items of `{a::b, c::{d, e}}`, given what follows the opening brace.
fn group_heads(group: &str) -> Vec<String> {
    let mut depth = 0;
    let mut heads = Vec::new();
    let mut start = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                heads.extend(head(group[start..at].trim()));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                heads.extend(head(group[start..at].trim()));
                start = at + 1;
            }
            _ => {}
        }
    }
    heads
}

fn head(path: &str) -> Option<String> {
    let name: String = path
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect();
    (!name.is_empty()).then_some(name)
}

fn module_of(src: &Path, file: &Path) -> String {
    let first = file.strip_prefix(src).unwrap().components().next().unwrap();
    Path::new(first.as_os_str())
        .file_stem()
        .unwrap()
        .to_string_lossy()
        .into_owned()
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
