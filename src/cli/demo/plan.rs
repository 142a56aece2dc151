//! What a checkout will do, step by step, without doing it: the same seed gives the same plan. The player of the
//! demo, tests and benchmarks take their workload from here.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value, json};

pub use crate::model::node::Outcome;

use super::catalogue::{Build, CHECKOUT, Catalogue, Platform, Schedule};
use super::suites::{self, Health};

/// Where the artifacts of the demo would be.
const STORAGE: &str = "https://files.kernelci.example";

/// How much of the catalogue a checkout uses.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Builds of a checkout at most.
    pub builds: usize,
    /// Jobs of a build at most.
    pub jobs: usize,
}

/// A run: one revision of one branch, everything built from it and tested on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkout {
    /// Identifies the run's tree of nodes.
    pub treeid: String,
    /// Who asked for it.
    pub submitter: String,
    /// `data.kernel_revision` of all its nodes.
    pub revision: Value,
    /// How long it takes until the source is ready.
    pub fetch: Duration,
    /// `Some`: it never is.
    pub failure: Option<Failure>,
    /// Artifacts of the source.
    pub artifacts: Value,
    /// What is built from it.
    pub builds: Vec<KernelBuild>,
    /// What runs on the source itself.
    pub jobs: Vec<Job>,
}

/// A kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelBuild {
    /// Name, e.g. `kbuild-gcc-14-arm64`.
    pub name: String,
    /// `data` without the revision.
    pub data: Map<String, Value>,
    /// When it begins after the source is ready.
    pub wait: Duration,
    /// How long it takes.
    pub work: Duration,
    /// `Some`: there is no kernel.
    pub failure: Option<Failure>,
    /// Kernel, modules, log; only the log if it failed.
    pub artifacts: Value,
    /// What runs on it.
    pub jobs: Vec<Job>,
}

/// A suite of tests on one board.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Name, e.g. `baseline-arm64`.
    pub name: String,
    /// `data` without the revision.
    pub data: Map<String, Value>,
    /// How long until a board is free.
    pub wait: Duration,
    /// How long it takes.
    pub work: Duration,
    /// What happened each time: the last try is what counts, those before it ended incomplete.
    pub tries: Vec<Try>,
}

/// One try of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct Try {
    /// The board.
    pub device: String,
    /// `Some`: there is no result.
    pub failure: Option<Failure>,
    /// What was found.
    pub tests: Vec<Test>,
    /// The log.
    pub artifacts: Value,
}

/// A test, with the tests that it consists of.
#[derive(Clone, Debug, PartialEq)]
pub struct Test {
    /// Name within what it is part of.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Its parts.
    pub children: Vec<Test>,
}

/// Why something did not come to its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// `fail` if what was examined is to blame, `incomplete` if the infrastructure is.
    pub outcome: Outcome,
    /// `data.error_code`.
    pub code: &'static str,
    /// `data.error_msg`.
    pub message: String,
}

impl Failure {
    fn new(outcome: Outcome, code: &'static str, message: impl Into<String>) -> Failure {
        Failure { outcome, code, message: message.into() }
    }
}

impl Test {
    /// How many tests this is, itself included.
    pub fn count(&self) -> usize {
        1 + self.children.iter().map(Test::count).sum::<usize>()
    }
}

impl Job {
    /// How it ends.
    pub fn outcome(&self) -> Outcome {
        self.tries.last().map_or(Outcome::Skip, Try::outcome)
    }
}

impl Try {
    /// How it ends.
    pub fn outcome(&self) -> Outcome {
        let any = |outcome| self.tests.iter().any(|test| test.outcome == outcome);
        match &self.failure {
            Some(failure) => failure.outcome,
            None if any(Outcome::Fail) => Outcome::Fail,
            None if any(Outcome::Pass) => Outcome::Pass,
            None => Outcome::Skip,
        }
    }
}

