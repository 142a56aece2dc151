//! The names and the wiring of a real kernel CI, from `catalogue.json`.

use std::collections::BTreeMap;

use anyhow::Context;
use serde::Deserialize;

/// Jobs that start with the checkout itself are scheduled under this name.
pub const CHECKOUT: &str = "checkout";

/// What the file says.
#[derive(Debug, Deserialize)]
pub struct Catalogue {
    /// Tree → URL of its git repository.
    pub trees: BTreeMap<String, String>,
    /// Tree and branch of what is checked out.
    pub checkouts: Vec<(String, String)>,
    /// Boards.
    pub platforms: Vec<Platform>,
    /// Builds by name.
    pub builds: BTreeMap<String, Build>,
    /// Job → test suite.
    pub jobs: BTreeMap<String, String>,
    /// Build → jobs that start when it is available.
    pub schedule: BTreeMap<String, Vec<Schedule>>,
}

/// Name, architecture, machine family, boot method.
#[derive(Debug, Deserialize)]
pub struct Platform(pub String, pub Option<String>, pub Option<String>, pub Option<String>);

/// Architecture, compiler, defconfigs, fragments.
#[derive(Debug, Deserialize)]
pub struct Build(pub String, pub String, pub Vec<String>, pub Vec<String>);

/// Job, runtime, indexes of platforms.
#[derive(Debug, Deserialize)]
pub struct Schedule(pub String, pub String, pub Vec<usize>);

impl Catalogue {
    /// The one that is built into the program.
    pub fn built_in() -> anyhow::Result<Catalogue> {
        serde_json::from_str(include_str!("catalogue.json")).context("catalogue.json")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_named_is_there() {
        let catalogue = Catalogue::built_in().unwrap();
        assert!(catalogue.checkouts.len() > 100 && catalogue.builds.len() > 150);
        for (tree, _) in &catalogue.checkouts {
            assert!(catalogue.trees.contains_key(tree), "{tree}");
        }
        for (build, jobs) in &catalogue.schedule {
            assert!(build == CHECKOUT || catalogue.builds.contains_key(build), "{build}");
            for Schedule(job, _, platforms) in jobs {
                assert!(catalogue.jobs.contains_key(job), "{job}");
                assert!(!platforms.is_empty(), "{job}");
                assert!(platforms.iter().all(|at| *at < catalogue.platforms.len()), "{job}");
            }
        }
    }
}
