//! Telemetry: adding records, reading them, adding them up (contract 7.2). What stands out is in [`anomalies`].

mod anomalies;
mod filter;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use anomalies::anomalies;

use super::events::weigh;
use super::long_page::{PageOf, Part, Piece, page};
use super::loose::Loose;
use super::{Context, Object};
use crate::error::{Error, Kind, Result};
use crate::model::Timestamp;
use crate::model::problem::short;
use crate::model::telemetry::{Sample, fitted};
use crate::store::telemetry::{Group, MOST_GROUPS, Which};

/// Most records of one request.
const MOST_ADDED: usize = 10_000;
/// Records that are read at a time.
const MOST_FOUND: u64 = 1000;

/// Parameters that `GET /telemetry` takes from the query; the others are labels.
pub const REST: &[&str] = &["since", "until", "is_infra_error", "limit", "offset"];

/// Records to add.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Add {
    /// 1 to 10,000 records: `kind` and `runtime`, and whatever is known of `ts` (default: now; at most a day from now),
    /// `device_type, device_id, job_name, test_name, job_id, node_id, tree, branch, arch, result, is_infra_error,
    /// error_type, error_msg, retry, extra`. Of a record of more than 16 KiB long texts are cut, with a mark.
    #[schemars(with = "Vec<Object>")]
    events: Value,
}

/// How many records were added.
#[derive(Serialize, JsonSchema)]
pub struct Added {
    inserted: usize,
}

/// Which records.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Find {
    /// Values of labels, e.g. `{"kind":"job_result","runtime":"lab-x"}`, of `retry`, or of members of `extra` on dotted
    /// paths; or the text of a query string.
    #[serde(default)]
    #[schemars(with = "Option<filter::Labels>")]
    filter: Option<Value>,
    /// From this ISO date on.
    #[serde(default)]
    since: Option<String>,
    /// Up to this ISO date.
    #[serde(default)]
    until: Option<String>,
    /// Whether the lab was to blame.
    #[serde(default)]
    is_infra_error: Option<Loose>,
    /// 1 or more; default 50. A session's message holds at most 1,000.
    #[serde(default)]
    #[schemars(range(min = 1))]
    limit: Option<u64>,
    /// So many are passed over.
    #[serde(default)]
    #[schemars(range(min = 0))]
    offset: Option<u64>,
}

/// What to add up.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stats {
    /// Labels by which to group, separated by commas: `runtime, lab` (the same), `device_type, device_id, job_name, tree,
    /// branch, arch, kind, error_type`.
    #[serde(default)]
    group_by: Option<String>,
    /// Only records with this kind; likewise the next ones.
    #[serde(default)]
    kind: Option<String>,
    /// `runtime`
    #[serde(default)]
    runtime: Option<String>,
    /// Another name of `runtime`.
    #[serde(default)]
    lab: Option<String>,
    /// `device_type`
    #[serde(default)]
    device_type: Option<String>,
    /// `device_id`
    #[serde(default)]
    device_id: Option<String>,
    /// `job_name`
    #[serde(default)]
    job_name: Option<String>,
    /// `tree`
    #[serde(default)]
    tree: Option<String>,
    /// `branch`
    #[serde(default)]
    branch: Option<String>,
    /// `arch`
    #[serde(default)]
    arch: Option<String>,
    /// From this ISO date on.
    #[serde(default)]
    since: Option<String>,
    /// Up to this ISO date.
    #[serde(default)]
    until: Option<String>,
}

/// Sums, largest first.
#[derive(Serialize, JsonSchema)]
pub struct Sums {
    /// The labels grouped by, `total, pass, fail, incomplete, skip, infra_error`; at most 10,000.
    items: Vec<Object>,
    /// Whether there may be more groups, none of them larger. (Over REST the header `X-Total-Truncated` says so.)
    truncated: bool,
}

/// Adds records: all of them, or none if one is wrong.
pub async fn add(context: Context, params: Add) -> Result<Added> {
    let Value::Array(events) = &params.events else {
        return Err(item("list_type", json!(["body"]), "Input should be a valid list", &params.events));
    };
    if events.is_empty() {
        return Err(Error::bad_request("Events list cannot be empty"));
    }
    if events.len() > MOST_ADDED {
        return Err(Error::new(Kind::TooLarge, format!("a request adds at most {MOST_ADDED} records")));
    }
    let now = Timestamp::now();
    let mut samples = Vec::with_capacity(events.len());
    for (index, event) in events.iter().enumerate() {
        let Value::Object(event) = event else {
            return Err(item(
                "dict_type",
                json!(["body", index]),
                "Input should be a valid dictionary",
                event,
            ));
        };
        let event = fitted(event);
        if let Some(extra) = event.get("extra") {
            weigh("extra", extra)?;
        }
        samples.push(Sample::read(&event, now)?);
    }
    context.app.store.add_samples(&samples).await?;
    Ok(Added { inserted: samples.len() })
}

/// An item of a 422 as FastAPI would write it.
fn item(kind: &str, loc: Value, msg: &str, input: &Value) -> Error {
    let item = json!({"type": kind, "loc": loc, "msg": msg, "input": short(input)});
    Error::new(Kind::InvalidParams, vec![item])
}

