//! The modules have one order, and a file imports only what stands to the left.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The modules from left to right. Those of the first group are one ground to stand on and may import each other; in
/// other groups, too, a module imports what stands to its left.
const ORDER: [&[&str]; 20] = [
    &["model", "digest", "secret", "clock"],
    &["config", "filter", "metrics"],
    &["catalog"],
    &["http"],
    &["jelly"],
    &["spool"],
    &["fetch"],
    &["store"],
    &["source"],
    &["inbox"],
    &["ingest"],
    &["archive"],
    &["walk"],
    &["audit"],
    &["notify"],
    &["worker"],
    &["web"],
    &["cli"],
    &["lib"],
    &["main"],
];

/// The group of a module, and its place in it.
fn place(module: &str) -> (usize, usize) {
    let mut groups = ORDER.iter().enumerate();
    let found = groups.find_map(|(group, modules)| Some((group, modules.iter().position(|name| *name == module)?)));
    found.unwrap_or_else(|| panic!("module {module} has no place in the order; give it one, here and in src/lib.rs"))
}

/// Every source file, with the names of its module and of those it stands in.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The code of a file, without comments and without the tests at its end.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let is_test = line.trim() == "#[cfg(test)]";
        if is_test && lines.peek().is_some_and(|next| next.starts_with("mod ") && next.ends_with('{')) {
            break;
        }
        if !line.trim_start().starts_with("//") {
            code.push_str(line);
            code.push('\n');
        }
    }
    code
}

/// The modules that code names by a path from the crate's root. `depth` is how many modules the file stands in.
fn imports(code: &str, depth: usize) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let up = "super::".repeat(depth);
    for root in ["crate::", "jellyjar::", up.as_str()] {
        for (at, _) in code.match_indices(root).filter(|_| !root.is_empty()) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let rest = &code[at + root.len()..];
            match rest.strip_prefix('{') {
                Some(group) => found.extend(heads_of(group)),
                None => found.extend(head_of(rest)),
            }
        }
    }
    found
}

/// The first name of a path.
fn head_of(text: &str) -> Option<String> {
    let name: String = text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// The first names of the paths in a group, up to its closing brace.
fn heads_of(group: &str) -> Vec<String> {
    let (mut depth, mut start, mut heads) = (0, 0, Vec::new());
    for (at, sign) in group.char_indices() {
        match sign {
            '{' => depth += 1,
            '}' if depth == 0 => {
                heads.extend(head_of(group[start..at].trim()));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                heads.extend(head_of(group[start..at].trim()));
                start = at + 1;
            }
            _ => {}
        }
    }
    heads
}

/// What a file breaks of the order.
fn offences(module: &str, imports: &BTreeSet<String>) -> Vec<String> {
    let allowed = |import: &String| match (module, import.as_str()) {
        (module, import) if module == import => true,
        ("sim", import) => ["digest", "clock"].contains(&import),
        (module, "sim") => module == "cli",
        (module, import) => place(import) < place(module) || place(import).0 == 0 && place(module).0 == 0,
    };
    imports.iter().filter(|import| !allowed(import)).map(|import| format!("{module} imports {import}")).collect()
}

#[test]
fn files_import_only_what_stands_to_the_left() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 50, "{}", files.len());
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for path in files {
        let place = path.strip_prefix(&root).unwrap().with_extension("");
        let names: Vec<&str> = place.iter().map(|name| name.to_str().unwrap()).collect();
        if names.iter().any(|name| *name == "tests" || name.ends_with("_tests")) {
            continue;
        }
        let module = names[0];
        if module == "lib" {
            continue;
        }
        let imports = imports(&code(&std::fs::read_to_string(&path).unwrap()), names.len());
        seen += imports.len();
        wrong.extend(offences(module, &imports).into_iter().map(|what| format!("{}: {what}", path.display())));
    }
    assert!(seen > 100, "only {seen} imports were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_import_against_the_order_would_be_found() {
    let text = "use std::fmt;\nuse crate::{catalog::{Job, Lease}, cli};\n// crate::web\nfn f() { crate::sim::x(); \
                super::super::worker::y(); super::z(); }\n#[cfg(test)]\nmod tests {\n    use crate::main;\n}\n";
    let found = imports(&code(text), 2);
    assert_eq!(found, ["catalog", "cli", "sim", "worker"].map(String::from).into());
    assert_eq!(offences("store", &found), ["store imports cli", "store imports sim", "store imports worker"]);
    assert_eq!(offences("sim", &["model".into(), "digest".into()].into()), ["sim imports model"]);
    assert_eq!(offences("http", &["http".into(), "config".into()].into()), Vec::<String>::new());
}
