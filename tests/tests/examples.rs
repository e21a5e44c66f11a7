//! The example configs and the YAML in the guide: what people copy must be right. The example of the server's config shows every
//! key that the program has, with the words that stand at it in the source.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use petrel_tests::left_out;
use petrel_tests::process::{program, run_to_end};
use petrel_tests::tree::{Source, files, repository};

/// The structs that make up the server's config as written, and where they are.
const STRUCTS: [(&str, &str); 18] = [
    ("RawConfig", "config.rs"),
    ("TlsFiles", "config.rs"),
    ("AuthFiles", "config.rs"),
    ("RawStoreOptions", "store/options.rs"),
    ("RawEngine", "remote/config.rs"),
    ("RawRemote", "remote/config.rs"),
    ("RawRulesConfig", "decide/engine.rs"),
    ("RawQueryOptions", "query/limits.rs"),
    ("RawWriteLimits", "api/write/limits.rs"),
    ("RawScoreConfig", "score/config.rs"),
    ("RawPredictConfig", "predict/config.rs"),
    ("RawLimits", "predict/config.rs"),
    ("RawNotifyConfig", "notify/config.rs"),
    ("RawReceiver", "notify/config.rs"),
    ("RawWebhook", "notify/config.rs"),
    ("RawEmail", "notify/config.rs"),
    ("RawRoute", "notify/config.rs"),
    ("RawRemedy", "remedy/settings.rs"),
];

#[test]
fn the_servers_example_shows_every_key_with_its_words() {
    let example = read("deploy/petrel.example.yaml");
    let shown = keys_with_comments(&example);
    for (name, path) in STRUCTS {
        let source = read(&format!("server/src/{path}"));
        let fields = fields(&source, name);
        assert!(!fields.is_empty(), "{name} is not in {path}");
        for (key, words) in fields {
            assert!(
                shown.iter().any(|(k, w)| *k == key && *w == words),
                "deploy/petrel.example.yaml lacks `{key}` of {name} under the comment «{words}»"
            );
        }
    }
    // Every struct of the source that is read from the config file is in the list above.
    for source in files("server/src").iter().filter(|source| source.path.ends_with("config.rs")) {
        for (at, _) in source.text.match_indices("pub struct Raw") {
            let name: String =
                source.text[at + "pub struct ".len()..].chars().take_while(char::is_ascii_alphanumeric).collect();
            assert!(
                STRUCTS.iter().any(|(known, _)| *known == name),
                "{name} of {} is not checked here",
                source.path.display()
            );
        }
    }
}

#[test]
fn the_examples_pass_the_check_as_they_are_and_with_everything_switched_on() {
    let dir = Folder::new();
    dir.check("petrel.yaml", &read("deploy/petrel.example.yaml"));
    dir.check("agent.yaml", &read("deploy/petrel-agent.example.yaml"));
    // `#key: value`, with no space after the sign, is a key that is switched off.
    let all: String = read("deploy/petrel.example.yaml")
        .lines()
        .map(|line| match line.trim_start().strip_prefix('#') {
            Some(key) if !key.starts_with(' ') => format!("{}{key}\n", &line[..line.len() - key.len() - 1]),
            _ => format!("{line}\n"),
        })
        .collect();
    assert!(all.contains("\ntls:\n") && all.contains("\n    - name: oncall\n"), "{all}");
    dir.check("everything.yaml", &all);
}

#[test]
fn yaml_in_the_guide_passes_the_check() {
    let dir = Folder::new();
    let mut blocks = 0;
    for page in files("docs/guide") {
        for (n, block) in yaml_blocks(&page).into_iter().enumerate() {
            let stem = page.path.file_stem().and_then(|stem| stem.to_str()).expect("pages have names");
            dir.check(&format!("{stem}-{n}.yaml"), &block);
            blocks += 1;
        }
    }
    assert!(blocks >= 7, "the guide has {blocks} examples");
}

#[test]
fn systemd_takes_the_unit() {
    let name = "systemd_takes_the_unit";
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return left_out::note(name, "needs systemd-analyze");
    }
    let folder = tempfile::tempdir().expect("a folder for the test");
    let unit = folder.path().join("petrel-agent.service");
    let agent = program("petrel-agent").display().to_string();
    let text = read("deploy/petrel-agent.service");
    let placed = text.replace("ExecStart=/usr/bin/petrel-agent", &format!("ExecStart={agent}"));
    assert_ne!(text, placed, "the unit starts the agent");
    std::fs::write(&unit, placed).expect("it is writable");
    let output = Command::new("systemd-analyze").arg("verify").arg(&unit).output().expect("it ran before");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !words.contains("petrel-agent.service:"), "{words}");
}

/// A folder that stands for `/etc/petrel`, with the files that a config is checked with.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        let dir = tempfile::tempdir().expect("a folder for the test");
        for name in ["agent-tokens", "user-tokens"] {
            std::fs::write(dir.path().join(name), format!("{name} 0123456789abcdef{name}\n")).expect("it is writable");
        }
        std::fs::write(dir.path().join("fleet.yaml"), "clusters: []\n").expect("it is writable");
        Folder(dir)
    }

    /// Asserts that `petrel check` finds nothing.
    fn check(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        let text = text.replace("/etc/petrel/", &format!("{}/", self.0.path().display()));
        std::fs::write(&path, &text).expect("it is writable");
        let mut command = Command::new(program("petrel"));
        let log = self.0.path().join(format!("{name}.log"));
        let (code, output) = run_to_end(command.arg("check").arg(&path), &log, Duration::from_secs(20));
        assert_eq!(code, 0, "{output}\n{text}");
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(Path::new(path))).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The blocks of a page that are marked as YAML.
fn yaml_blocks(page: &Source) -> Vec<String> {
    let blocks = page.text.split("\n```yaml\n").skip(1);
    blocks.map(|rest| rest.split("\n```").next().unwrap_or("").to_owned() + "\n").collect()
}

/// Keys of a struct as YAML has them, with the words of their docs on one line.
fn fields(source: &str, name: &str) -> Vec<(String, String)> {
    let Some(body) = source.split(&format!("pub struct {name} {{\n")).nth(1) else { return Vec::new() };
    let body = body.split("\n}").next().unwrap_or("");
    let (mut found, mut words, mut renamed) = (Vec::new(), Vec::new(), None);
    for line in body.lines().map(str::trim) {
        if let Some(doc) = line.strip_prefix("///") {
            words.push(doc.trim());
        } else if let Some(rest) = line.split("rename = \"").nth(1) {
            renamed = rest.split('"').next();
        } else if let Some((field, _)) = line.strip_prefix("pub ").and_then(|rest| rest.split_once(':')) {
            found.push((renamed.take().unwrap_or(field).to_owned(), words.join(" ")));
            words.clear();
        }
    }
    found
}

/// Keys of an example, switched on or off, with the words of the comment directly above them.
fn keys_with_comments(example: &str) -> Vec<(String, String)> {
    let (mut found, mut words) = (Vec::new(), Vec::new());
    for line in example.lines().map(str::trim) {
        if let Some(comment) = line.strip_prefix("# ") {
            words.push(comment);
            continue;
        }
        let line = line.trim_start_matches('#').trim_start_matches("- ");
        if let Some((key, _)) = line.split_once(':') {
            found.push((key.to_owned(), words.join(" ")));
        }
        words.clear();
    }
    found
}
