//! Telemetry (contract 7.2). Adding up is done where the records are.

use async_trait::async_trait;

use crate::error::Result;
use crate::model::Timestamp;
use crate::model::telemetry::Sample;
use crate::store::Wire;

/// Most groups of one answer.
pub const MOST_GROUPS: usize = 10_000;

/// Records of what happened to jobs. They are removed when they are older than the setting says.
#[async_trait]
pub trait Telemetry {
    /// Adds records.
    async fn add_samples(&self, samples: &[Sample]) -> Result<()>;
    /// A page of the records that match, in the order in which they came, and how many match.
    async fn find_samples(&self, which: &Which, limit: u64, offset: u64) -> Result<Samples>;
    /// Records that match and follow a page that has ended at `end`; how many match in all is not said.
    async fn more_samples(&self, which: &Which, end: &str, limit: u64) -> Result<Samples>;
    /// Adds the records up that agree in the labels `by`: groups of at least `least` records, largest first, at most
    /// [`MOST_GROUPS`].
    async fn group_samples(&self, which: &Which, by: &[&'static str], least: u64) -> Result<Vec<Group>>;
}

/// A page of records.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// The records.
    pub items: Vec<Wire>,
    /// How many match.
    pub total: u64,
    /// Where the page ends, in words of the store; none if nothing is on it.
    pub end: Option<String>,
}

/// Which records; conditions are AND-ed.
#[derive(Clone, Debug, Default)]
pub struct Which {
    /// Labels with the value that they must have.
    pub labels: Vec<(&'static str, String)>,
    /// Members of `extra`, as a path of names, with the text that they must be.
    pub extra: Vec<(Vec<String>, String)>,
    /// One of these kinds; none: any.
    pub kinds: Vec<&'static str>,
    /// A label that must be there and not be empty.
    pub having: Option<&'static str>,
    /// Whether the lab was to blame.
    pub is_infra_error: Option<bool>,
    /// Which attempt it was.
    pub retry: Option<i64>,
    /// From this time on.
    pub since: Option<Timestamp>,
    /// Up to this time.
    pub until: Option<Timestamp>,
}

/// Records that agree in some labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// The labels that they agree in.
    pub by: Vec<Option<String>>,
    /// How many there are.
    pub total: u64,
    /// How many of them have this `result`.
    pub pass: u64,
    /// Likewise.
    pub fail: u64,
    /// Likewise.
    pub incomplete: u64,
    /// Likewise.
    pub skip: u64,
    /// How many were the lab's fault.
    pub infra_error: u64,
    /// When the newest happened.
    pub last_seen: Timestamp,
    /// `error_type` of the newest.
    pub error_type: Option<String>,
    /// `error_msg` of the newest.
    pub error_msg: Option<String>,
}