impl Checkout {
    /// The `number`th checkout of a seed. Neighbouring numbers have nothing in common.
    pub fn plan(catalogue: &Catalogue, seed: u64, number: u64, scale: Scale) -> Checkout {
        let mut rng =
            StdRng::seed_from_u64(seed ^ number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let nowhere = (String::new(), String::new());
        let (tree, branch) = catalogue.checkouts.choose(&mut rng).unwrap_or(&nowhere);
        let revision = revision(catalogue, tree, branch, &mut rng);
        let treeid = hex(&mut rng, 64);
        let describe = revision["describe"].as_str().unwrap_or_default().to_owned();
        let failure = rng.random_bool(0.02).then(|| {
            let message = format!("cannot fetch {branch}: the remote end hung up unexpectedly");
            Failure::new(Outcome::Incomplete, "git_checkout_failure", message)
        });
        let mut plan = Planner { catalogue, seed, describe, broken: None, scale, rng };
        let builds = if failure.is_some() { Vec::new() } else { plan.builds() };
        let jobs = if failure.is_some() { Vec::new() } else { plan.jobs(CHECKOUT, None, 1) };
        let tarball = format!("{STORAGE}/linux-{tree}-{branch}-{}.tar.gz", plan.describe);
        Checkout {
            treeid,
            submitter: "service:pipeline".to_owned(),
            revision,
            fetch: minutes(&mut plan.rng, 1.0, 4.0),
            artifacts: json!({"tarball": url(&tarball)}),
            failure,
            builds,
            jobs,
        }
    }
}

/// What is fixed while one checkout is planned.
struct Planner<'a> {
    catalogue: &'a Catalogue,
    seed: u64,
    describe: String,
    /// The configuration that does not compile in this revision.
    broken: Option<String>,
    scale: Scale,
    rng: StdRng,
}

