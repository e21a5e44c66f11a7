//! Prometheus' own PromQL scripts through remote write and the query API of a real `petrel serve`, where the conformance
//! tools stand beside the checkout.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use petrel_tests::left_out;
use petrel_tests::process::{program, run};

/// Evaluations of the given scripts that must pass: all that do not ask for native histograms.
const PASSES_MIN: &str = "356";

#[test]
fn prometheus_own_scripts_give_prometheus_answers() {
    let name = "conformance: PromQL scripts";
    let (Some(compat), Some(data)) = (left_out::shared("compat", name), left_out::shared("data/promqltest", name))
    else {
        return;
    };
    let dir = tempfile::tempdir().expect("a folder for the test");
    let start = dir.path().join("start");
    let line = format!(
        "#!/bin/sh\nexec {} serve --listen 127.0.0.1:$1 --data \"$2\" --retention off\n",
        program("petrel").display()
    );
    std::fs::write(&start, line).expect("the test's folder is writable");
    std::fs::set_permissions(&start, std::fs::Permissions::from_mode(0o755))
        .expect("an own file can be made executable");
    let mut scripts: Vec<_> =
        std::fs::read_dir(&data).expect("the folder is there").flatten().map(|entry| entry.path()).collect();
    scripts.retain(|path| path.extension().is_some_and(|end| end == "test"));
    let mut command = Command::new("python3");
    command.arg(compat.join("promqltest.py")).env("PYTHONDONTWRITEBYTECODE", "1");
    command.arg("--server-cmd").arg(format!("{} {{port}} {{data}}", start.display()));
    let told = run(command.args(["--min-pass", PASSES_MIN]).args(&scripts));
    println!("{}", told.lines().last().unwrap_or_default());
}
