//! What processes use: the server, its back ends, and the load generator itself. From `/proc`; elsewhere nothing is told.

use std::collections::HashSet;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::metrics::process::{TICKS, read_stat};

/// A process that is looked at, as `--process` names it.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    name: String,
    by: By,
}

#[derive(Clone, Copy, Debug)]
enum By {
    Id(u32),
    Port(u16),
}

impl std::str::FromStr for Watched {
    type Err = String;

    fn from_str(text: &str) -> Result<Watched, String> {
        let wrong = || "expected NAME=PID or NAME=:PORT".to_owned();
        let (name, by) = text.split_once('=').ok_or_else(wrong)?;
        let by = match by.strip_prefix(':') {
            Some(port) => By::Port(port.parse().map_err(|_| wrong())?),
            None => By::Id(by.parse().map_err(|_| wrong())?),
        };
        Ok(Watched { name: name.to_owned(), by })
    }
}

impl Watched {
    /// Whoever listens on this port.
    pub(super) fn listener(name: &str, port: u16) -> Watched {
        Watched { name: name.to_owned(), by: By::Port(port) }
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn find(&self) -> Option<(String, u32)> {
        let id = match self.by {
            By::Id(id) => id,
            By::Port(port) => listener(port)?,
        };
        Some((self.name.clone(), id))
    }
}

/// The processes of a run, and what they had used when it began.
pub(super) struct Processes {
    all: Vec<(String, u32)>,
    before: Vec<Option<Use>>,
    machine_before: Option<Duration>,
    began: Instant,
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Use {
    pub(super) cpu: Duration,
    pub(super) resident_kb: u64,
    pub(super) anonymous_kb: u64,
}

/// What a process used in a run.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Used {
    pub(super) name: String,
    pub(super) cpu_seconds: f64,
    /// Of one core, on average.
    pub(super) cpu_percent: f64,
    pub(super) rss_kb: u64,
    pub(super) anonymous_kb: u64,
    pub(super) rss_growth_kb: i64,
    pub(super) anonymous_growth_kb: i64,
}

impl Processes {
    /// Finds them. One that was asked for by its id has to be there.
    pub(super) fn find(watched: &[Watched]) -> Result<Processes> {
        let mut all = Vec::new();
        for one in watched {
            match (one.find(), one.by) {
                (Some((_, id)), By::Id(_)) if look(id).is_none() && cfg!(target_os = "linux") => {
                    bail!("--process {}={id}: there is no such process", one.name);
                }
                (Some(found), _) => all.push(found),
                (None, _) => {}
            }
        }
        all.push(("generator".to_owned(), std::process::id()));
        let mut processes =
            Processes { all, before: Vec::new(), machine_before: None, began: Instant::now() };
        processes.begin();
        Ok(processes)
    }

    /// The run begins now.
    pub(super) fn begin(&mut self) {
        self.before = self.all.iter().map(|(_, id)| look(*id)).collect();
        self.machine_before = machine_cpu();
        self.began = Instant::now();
    }

    /// What was used since the run began.
    pub(super) fn used(&self) -> Vec<Used> {
        let seconds = self.began.elapsed().as_secs_f64().max(1e-3);
        let each = self.all.iter().zip(&self.before).filter_map(|((name, id), before)| {
            let (before, now) = ((*before)?, look(*id)?);
            let cpu = now.cpu.saturating_sub(before.cpu).as_secs_f64();
            let growth = |now: u64, before: u64| now as i64 - before as i64;
            Some(Used {
                name: name.clone(),
                cpu_seconds: cpu,
                cpu_percent: cpu / seconds * 100.0,
                rss_kb: now.resident_kb,
                anonymous_kb: now.anonymous_kb,
                rss_growth_kb: growth(now.resident_kb, before.resident_kb),
                anonymous_growth_kb: growth(now.anonymous_kb, before.anonymous_kb),
            })
        });
        let mut each: Vec<Used> = each.collect();
        let all: f64 = each.iter().map(|used| used.cpu_seconds).sum();
        if let (Some(before), Some(now)) = (self.machine_before, machine_cpu()) {
            // The clocks of processes and of the machine differ by some ticks.
            let others = (now.saturating_sub(before).as_secs_f64() - all).max(0.0);
            each.push(Used {
                name: OTHERS.to_owned(),
                cpu_seconds: others,
                cpu_percent: others / seconds * 100.0,
                ..Used::default()
            });
        }
        each
    }

    /// What the server has used so far; `None` if it could not be found.
    pub(super) fn server(&self) -> Option<Use> {
        let (_, id) = self.all.iter().find(|(name, _)| name == SERVER)?;
        look(*id)
    }
}

/// The name of the server's process.
pub(super) const SERVER: &str = "server";

/// Everything else on the machine: if that is much, the figures are worth little.
const OTHERS: &str = "others";

/// CPU time of all processes of the machine so far.
fn machine_cpu() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    // user, nice, system
    let fields = stat.lines().next()?.split_whitespace().skip(1).take(3);
    let ticks: Vec<f64> = fields.map_while(|field| field.parse().ok()).collect();
    (ticks.len() == 3).then(|| Duration::from_secs_f64(ticks.iter().sum::<f64>() / TICKS))
}

/// What a process has used so far.
fn look(id: u32) -> Option<Use> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let kilobytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim_start_matches(':').split_whitespace().next()?.parse().ok()
    };
    Some(Use {
        cpu: read_stat(&stat)?.cpu,
        resident_kb: kilobytes("VmRSS")?,
        anonymous_kb: kilobytes("RssAnon")?,
    })
}

/// The process that listens on a TCP port of this machine.
fn listener(port: u16) -> Option<u32> {
    let sockets: HashSet<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| listening(&table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if sockets.is_empty() {
        return None;
    }
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.find(|id| {
        let files = fs::read_dir(format!("/proc/{id}/fd")).into_iter().flatten().flatten();
        files
            .filter_map(|file| fs::read_link(file.path()).ok())
            .any(|target| target.to_str().is_some_and(|target| sockets.contains(target)))
    })
}

/// The inodes of the sockets in this table (proc(5)) that listen on a port.
fn listening(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let port = format!(":{port:04X}");
    let is = |fields: &[&str]| fields.len() > 9 && fields[1].ends_with(&port) && fields[3] == LISTEN;
    let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.filter(|fields| is(fields)).map(|fields| fields[9].to_owned()).collect()
}

/// The machine, for the record.
pub(super) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown processor");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{cores} cores of {model}, Linux {}", kernel.trim())
}

/// `Context` for a figure that needs the server's process.
pub(super) fn needed<T>(figure: Option<T>) -> Result<T> {
    figure.context(
        "the server's process is not on this machine or cannot be looked at; --process server=PID names it",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_listener_is_found_by_its_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let watched = Watched::listener(SERVER, port);
        assert_eq!(watched.find(), Some((SERVER.to_owned(), std::process::id())));
        let processes = Processes::find(&[watched]).unwrap();
        assert!(processes.server().unwrap().anonymous_kb > 0);
        assert_eq!(processes.used().len(), 3, "the server, the generator, all others");
    }

    #[test]
    fn processes_are_named_by_id_or_port() {
        assert!(matches!("mongod=:27017".parse::<Watched>().unwrap().by, By::Port(27017)));
        assert!(matches!("server=12".parse::<Watched>().unwrap().by, By::Id(12)));
        assert!("server".parse::<Watched>().is_err() && "server=x".parse::<Watched>().is_err());
    }
}
