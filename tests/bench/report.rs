//! The table, a line at a time, and the arithmetic behind it.

use std::time::Duration;

use serde_json::json;

use crate::support::Backend;

/// How often everything is measured; the table shows the medians.
pub(crate) const RUNS: usize = 3;

/// Prints figures as they come.
pub(crate) struct Report {
    json: bool,
}

/// One figure.
pub(crate) struct Figure<'a> {
    pub(crate) name: &'a str,
    pub(crate) backend: Option<Backend>,
    pub(crate) unit: &'a str,
    /// One value a run.
    pub(crate) ours: &'a [f64],
    /// What it is compared with; one value a run.
    pub(crate) peer: Option<(&'a str, &'a [f64])>,
}

impl Report {
    pub(crate) fn new(json: bool) -> Report {
        if !json {
            println!(
                "{:<34} {:<10} {:>10} {:>7}  {:<40} {:>10}  {:>9}",
                "figure", "on", "ours", "unit", "peer or bound", "", "ours/peer"
            );
        }
        Report { json }
    }

    pub(crate) fn add(&mut self, figure: Figure<'_>) {
        let on = match figure.backend {
            Some(Backend::Embedded) => "embedded",
            Some(Backend::Production) => "production",
            None => "-",
        };
        let (name, unit, ours) = (figure.name, figure.unit, median(figure.ours));
        let peer = figure.peer.map(|(peer, values)| (peer, median(values)));
        if self.json {
            let line = json!({"figure": name, "on": on, "unit": unit, "ours": ours, "runs": figure.ours,
                "peer": peer.map(|peer| peer.0), "peer_value": peer.map(|peer| peer.1),
                "ratio": peer.map(|peer| ours / peer.1)});
            println!("{line}");
            return;
        }
        let (peer, value, ratio) = match peer {
            Some((peer, value)) => (peer, shown(value), format!("{:.2}", ours / value)),
            None => ("", String::new(), String::new()),
        };
        println!("{name:<34} {on:<10} {:>10} {unit:>7}  {peer:<40} {value:>10}  {ratio:>9}", shown(ours));
    }
}

fn shown(value: f64) -> String {
    if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

/// The value in the middle.
pub(crate) fn median(values: &[f64]) -> f64 {
    percentile(values, 50)
}

/// The value that so many of a hundred do not exceed.
pub(crate) fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() * percent).div_ceil(100).clamp(1, sorted.len()) - 1]
}

/// For a column in milliseconds.
pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