impl Planner<'_> {
    fn builds(&mut self) -> Vec<KernelBuild> {
        let catalogue = self.catalogue;
        // What something runs on comes first, so that a small demo has tests to show; the rest is only built.
        let mut names: Vec<&String> = catalogue.builds.keys().collect();
        names.shuffle(&mut self.rng);
        let with_jobs = self.scale.builds - self.scale.builds / 4;
        let (mut tested, mut untested): (Vec<_>, Vec<_>) =
            names.into_iter().partition(|name| catalogue.schedule.contains_key(*name));
        let rest = tested.split_off(with_jobs.min(tested.len()));
        untested.truncate(self.scale.builds - tested.len());
        tested.extend(untested);
        tested.extend(rest.into_iter().take(self.scale.builds - tested.len()));
        if self.rng.random_bool(0.4) {
            let any = tested.choose(&mut self.rng).and_then(|name| catalogue.builds.get(*name));
            self.broken = any.and_then(|build| build.2.first().cloned());
        }
        tested.into_iter().filter_map(|name| Some(self.build(name, catalogue.builds.get(name)?))).collect()
    }

    fn build(&mut self, name: &str, build: &Build) -> KernelBuild {
        let Build(arch, compiler, defconfigs, fragments) = build;
        let defconfig = defconfigs.first().cloned().unwrap_or_default();
        let config: Vec<&str> = defconfigs.iter().chain(fragments).map(String::as_str).collect();
        let mut failure = None;
        if self.broken.as_ref() == Some(&defconfig) {
            let message =
                format!("{arch} {defconfig}: drivers/gpu/drm/drm_panel.c:117: implicit declaration");
            failure = Some(Failure::new(Outcome::Fail, "Bug", message));
        } else if self.rng.random_bool(0.03) {
            let message = "the build pod was evicted: the node was low on memory";
            failure = Some(Failure::new(Outcome::Incomplete, "kbuild_internal_error", message));
        }
        let job_id = format!("kci-{}-{}", name.replace('_', "-"), hex(&mut self.rng, 8));
        let data = object(json!({
            "arch": arch,
            "compiler": compiler,
            "defconfig": defconfig,
            "config_full": config.join("+"),
            "fragments": fragments,
            "platform": "kubernetes",
            "runtime": "k8s-all",
            "job_id": job_id,
            "job_context": "gke_android-kernelci-external_europe-west4-c_kci-eu-west4",
            "kernel_type": if arch == "arm" { "zimage" } else { "image" },
        }));
        let at = format!("{STORAGE}/{}-{name}-{}", self.describe, hex(&mut self.rng, 12));
        let mut artifacts = json!({"build_log": url(&format!("{at}/build.log"))});
        if failure.is_none() {
            artifacts = json!({
                "kernel": url(&format!("{at}/{}", if arch == "arm" { "zImage" } else { "Image" })),
                "modules": url(&format!("{at}/modules.tar.xz")),
                "_config": url(&format!("{at}/.config")),
                "build_log": url(&format!("{at}/build.log")),
                "metadata": url(&format!("{at}/metadata.json")),
            });
        }
        let most = self.scale.jobs;
        let jobs = if failure.is_none() { self.jobs(name, Some(build), most) } else { Vec::new() };
        KernelBuild {
            name: name.to_owned(),
            data,
            wait: minutes(&mut self.rng, 0.2, 8.0),
            work: minutes(&mut self.rng, 5.0, 20.0),
            failure,
            artifacts,
            jobs,
        }
    }

    /// What the schedule starts on `parent`, on every board that it names.
    fn jobs(&mut self, parent: &str, build: Option<&Build>, most: usize) -> Vec<Job> {
        let catalogue = self.catalogue;
        let schedule = catalogue.schedule.get(parent).map(Vec::as_slice).unwrap_or_default();
        let mut runs: Vec<(&Schedule, &Platform)> = Vec::new();
        for entry in schedule {
            runs.extend(entry.2.iter().filter_map(|at| Some((entry, catalogue.platforms.get(*at)?))));
        }
        runs.shuffle(&mut self.rng);
        runs.truncate(most);
        runs.into_iter().map(|(entry, platform)| self.job(entry, platform, build)).collect()
    }

    fn job(&mut self, schedule: &Schedule, platform: &Platform, build: Option<&Build>) -> Job {
        let Schedule(name, runtime, _) = schedule;
        let suite = self.catalogue.jobs.get(name).map_or("boot", String::as_str);
        let mut data = object(json!({
            "platform": platform.0,
            "runtime": runtime,
            "test_source": "https://github.com/kernelci/kernelci-core.git",
        }));
        if let Some(Build(arch, compiler, defconfigs, fragments)) = build {
            let config: Vec<&str> = defconfigs.iter().chain(fragments).map(String::as_str).collect();
            data.insert("arch".into(), arch.as_str().into());
            data.insert("compiler".into(), compiler.as_str().into());
            data.insert("defconfig".into(), defconfigs.first().map_or("", String::as_str).into());
            data.insert("config_full".into(), config.join("+").into());
        }
        let flaky = self.is_flaky(&platform.0);
        let mut tries = Vec::new();
        loop {
            let attempt = self.attempt(name, suite, platform, flaky);
            let again = attempt.failure.as_ref().is_some_and(|failure| failure.code == "Infrastructure");
            tries.push(attempt);
            if !again || tries.len() == 3 {
                break;
            }
        }
        Job {
            name: name.clone(),
            data,
            wait: minutes(&mut self.rng, 0.1, 12.0),
            work: minutes(&mut self.rng, 1.0, 15.0),
            tries,
        }
    }

    fn attempt(&mut self, name: &str, suite: &str, platform: &Platform, flaky: bool) -> Try {
        let device = format!("{}-{}", platform.0, self.rng.random_range(1..=5));
        let dice: f64 = self.rng.random();
        let (infrastructure, timeout) = if flaky { (0.35, 0.45) } else { (0.01, 0.025) };
        let failure = if dice < infrastructure {
            let message = format!("{device}: no prompt from the boot loader after 300 s");
            Some(Failure::new(Outcome::Incomplete, "Infrastructure", message))
        } else if dice < timeout {
            Some(Failure::new(Outcome::Incomplete, "node_timeout", "Node timed-out"))
        } else if suite.starts_with("boot") && dice > 0.96 {
            let message = "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)";
            Some(Failure::new(Outcome::Fail, "Test", message))
        } else {
            None
        };
        let health = match self.rng.random_range(0..10) {
            0 => Health { fail: 0.25, skip: 0.05 },
            1 | 2 => Health { fail: 0.03, skip: 0.1 },
            _ => Health { fail: 0.0, skip: 0.04 },
        };
        let tests = if failure.is_none() { suites::run(suite, health, &mut self.rng) } else { Vec::new() };
        let at = format!("{STORAGE}/{}-{name}-{}", self.describe, hex(&mut self.rng, 12));
        let artifacts = json!({
            "lava_log": url(&format!("{at}/log.txt.gz")),
            "callback_data": url(&format!("{at}/lava_callback.json.gz")),
        });
        Try { device, failure, tests, artifacts }
    }

    /// One board in ten is. It stays so over all checkouts of a seed, or it would not be the board.
    fn is_flaky(&self, platform: &str) -> bool {
        let mut hash = self.seed ^ 0xcbf2_9ce4_8422_2325;
        for byte in platform.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        (hash >> 32).is_multiple_of(10)
    }
}

