//! The edges between packages and between the folders of the server, as ARCHITECTURE.md lists them, against the `use` lines.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use petrel_tests::tree::{Source, files, repository, sources};

/// Words that every part of the server may use.
const VOCABULARY: [&str; 3] = ["series", "telemetry", "clock"];

/// Allowed paths per module: `None` stands for all.
type Edges = BTreeMap<String, Option<BTreeSet<String>>>;

#[test]
fn server_modules_use_only_what_the_architecture_allows() {
    let text = fs::read_to_string(repository().join("ARCHITECTURE.md")).unwrap();
    let edges = read_edges(&text);
    assert!(edges.len() > 5, "ARCHITECTURE.md lists the edges between `edges: begin` and `edges: end`");
    let problems: Vec<String> =
        sources("server/src").iter().flat_map(|source| forbidden_uses(source, &edges)).collect();
    assert!(problems.is_empty(), "edges that ARCHITECTURE.md does not list:\n{}", problems.join("\n"));
}

#[test]
fn packages_use_only_what_is_below_them() {
    let below = [
        ("models", &["petrel_agent", "petrel_server", "petrel_tests"][..]),
        ("agent", &["petrel_server", "petrel_tests"]),
    ];
    for (package, forbidden) in below {
        for source in sources(&format!("{package}/src")) {
            for word in forbidden {
                assert!(!source.code().contains(word), "{}: {package} may not use {word}", source.path.display());
            }
        }
    }
}

#[test]
fn the_check_sees_a_forbidden_edge() {
    let edges =
        read_edges("<!-- edges: begin -->\n- query: -\n- rules: query, store::control\n- app: *\n<!-- edges: end -->");
    let check = |path: &str, text: &str| {
        forbidden_uses(&Source { path: format!("server/src/{path}").into(), text: text.to_owned() }, &edges).len()
    };
    assert_eq!(check("query/mod.rs", "use crate::store::Store;"), 1);
    assert_eq!(check("query/mod.rs", "use crate::{series::Labels, store::Store};"), 1);
    assert_eq!(check("query/mod.rs", "fn f() { crate::store::open() }"), 1);
    assert_eq!(check("query/mod.rs", "use crate::series::Labels;\nuse crate::query::ast;"), 0);
    assert_eq!(check("rules/mod.rs", "use crate::store::control::Control;"), 0);
    assert_eq!(check("rules/mod.rs", "use crate::store::heads::Head;"), 1);
    assert_eq!(check("query/mod.rs", "use super::store::Store;"), 1, "the way through the root");
    assert_eq!(check("query/eval/mod.rs", "use super::super::{series::Labels, store::Store};"), 1);
    assert_eq!(check("query/eval/mod.rs", "use super::store::Store;\nuse super::super::rates;"), 1);
    assert_eq!(check("query/eval/grid.rs", "use super::super::ast;"), 0);
    assert_eq!(check("app.rs", "use crate::remedy::Remedy;"), 0);
    assert_eq!(check("unlisted.rs", "use crate::remedy::Remedy;"), 1);
    assert_eq!(check("query/mod.rs", "#[cfg(test)]\nmod tests { use crate::store::Store; }"), 0);
}

#[test]
fn every_path_on_the_map_exists() {
    let text = fs::read_to_string(repository().join("ARCHITECTURE.md")).unwrap();
    let paths = named_paths(&text);
    assert!(paths.len() > 50, "ARCHITECTURE.md names the files of both lives; found {paths:?}");
    let missing: Vec<&String> = paths.iter().filter(|path| !repository().join(path).exists()).collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md names what is not there: {missing:?}");
}

/// Links of the pages that people read first and from there on lead to files.
#[test]
fn every_link_of_the_pages_leads_somewhere() {
    let pages =
        files("docs").into_iter().chain(files("").into_iter().filter(|page| page.path.components().count() == 1));
    let mut broken = Vec::new();
    for page in pages.filter(|page| page.path.extension().is_some_and(|end| end == "md")) {
        let folder = repository().join(page.path.parent().expect("a file lies in a folder"));
        for (at, _) in page.text.match_indices("](") {
            let target = page.text[at + 2..].split([')', '#']).next().unwrap_or("");
            if !target.is_empty() && !target.contains("://") && !folder.join(target).exists() {
                broken.push(format!("{}: {target}", page.path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
}

#[test]
fn the_check_sees_the_paths_of_a_page() {
    let text = "`server/src/app.rs`, `tests/run` and `agent/`, but not `petrel runs` or `haproxy.*` or `/proc`";
    let found: Vec<String> = named_paths(text).into_iter().collect();
    assert_eq!(found, ["agent/", "server/src/app.rs", "tests/run"]);
}

/// What stands in backquotes and begins with a folder of the tree.
fn named_paths(text: &str) -> BTreeSet<String> {
    let folders = ["models/", "agent/", "server/", "tests/", "dashboards/", "deploy/", "docs/"];
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(|word| folders.iter().any(|folder| word.starts_with(folder))).map(str::to_owned).collect()
}

fn read_edges(text: &str) -> Edges {
    let listed =
        text.lines().skip_while(|line| !line.contains("edges: begin")).take_while(|line| !line.contains("edges: end"));
    listed
        .filter_map(|line| line.strip_prefix("- ")?.split_once(':'))
        .map(|(module, allowed)| {
            let allowed: BTreeSet<String> = allowed.split(',').map(|word| word.trim().to_owned()).collect();
            let all = allowed.contains("*");
            (module.trim().to_owned(), (!all).then_some(allowed))
        })
        .collect()
}

/// Uses of other modules, `crate::module::…`, that the module of this file may not make. Tests may use what they like.
fn forbidden_uses(source: &Source, edges: &Edges) -> Vec<String> {
    let module = source.module();
    if module == "lib" || VOCABULARY.contains(&module.as_str()) {
        return Vec::new();
    }
    let allowed = match edges.get(&module) {
        Some(None) => return Vec::new(),
        Some(Some(allowed)) => allowed.clone(),
        None => BTreeSet::new(),
    };
    let code = source.code();
    let from_root = crate_paths(&code, "crate::");
    let from_here = crate_paths(&code, &"super::".repeat(source.depth()));
    from_root
        .into_iter()
        .chain(from_here)
        .filter(|path| {
            let first = path.split("::").next().unwrap_or("");
            let permitted = allowed.iter().any(|edge| path == edge || path.starts_with(&format!("{edge}::")));
            first != module && !VOCABULARY.contains(&first) && !permitted
        })
        .map(|path| format!("{}: {module} uses crate::{path}", source.path.display()))
        .collect()
}

/// All paths that follow `root` (`crate::`, or as many `super::` as lead there), groups in braces spread out.
fn crate_paths(code: &str, root: &str) -> Vec<String> {
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let mut paths = Vec::new();
    for (at, _) in code.match_indices(root) {
        let rest = &code[at + root.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let inner = &group[..group.find(';').unwrap_or(group.len())];
            let mut depth = 0;
            for part in inner.split_inclusive([',', '{', '}']) {
                let path: String = part.trim().chars().take_while(|c| is_path(*c)).collect();
                if depth == 0 && !path.is_empty() {
                    paths.push(path.trim_end_matches(':').to_owned());
                }
                depth += i32::from(part.ends_with('{')) - i32::from(part.ends_with('}'));
                if depth < 0 {
                    break;
                }
            }
        } else {
            let path: String = rest.chars().take_while(|c| is_path(*c)).collect();
            paths.push(path.trim_end_matches(':').to_owned());
        }
    }
    paths
}
