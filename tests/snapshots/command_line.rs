//! The help of `kernelci-live` and of every command below it.

use std::process::Command;

use super::{Pages, compare};

fn help(commands: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kernelci-live"));
    // Without the environment, whose values it would show.
    let output = command.env_clear().args(commands).arg("--help").output().expect("runs");
    assert!(output.status.success(), "{commands:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// The commands that a help text lists, without `help` itself.
fn below(text: &str) -> Vec<String> {
    let listed = text.split_once("\nCommands:\n").map_or("", |(_, rest)| rest);
    let lines = listed.lines().take_while(|line| !line.is_empty());
    // What goes on from the line before stands further to the right.
    let names = lines.filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')));
    let names = names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    names.map(str::to_owned).collect()
}

#[test]
fn help_of_all_commands() {
    let (mut pages, mut open) = (Pages::new(), vec![Vec::new()]);
    while let Some(commands) = open.pop() {
        let text = help(&commands.iter().map(String::as_str).collect::<Vec<_>>());
        let one_more = |name| [commands.clone(), vec![name]].concat();
        open.extend(below(&text).into_iter().map(one_more));
        let name = ["kernelci-live".to_owned()].into_iter().chain(commands).collect::<Vec<_>>().join(" ");
        pages.insert(name, text);
    }
    for name in ["serve", "demo", "watch", "load", "indexes", "load fan-out"] {
        assert!(pages.contains_key(&format!("kernelci-live {name}")), "{:?}", pages.keys());
    }
    compare("help", &pages, |_| true);
}