fn revision(catalogue: &Catalogue, tree: &str, branch: &str, rng: &mut StdRng) -> Value {
    let commit = hex(rng, 40);
    // A stable branch says which version it is; the others are ahead.
    let digits = branch.split(|letter: char| !letter.is_ascii_digit() && letter != '.');
    let named = digits.filter_map(|part| part.split_once('.')).find_map(|(version, patchlevel)| {
        Some((version.parse::<u64>().ok()?, patchlevel.split('.').next()?.parse::<u64>().ok()?))
    });
    let (version, patchlevel) = named.unwrap_or((7, 2));
    let short = commit.get(..12).unwrap_or_default();
    let (sublevel, extra) = match named {
        Some(_) => (Some(rng.random_range(1..200)), format!("-{}-g{short}", rng.random_range(1..300))),
        None => (None, format!("-rc{}-{}-g{short}", rng.random_range(1..8), rng.random_range(1..900))),
    };
    let dotted = sublevel.map(|sublevel: u32| format!(".{sublevel}")).unwrap_or_default();
    json!({
        "tree": tree,
        "url": catalogue.trees.get(tree),
        "branch": branch,
        "commit": commit,
        "describe": format!("v{version}.{patchlevel}{dotted}{extra}"),
        "version": {"version": version, "patchlevel": patchlevel, "sublevel": sublevel, "extra": extra, "name": null},
        "commit_tags": [],
        "tip_of_branch": true,
    })
}

/// A length of time in minutes of a real CI.
fn minutes(rng: &mut StdRng, from: f64, to: f64) -> Duration {
    // Whole milliseconds, so that a plan can be compared and printed.
    Duration::from_millis((rng.random_range(from..to) * 60_000.0) as u64)
}

fn hex(rng: &mut StdRng, digits: usize) -> String {
    (0..digits).map(|_| char::from_digit(rng.random_range(0..16), 16).unwrap_or('0')).collect()
}

/// Branch names may have anything in them.
fn url(text: &str) -> String {
    text.replace(['#', '?', ' '], "-")
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCALE: Scale = Scale { builds: 12, jobs: 10 };

    #[test]
    fn the_same_seed_gives_the_same_plan() {
        let catalogue = Catalogue::built_in().unwrap();
        let plan = |seed, number| Checkout::plan(&catalogue, seed, number, SCALE);
        assert_eq!(plan(1, 3), plan(1, 3));
        assert_ne!(plan(1, 3), plan(1, 4));
        assert_ne!(plan(1, 3), plan(2, 3));
    }

    #[test]
    fn plans_keep_to_their_scale_and_show_everything_that_happens_in_a_ci() {
        let catalogue = Catalogue::built_in().unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for number in 0..60 {
            let plan = Checkout::plan(&catalogue, 7, number, SCALE);
            assert!(plan.builds.len() <= SCALE.builds);
            assert_eq!(plan.builds.is_empty(), plan.failure.is_some());
            for build in &plan.builds {
                assert!(build.jobs.len() <= SCALE.jobs);
                seen.extend(build.failure.as_ref().map(|failure| failure.code));
                for job in &build.jobs {
                    assert!(!job.tries.is_empty());
                    seen.extend((job.tries.len() > 1).then_some("retry"));
                    for attempt in &job.tries {
                        assert_eq!(attempt.failure.is_some(), attempt.tests.is_empty());
                        seen.extend(attempt.failure.as_ref().map(|failure| failure.code));
                        assert!(attempt.tests.iter().map(Test::count).sum::<usize>() < 300);
                    }
                    seen.insert(match job.outcome() {
                        Outcome::Pass => "pass",
                        Outcome::Fail => "fail",
                        Outcome::Skip => "skip",
                        Outcome::Incomplete => "incomplete",
                    });
                }
            }
        }
        for expected in
            ["Bug", "kbuild_internal_error", "Infrastructure", "node_timeout", "retry", "pass", "fail"]
        {
            assert!(seen.contains(expected), "no {expected} in {seen:?}");
        }
    }

    #[test]
    fn nothing_at_all_is_a_plan_too() {
        let catalogue = Catalogue::built_in().unwrap();
        let plan = Checkout::plan(&catalogue, 1, 1, Scale { builds: 0, jobs: 0 });
        assert!(plan.builds.is_empty());
    }
}
