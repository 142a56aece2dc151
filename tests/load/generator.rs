//! Runs `kernelci-live load`.

use std::process::{Command, Output};

use serde_json::Value;

use crate::support::PASSWORD;

/// A finished run.
pub(crate) struct Run {
    pub(crate) success: bool,
    /// What it printed, both ways.
    pub(crate) text: String,
    /// What it wrote with `--json`.
    pub(crate) json: Value,
}

/// Loads the server at `url`; `arguments` are separated by spaces.
pub(crate) async fn load(url: &str, arguments: &str) -> Run {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("report.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_kernelci-live"));
    command.arg("load").args(arguments.split(' ')).args(["--url", url, "--json"]).arg(&file);
    command.env_clear().env("KCI_PASSWORD", PASSWORD).env("RUST_BACKTRACE", "1");
    let ended = tokio::task::spawn_blocking(move || command.output()).await;
    let Output { status, stdout, stderr } = ended.expect("runs").expect("runs");
    let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    let json = std::fs::read_to_string(&file).unwrap_or_else(|_| "null".to_owned());
    Run { success: status.success(), text, json: serde_json::from_str(&json).expect("JSON") }
}

impl Run {
    /// A good run has these figures, and times of these.
    pub(crate) fn good(&self, figures: &[&str], latencies: &[&str]) -> &Run {
        assert!(self.success && self.json["valid"] == true, "{}\n{:#}", self.text, self.json);
        for figure in figures {
            assert!(self.json["figures"][figure].is_number(), "{figure}: {:#}", self.json);
        }
        for latency in latencies {
            let times = &self.json["latencies"][latency];
            for column in ["p50", "p90", "p99", "max"] {
                assert!(times[column].as_f64().is_some_and(|time| time > 0.0), "{latency}: {:#}", self.json);
            }
            assert!(self.text.contains(latency), "{}", self.text);
        }
        self
    }

    /// A figure.
    pub(crate) fn figure(&self, name: &str) -> f64 {
        self.json["figures"][name].as_f64().unwrap_or_else(|| panic!("{name}: {:#}", self.json))
    }

    /// How many times were measured.
    pub(crate) fn count(&self, name: &str) -> u64 {
        self.json["latencies"][name]["count"].as_u64().unwrap_or_else(|| panic!("{name}: {:#}", self.json))
    }
}
