//! What the operating system says of this process, under the names that Prometheus' own clients use. Read from
//! `/proc`; where there is none, nothing is shown.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{
    PROCESS_CPU, PROCESS_FDS, PROCESS_MAX_FDS, PROCESS_RSS, PROCESS_START, PROCESS_THREADS, PROCESS_VIRTUAL,
};

/// Clock ticks a second and bytes a page, as Linux shows them to programs on every common architecture.
pub(crate) const TICKS: f64 = 100.0;
const PAGE: f64 = 4096.0;

/// Sets the gauges. Blocks for as long as listing the open files takes.
pub(super) fn collect() {
    if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(read_stat) {
        PROCESS_CPU.counter(&[]).absolute(stat.cpu.as_secs());
        PROCESS_THREADS.set(&[], stat.threads);
        PROCESS_VIRTUAL.set(&[], stat.virtual_bytes);
        PROCESS_RSS.set(&[], stat.resident_bytes);
        if let Some(booted) = booted() {
            PROCESS_START.set(&[], booted + stat.started.as_secs_f64());
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // One of them is the folder itself.
        PROCESS_FDS.set(&[], open.count().saturating_sub(1) as f64);
    }
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let most = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    if let Some(most) = most.and_then(|rest| rest.split_whitespace().next()?.parse().ok()) {
        PROCESS_MAX_FDS.set(&[], most);
    }
}

/// What `/proc/PID/stat` says of a process.
pub(crate) struct Stat {
    /// CPU time so far.
    pub(crate) cpu: Duration,
    threads: f64,
    started: Duration,
    virtual_bytes: f64,
    resident_bytes: f64,
}

/// Reads `/proc/PID/stat`. The second field is the program's name in parentheses, which may hold anything.
pub(crate) fn read_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // `field(3)` is the first one behind the name, as in proc(5).
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    Some(Stat {
        cpu: Duration::from_secs_f64((field(14)? + field(15)?) / TICKS),
        threads: field(20)?,
        started: Duration::from_secs_f64(field(22)? / TICKS),
        virtual_bytes: field(23)?,
        resident_bytes: field(24)? * PAGE,
    })
}

/// When the machine was started, in seconds since 1970.
fn booted() -> Option<f64> {
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    Some(SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs_f64() - uptime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_full_of_spaces_and_parentheses_does_not_shift_the_fields() {
        let rest = (4..=52).map(|n| (n * 100).to_string()).collect::<Vec<_>>().join(" ");
        let stat = read_stat(&format!("12 (a ) b (c)) S {rest}")).unwrap();
        assert_eq!(stat.cpu, Duration::from_secs(14 + 15));
        assert_eq!((stat.threads, stat.started), (2000.0, Duration::from_secs(22)));
        assert_eq!((stat.virtual_bytes, stat.resident_bytes), (2300.0, 2400.0 * PAGE));
        assert!(read_stat("12 (short) S 1").is_none());
    }
}
