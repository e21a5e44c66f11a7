//! The rules of style that no compiler checks, over every file of the tree.

use petrel_tests::tree::{Source, files, sources};

/// Lines of a source file without its inline tests.
const FILE_LINES_MAX: usize = 500;

/// Words that say nothing about what a file or type is for.
const NAMES_FORBIDDEN: [&str; 6] = ["util", "helper", "common", "misc", "manager", "part2"];

#[test]
fn every_source_file_is_tidy() {
    let problems: Vec<String> = ["models", "agent", "server", "tests", "fuzz"]
        .iter()
        .flat_map(|package| sources(package))
        .flat_map(|source| untidy(&source))
        .collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn no_path_of_one_machine_is_in_the_tree() {
    // Written in pieces, so that this file does not hold what it looks for.
    let words = [concat!("/wo", "rk/"), concat!("/root", "/."), concat!("/home", "/")];
    let found: Vec<String> = files("")
        .iter()
        .filter(|file| !file.path.ends_with("Cargo.lock"))
        .flat_map(|file| {
            let hits = file.text.lines().enumerate().filter(|(_, line)| words.iter().any(|word| line.contains(word)));
            hits.map(|(n, line)| format!("{}:{}: {line}", file.path.display(), n + 1)).collect::<Vec<_>>()
        })
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn one_tls_stack_is_built() {
    let lock =
        &files("").into_iter().find(|file| file.path.ends_with("Cargo.lock")).expect("Cargo.lock is committed").text;
    for package in ["openssl-sys", "native-tls", "aws-lc-sys", "aws-lc-rs"] {
        assert!(
            !lock.contains(&format!("name = \"{package}\"")),
            "{package} came into Cargo.lock; TLS is rustls with ring alone"
        );
    }
}

#[test]
fn the_check_sees_untidy_files() {
    let problems = |path: &str, text: &str| untidy(&Source { path: path.into(), text: text.to_owned() }).len();
    assert_eq!(problems("server/src/query/ast.rs", "//! Fine.\n"), 0);
    assert_eq!(problems("server/src/query/ast.rs", "struct NoHeader;\n"), 1);
    assert_eq!(problems("server/src/query/helpers.rs", "//! Bad name.\n"), 1);
    assert_eq!(problems("server/src/a.rs", &format!("//! Long.\n{}", "fn f() {}\n".repeat(FILE_LINES_MAX + 1))), 1);
    for line in [
        "#[allow(dead_code)]",
        "#[ignore]",
        "x.unwrap();",
        "panic!()",
        "std::env::var(\"X\")",
        "// TODO: later",
        "todo!()",
    ] {
        assert_eq!(problems("server/src/a.rs", &format!("//! Fine.\n{line}\n")), 1, "{line}");
    }
    assert_eq!(problems("server/src/a.rs", "//! Fine.\n#[cfg(test)]\nmod tests { fn f() { x.unwrap(); } }\n"), 0);
    assert_eq!(problems("models/src/a.rs", "//! Fine.\nuse std::time::Instant;\n"), 1);
    assert_eq!(problems("server/src/decide/a.rs", "//! Fine.\nlet now = Utc::now();\n"), 1);
}

fn untidy(source: &Source) -> Vec<String> {
    let path = source.path.display().to_string();
    let code = source.code();
    let mut problems = Vec::new();
    let mut say = |problem: String| problems.push(format!("{path}: {problem}"));
    if !source.text.starts_with("//!") {
        say("does not open with //! and what the file is for".to_owned());
    }
    let lines = code.lines().count();
    if lines > FILE_LINES_MAX {
        say(format!("{lines} lines without its tests; split it by concept below {FILE_LINES_MAX}"));
    }
    let stem = source.path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("");
    if stem.split('_').any(|word| NAMES_FORBIDDEN.iter().any(|bad| word.trim_end_matches('s') == *bad)) {
        say("its name says nothing about what it is for".to_owned());
    }
    let in_tests = source.is_test();
    for (pattern, why) in forbidden(&path, in_tests) {
        // Whole text for marks that tests may not have either, code alone for the rest.
        let text =
            if matches!(pattern, "#[ignore" | "#[should_panic" | "TODO" | "todo!(") { &source.text } else { &code };
        if text.contains(pattern) && !path.ends_with("tests/tests/tidy.rs") {
            say(format!("`{pattern}`: {why}"));
        }
    }
    problems
}

fn forbidden(path: &str, in_tests: bool) -> Vec<(&'static str, &'static str)> {
    let mut rules = vec![
        ("#[allow(", "write #[expect(lint, reason = \"…\")]"),
        ("#[ignore", "a test runs, or says that it was left out"),
        ("#[should_panic", "assert on the error"),
        ("TODO", "open an issue and name its number"),
        ("todo!(", "finish it"),
        ("unimplemented!(", "finish it"),
    ];
    if !in_tests {
        rules.extend([
            (".unwrap()", "return an error, or `expect` with the reason it cannot fail"),
            ("panic!(", "return an error"),
        ]);
        if !path.ends_with("config.rs") && !path.ends_with("main.rs") {
            rules.push(("env::var", "environment variables are read in config.rs alone"));
        }
    }
    let reads_clock = path.ends_with("run_loop.rs") || path.ends_with("main.rs") || path.ends_with("clock.rs");
    if path.starts_with("models/") {
        rules.extend([
            ("std::time::Instant", "models take the time as an argument"),
            ("SystemTime", "models take the time as an argument"),
            ("thread::spawn", "models have no threads"),
            ("std::fs", "models do no I/O"),
            ("println!(", "models do no I/O"),
            ("HashMap", "its order differs from run to run; use BTreeMap or a Vec"),
        ]);
    } else if path.starts_with("server/") && !reads_clock {
        rules.extend([("Utc::now(", "take `now: Timestamp`"), ("SystemTime::now(", "take `now: Timestamp`")]);
    }
    rules
}
