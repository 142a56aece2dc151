//! What stands out: devices that fail too often, errors that repeat (contract 7.2).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::counts;
use crate::error::{Error, Result};
use crate::model::Timestamp;
use crate::ops::{Context, Object};
use crate::store::telemetry::{Group, Which};

/// Names of windows, and their hours.
const WINDOWS: [(&str, i64); 6] = [("1h", 1), ("3h", 3), ("6h", 6), ("12h", 12), ("24h", 24), ("48h", 48)];

/// Where to look, and what stands out.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Look {
    /// `1h, 3h, 6h, 12h, 24h, 48h`; default `6h`.
    #[serde(default)]
    window: Option<String>,
    /// The rate from which on it stands out, 0 to 1; default 0.5.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    threshold: Option<f64>,
    /// Fewer records say nothing; default 3.
    #[serde(default)]
    #[schemars(range(min = 1))]
    min_total: Option<u64>,
    /// Whether to look at types of devices or at single ones.
    #[serde(default)]
    scope: Scope,
}

/// What is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Scope {
    /// Types of devices, with the results of jobs and of tests.
    #[default]
    DeviceType,
    /// Single devices, with the results of jobs.
    Device,
}

/// What stands out.
#[derive(Serialize, JsonSchema)]
pub struct Anomalies {
    /// As asked.
    window: &'static str,
    /// As asked.
    threshold: f64,
    /// As asked.
    min_total: u64,
    /// As asked.
    scope: Scope,
    /// The beginning of the window, with its offset.
    since: String,
    /// Devices or types of them, the worst first: `runtime, lab, device_type`, `device_id` in that scope, the sums,
    /// `infra_rate, fail_rate, constant_failure, constant_infra_failure, last_seen, latest_error_type,
    /// latest_error_msg`.
    result_anomalies: Vec<Object>,
    /// `runtime, error_type, count`, the most frequent first.
    error_anomalies: Vec<Object>,
}

/// Looks at what happened lately.
pub async fn anomalies(context: Context, params: Look) -> Result<Anomalies> {
    let window = params.window.as_deref().filter(|window| !window.is_empty()).unwrap_or("6h");
    let known = WINDOWS.iter().find(|(name, _)| *name == window);
    let (window, hours) = *known.ok_or_else(|| {
        let shown: String = window.chars().take(64).collect();
        let names = WINDOWS.map(|(name, _)| name).join(", ");
        Error::bad_request(format!("Invalid window '{shown}'. Use: {names}"))
    })?;
    let threshold = params.threshold.unwrap_or(0.5);
    if !(0.0..=1.0).contains(&threshold) {
        return Err(Error::invalid("threshold", "expected 0 to 1"));
    }
    let min_total = params.min_total.unwrap_or(3);
    if min_total == 0 {
        return Err(Error::invalid("min_total", "expected 1 or more"));
    }
    let since = Timestamp::now().plus_seconds(-hours * 3600);
    let within = Which { since: Some(since), ..Which::default() };
    let (results, by): (Which, &[&'static str]) = match params.scope {
        Scope::DeviceType => (
            Which { kinds: vec!["job_result", "test_result"], ..within.clone() },
            &["runtime", "device_type"],
        ),
        Scope::Device => (
            Which { kinds: vec!["job_result"], having: Some("device_id"), ..within.clone() },
            &["runtime", "device_type", "device_id"],
        ),
    };
    let errors = Which { kinds: vec!["runtime_error", "job_skip"], ..within };
    let store = &context.app.store;
    let _turn = context.search(false).await?;
    let (results, errors) = tokio::try_join!(
        store.group_samples(&results, by, min_total),
        store.group_samples(&errors, &["runtime", "error_type"], min_total),
    )?;
    let mut standing_out: Vec<(f64, f64, Object)> = results
        .iter()
        .map(|group| (group, rate(group.infra_error, group), rate(group.fail + group.incomplete, group)))
        .filter(|(_, infra, fail)| *infra >= threshold || *fail >= threshold)
        .map(|(group, infra, fail)| (infra, fail, result_item(group, by)))
        .collect();
    standing_out.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.total_cmp(&a.1)));
    let error_item = |group: &Group| {
        let item = json!({"runtime": group.by[0], "error_type": group.by[1], "count": group.total});
        item.as_object().cloned().unwrap_or_default()
    };
    Ok(Anomalies {
        window,
        threshold,
        min_total,
        scope: params.scope,
        since: since.to_event_time(),
        result_anomalies: standing_out.into_iter().map(|(_, _, item)| item).collect(),
        error_anomalies: errors.iter().map(error_item).collect(),
    })
}

fn rate(part: u64, group: &Group) -> f64 {
    part as f64 / group.total.max(1) as f64
}

fn result_item(group: &Group, by: &[&'static str]) -> Object {
    let mut item = Object::new();
    for (name, value) in by.iter().zip(&group.by) {
        item.insert((*name).to_owned(), value.clone().into());
        if *name == "runtime" {
            item.insert("lab".into(), value.clone().into());
        }
    }
    counts(group, &mut item);
    let failed = group.fail + group.incomplete;
    let rounded = |rate: f64| (rate * 1000.0).round() / 1000.0;
    item.insert("infra_rate".into(), rounded(rate(group.infra_error, group)).into());
    item.insert("fail_rate".into(), rounded(rate(failed, group)).into());
    item.insert("constant_failure".into(), (group.pass == 0 && failed == group.total).into());
    item.insert("constant_infra_failure".into(), (group.infra_error == group.total).into());
    item.insert("last_seen".into(), group.last_seen.to_wire().into());
    item.insert("latest_error_type".into(), group.error_type.clone().into());
    item.insert("latest_error_msg".into(), group.error_msg.clone().into());
    item
}
