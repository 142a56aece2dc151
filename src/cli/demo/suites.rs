//! Plausible tests of a suite: which there are, how they nest, how they end.

use rand::RngExt;
use rand::rngs::StdRng;

use super::plan::{Outcome, Test};

/// How healthy what is tested is: the chance of one test to fail.
#[derive(Clone, Copy, Debug)]
pub(super) struct Health {
    /// Chance that a test fails.
    pub(super) fail: f64,
    /// Chance that a test is skipped.
    pub(super) skip: f64,
}

const KSELFTEST: [&str; 24] = [
    "open",
    "close_range",
    "poll",
    "signal",
    "timeout",
    "wait",
    "restart",
    "inherit",
    "limit",
    "overflow",
    "permission",
    "nested",
    "concurrent",
    "unshare",
    "fork",
    "exec",
    "mmap",
    "mprotect",
    "namespace",
    "regs",
    "errno",
    "stress",
    "basic",
    "sanity",
];
const LTP: [&str; 30] = [
    "abort",
    "accept",
    "access",
    "bind",
    "brk",
    "chdir",
    "chmod",
    "clone",
    "dup",
    "epoll_ctl",
    "execve",
    "fallocate",
    "fanotify",
    "fcntl",
    "fork",
    "fsync",
    "futex_wait",
    "getdents",
    "inotify",
    "ioctl",
    "kill",
    "link",
    "madvise",
    "mmap",
    "mount",
    "openat",
    "pipe",
    "read",
    "sendfile",
    "splice",
];
const KUNIT: [&str; 16] = [
    "bitfields",
    "cpumask",
    "drm_buddy",
    "drm_format",
    "ext4_inode_test",
    "hashtable",
    "iov_iter",
    "kasan",
    "list_sort",
    "lru_cache",
    "overflow",
    "printf",
    "resource",
    "scanf",
    "slub_test",
    "time_test_cases",
];
const CODECS: [&str; 12] = [
    "AUD_MW_E",
    "BA1_Sony_D",
    "BAMQ1_JVC_C",
    "CABA1_SVA_B",
    "CANM_Frext",
    "CI1_FT_B",
    "CVPCMNL1_SVA_C",
    "FM1_BT_B",
    "HCBP2_HHI_A",
    "MR1_BT_A",
    "NL1_Sony_D",
    "SVA_Base_B",
];
const LATENCY: [&str; 4] = ["t0-max-latency", "t0-avg-latency", "t1-max-latency", "t1-avg-latency"];

/// The tests of a suite as they went.
pub(super) fn run(suite: &str, health: Health, rng: &mut StdRng) -> Vec<Test> {
    let family = suite.split('.').next().unwrap_or(suite);
    let collection = suite.split_once('.').map_or(suite, |(_, rest)| rest);
    match family {
        "boot" => boot(health, rng),
        "kselftest" => {
            let cases = (0..rng.random_range(4..24)).map(|n| format!("{collection}_{}", word(&KSELFTEST, n)));
            wrapped(collection, cases, health, rng)
        }
        "ltp" => (0..rng.random_range(8..60))
            .map(|n| leaf(format!("{}{:02}", LTP[n % 30], n / 30 + 1), health, rng))
            .collect(),
        "kunit" => kunit(health, rng),
        "fluster" | "h26forge" => {
            let vectors = (0..rng.random_range(6..12)).map(|n| CODECS[n].to_owned());
            wrapped("validate-decoder", vectors, health, rng)
        }
        "rt-tests" => wrapped(collection, LATENCY.iter().map(|name| (*name).to_owned()), health, rng),
        "kvm-unit-tests" => {
            let names = ["pmu", "gicv3-ipi", "selftest-setup", "timer", "vmexit", "psci", "cache", "apic"];
            names.iter().map(|name| leaf((*name).to_owned(), health, rng)).collect()
        }
        "dtbs_check" => wrapped("schema", (0..20).map(|n| format!("soc-{n:02}.dtb")), health, rng),
        _ => {
            let names = ["setup", "run", "check-log"];
            names.iter().map(|name| leaf((*name).to_owned(), health, rng)).collect()
        }
    }
}

fn word(words: &[&str], n: usize) -> String {
    match n / words.len() {
        0 => words[n].to_owned(),
        round => format!("{}_{}", words[n % words.len()], round + 1),
    }
}

fn boot(health: Health, rng: &mut StdRng) -> Vec<Test> {
    let log = ["crit", "alert", "emerg"].map(|level| leaf(level.to_owned(), health, rng));
    let login = Test { name: "login".to_owned(), outcome: Outcome::Pass, children: Vec::new() };
    vec![login, group("dmesg", log.into())]
}

fn kunit(health: Health, rng: &mut StdRng) -> Vec<Test> {
    let suites = KUNIT.iter().map(|suite| {
        let cases =
            (0..rng.random_range(3..12)).map(|n| leaf(format!("{suite}_test_{n}"), health, rng)).collect();
        group(suite, cases)
    });
    vec![group("exec", suites.collect())]
}

/// What most suites look like: a shard with its cases.
fn wrapped(name: &str, cases: impl Iterator<Item = String>, health: Health, rng: &mut StdRng) -> Vec<Test> {
    let cases = cases.map(|case| leaf(case, health, rng)).collect();
    vec![leaf("setup".to_owned(), Health { fail: 0.0, skip: 0.0 }, rng), group(name, cases)]
}

fn leaf(name: String, health: Health, rng: &mut StdRng) -> Test {
    let dice: f64 = rng.random();
    let outcome = match dice {
        dice if dice < health.fail => Outcome::Fail,
        dice if dice < health.fail + health.skip => Outcome::Skip,
        _ => Outcome::Pass,
    };
    Test { name, outcome, children: Vec::new() }
}

/// A test with tests below: fails if one of them does, is skipped if all of them are.
fn group(name: &str, children: Vec<Test>) -> Test {
    let any = |outcome| children.iter().any(|test: &Test| test.outcome == outcome);
    let outcome = match () {
        () if any(Outcome::Fail) => Outcome::Fail,
        () if any(Outcome::Pass) => Outcome::Pass,
        () => Outcome::Skip,
    };
    Test { name: name.to_owned(), outcome, children }
}
