//! What a run has shown, as text and as JSON.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::{Map, Value};

use super::board::Faults;
use super::processes::{SERVER, Used, machine};

/// A run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    scenario: &'static str,
    adapter: &'static str,
    version: &'static str,
    time: String,
    machine: String,
    parameters: Map<String, Value>,
    /// Whether everything came, once and in order; without that there are no figures.
    valid: bool,
    faults: Faults,
    seconds: f64,
    figures: Map<String, Value>,
    latencies: Map<String, Value>,
    processes: Vec<Used>,
}

/// The percentiles of some times, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Latency {
    count: u64,
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl Report {
    /// A report without figures.
    pub(super) fn new(scenario: &'static str, adapter: &'static str) -> Report {
        Report {
            scenario,
            adapter,
            version: env!("CARGO_PKG_VERSION"),
            time: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            machine: machine(),
            parameters: Map::new(),
            valid: false,
            faults: Faults::default(),
            seconds: 0.0,
            figures: Map::new(),
            latencies: Map::new(),
            processes: Vec::new(),
        }
    }

    /// With what the run was told.
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Report {
        self.parameters.insert(name.to_owned(), value.into());
        self
    }

    /// What is wrong with the run; several parts of it add up.
    pub(super) fn faults(&mut self, faults: Faults) {
        self.faults.add(faults);
    }

    /// How long the measured part took, and what was used in it.
    pub(super) fn measured(&mut self, seconds: f64, used: Vec<Used>) {
        (self.seconds, self.processes) = (seconds, used);
    }

    /// A figure; what cannot be told is left out. The name ends with its unit.
    pub(super) fn figure(&mut self, name: &str, value: impl Into<Option<f64>>) {
        if let Some(value) = value.into().filter(|value| value.is_finite()) {
            let digits = if value.abs() < 1000.0 { 1000.0 } else { 10.0 };
            let value = (value * digits).round() / digits;
            let whole = value.fract() == 0.0 && value.abs() < 1e15;
            self.figures.insert(name.to_owned(), if whole { (value as i64).into() } else { value.into() });
        }
    }

    /// Times that were measured in microseconds.
    pub(super) fn latency(&mut self, name: &str, times: &Histogram<u64>) {
        if times.is_empty() {
            return;
        }
        let ms = |micros: f64| (micros.round()) / 1e3;
        let at = |quantile: f64| ms(times.value_at_quantile(quantile) as f64);
        let latency = Latency {
            count: times.len(),
            mean: ms(times.mean()),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: ms(times.max() as f64),
        };
        self.latencies.insert(name.to_owned(), serde_json::to_value(latency).unwrap_or_default());
    }

    /// CPU seconds of the server.
    pub(super) fn server_cpu(&self) -> Option<f64> {
        let server = self.processes.iter().find(|used| used.name == SERVER)?;
        // Less than a few ticks of its clock says nothing.
        (server.cpu_seconds > 0.02).then_some(server.cpu_seconds)
    }

    /// Prints it, writes it, and fails if the run is not valid.
    pub(super) fn finish(mut self, json: Option<&PathBuf>) -> Result<()> {
        self.valid = self.faults.none();
        if !self.valid {
            // Nobody shall quote them.
            self.figures.clear();
            self.latencies.clear();
        }
        print!("{}", self.text());
        if let Some(path) = json {
            let text = serde_json::to_string_pretty(&self)?;
            std::fs::write(path, text + "\n").with_context(|| format!("--json {}", path.display()))?;
        }
        if !self.valid {
            let first = self.faults.first.as_deref().unwrap_or("no details");
            bail!("the run is not valid: {first}");
        }
        Ok(())
    }

    fn text(&self) -> String {
        let mut text = format!("{} on {}", self.scenario, self.adapter);
        for (name, value) in &self.parameters {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let _ = write!(text, "  {name} {value}");
        }
        let _ = writeln!(text, "\n{}  {}  {:.2} s", self.machine, self.time, self.seconds);
        if !self.valid {
            let Faults { lost, doubled_or_disordered, wrong, cut, refused, .. } = &self.faults;
            let _ = writeln!(
                text,
                "NOT VALID: {lost} lost, {doubled_or_disordered} doubled or out of order, {wrong} wrong, \
                 {cut} connections cut, {refused} refused"
            );
            return text;
        }
        for (name, value) in &self.figures {
            let _ = writeln!(text, "  {name:<44} {:>14}", shown(value));
        }
        if !self.latencies.is_empty() {
            let columns =
                ["count", "mean", "p50", "p90", "p99", "p99.9", "max"].map(|name| format!("{name:>10}"));
            let _ = writeln!(text, "  {:<24}{}", "milliseconds", columns.concat());
        }
        for (name, latency) in &self.latencies {
            let columns = latency.as_object().into_iter().flat_map(Map::values);
            let columns: String = columns.map(|value| format!("{:>10}", shown(value))).collect();
            let _ = writeln!(text, "  {name:<24}{columns}");
        }
        if !self.processes.is_empty() {
            let columns =
                ["CPU s", "CPU %", "RSS kB", "grown", "anon kB", "grown"].map(|name| format!("{name:>11}"));
            let _ = writeln!(text, "  {:<12}{}", "process", columns.concat());
        }
        for used in &self.processes {
            let _ = writeln!(
                text,
                "  {:<12}{:>11.2}{:>11.1}{:>11}{:>11}{:>11}{:>11}",
                used.name,
                used.cpu_seconds,
                used.cpu_percent,
                used.rss_kb,
                used.rss_growth_kb,
                used.anonymous_kb,
                used.anonymous_growth_kb
            );
        }
        text
    }
}

fn shown(value: &Value) -> String {
    match value.as_f64() {
        Some(number) if value.is_f64() && number.abs() < 1000.0 => format!("{number:.3}"),
        Some(number) => format!("{number:.0}"),
        None => value.to_string(),
    }
}