/// A page of records, in the order in which they came.
pub async fn find(context: Context, params: Find) -> Result<PageOf<Object>> {
    let page = page(params.limit, params.offset)?;
    let mut which = filter::read(params.filter.as_ref())?;
    which.is_infra_error = infra_error(params.is_infra_error.as_ref())?;
    span(&mut which, params.since.as_deref(), params.until.as_deref())?;
    let asker = context.clone();
    let read = move |part: Part| {
        let (context, which) = (asker.clone(), which.clone());
        async move {
            let _turn = context.search(true).await?;
            let Part { limit, offset, behind } = part;
            let found = match behind {
                None => context.app.store.find_samples(&which, limit, offset).await?,
                // The oldest may expire while somebody reads.
                Some(behind) => context.app.store.more_samples(&which, &behind, limit).await?,
            };
            Ok(Piece { items: found.items, total: found.total, behind: found.end })
        }
    };
    PageOf::read(&context, page, MOST_FOUND, read).await
}

fn infra_error(given: Option<&Loose>) -> Result<Option<bool>> {
    let bad = || Error::bad_request("Bad is_infra_error value, use 'true' or 'false'");
    match given {
        None => Ok(None),
        Some(Loose::Flag(flag)) => Ok(Some(*flag)),
        Some(Loose::Text(text)) if text.eq_ignore_ascii_case("true") => Ok(Some(true)),
        Some(Loose::Text(text)) if text.eq_ignore_ascii_case("false") => Ok(Some(false)),
        Some(_) => Err(bad()),
    }
}

fn span(which: &mut Which, since: Option<&str>, until: Option<&str>) -> Result<()> {
    let date =
        |text: Option<&str>| text.filter(|text| !text.is_empty()).map(Timestamp::parse_iso).transpose();
    (which.since, which.until) = (date(since)?, date(until)?);
    Ok(())
}

/// The names by which one can group, and the labels that they stand for.
const GROUPS: [(&str, &str); 10] = [
    ("runtime", "runtime"),
    ("lab", "runtime"),
    ("device_type", "device_type"),
    ("device_id", "device_id"),
    ("job_name", "job_name"),
    ("tree", "tree"),
    ("branch", "branch"),
    ("arch", "arch"),
    ("kind", "kind"),
    ("error_type", "error_type"),
];

/// How records went, grouped by labels.
pub async fn stats(context: Context, params: Stats) -> Result<Sums> {
    let names = group_names(params.group_by.as_deref())?;
    let mut which = Which::default();
    let runtime = match (params.runtime, params.lab) {
        (Some(runtime), Some(lab)) if runtime != lab => {
            return Err(Error::bad_request("'lab' and 'runtime' must match when both are provided"));
        }
        (runtime, lab) => runtime.or(lab),
    };
    let labels = [
        ("kind", params.kind),
        ("runtime", runtime),
        ("device_type", params.device_type),
        ("device_id", params.device_id),
        ("job_name", params.job_name),
        ("tree", params.tree),
        ("branch", params.branch),
        ("arch", params.arch),
    ];
    let given = labels.into_iter().filter_map(|(label, value)| Some((label, value?)));
    which.labels = given.filter(|(_, value)| !value.is_empty()).collect();
    span(&mut which, params.since.as_deref(), params.until.as_deref())?;
    let mut by: Vec<&'static str> = Vec::new();
    for (_, label) in &names {
        if !by.contains(label) {
            by.push(label);
        }
    }
    let _turn = context.search(false).await?;
    let groups = context.app.store.group_samples(&which, &by, 1).await?;
    let sums = groups.iter().map(|group| {
        let mut row = Object::new();
        for (name, label) in &names {
            let value = by.iter().position(|by| by == label).and_then(|index| group.by[index].clone());
            row.insert((*name).to_owned(), value.into());
        }
        counts(group, &mut row);
        row
    });
    Ok(Sums { items: sums.collect(), truncated: groups.len() >= MOST_GROUPS })
}

fn group_names(text: Option<&str>) -> Result<Vec<(&'static str, &'static str)>> {
    let asked = text.unwrap_or_default().split(',').map(str::trim).filter(|name| !name.is_empty());
    let (mut names, mut unknown): (Vec<(&str, &str)>, Vec<String>) = (Vec::new(), Vec::new());
    for name in asked {
        match GROUPS.iter().find(|(known, _)| *known == name) {
            Some(known) if !names.contains(known) => names.push(*known),
            Some(_) => {}
            None if unknown.len() < GROUPS.len() => {
                let shown = format!("'{}'", name.chars().take(64).collect::<String>());
                if !unknown.contains(&shown) {
                    unknown.push(shown);
                }
            }
            None => break,
        }
    }
    match (unknown.is_empty(), names.is_empty()) {
        (false, _) => Err(Error::bad_request(format!("Invalid group_by fields: {{{}}}", unknown.join(", ")))),
        (true, true) => Err(Error::bad_request("'group_by' parameter is required")),
        (true, false) => Ok(names),
    }
}

fn counts(group: &Group, row: &mut Object) {
    for (name, count) in [
        ("total", group.total),
        ("pass", group.pass),
        ("fail", group.fail),
        ("incomplete", group.incomplete),
        ("skip", group.skip),
        ("infra_error", group.infra_error),
    ] {
        row.insert(name.to_owned(), count.into());
    }
}
