//! The indexes that both stores keep on nodes: one table, so that what is fast on one is fast on the other.
//!
//! SQLite makes expression indexes of it, MongoDB compound ones. Each ends with the node's id behind the fields named
//! here, because `id` is the last key of every sort order: so a page in the default order is read off the index.

use super::Query;
use crate::filter::{Filter, Test};

/// An index on nodes that the code wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Index {
    /// Its name in the database.
    pub name: &'static str,
    /// Paths in the wire form of the node, ascending; the id follows implicitly.
    pub fields: &'static [&'static str],
    /// About how many of a million nodes share one value of the first field, of the first two, …: what a query
    /// planner without statistics of its own is told, so that `state=done` never beats `parent=…`.
    pub rows_per_key: &'static [u32],
    /// So many nodes share some values, chosen by whoever asks for slow ones; 0: no value stands out.
    pub crowd: u32,
}

impl Index {
    /// The keys in words, as `kernelci-live indexes` lists them: `kind, state`.
    pub fn keys(&self) -> String {
        self.fields.join(", ")
    }
}

/// All of them. Names tell the question that the index answers.
///
/// Each costs every create, and every update of its fields, so there is none for `owner`, `group`, `submitter` and
/// `retry_counter`, which are asked for beside fields that are here; none for `result` alone; and none for fields of
/// `data` but the kernel revision.
pub const NODE: &[Index] = &[
    // Most nodes have a few children, and those that hold the results of a run have thousands.
    Index { crowd: 1_000, ..index("node_by_parent", &["parent"], &[10]) },
    index("node_by_treeid", &["treeid"], &[2_000]),
    index("node_by_kind_state", &["kind", "state"], &[250_000, 100_000]),
    index("node_by_created", &["created"], &[1]),
    index("node_by_kind_created", &["kind", "created"], &[250_000, 1]),
    index("node_by_kind_result_created", &["kind", "result", "created"], &[250_000, 100_000, 1]),
    index("node_by_kind_name_created", &["kind", "name", "created"], &[250_000, 500, 1]),
    index(
        "node_by_kernel_revision",
        &["data.kernel_revision.tree", "data.kernel_revision.branch", "data.kernel_revision.commit"],
        &[50_000, 25_000, 1_000],
    ),
    index("node_by_state_timeout", &["state", "timeout"], &[250_000, 2]),
    index("node_by_state_holdoff", &["state", "holdoff"], &[250_000, 1_000]),
    index(
        "node_by_state_bridge_updated",
        &["state", "processed_by_kcidb_bridge", "updated"],
        &[250_000, 125_000, 1],
    ),
];

const fn index(name: &'static str, fields: &'static [&'static str], rows_per_key: &'static [u32]) -> Index {
    Index { name, fields, rows_per_key, crowd: 0 }
}

/// Of a million nodes, so many are looked at quickly.
const FEW_ROWS: u64 = 5_000;

/// Whether a search for what this filter matches is quick, however much there is: an index leads to few nodes, or says all
/// that the filter asks.
pub fn lead_to(filter: &Filter) -> bool {
    let mut terms = Vec::new();
    conjuncts(filter, &mut terms);
    let values = |field: &str| {
        let equal = |(path, test): &(&str, &Test)| match test {
            _ if *path != field => None,
            Test::Eq(_) => Some(1),
            Test::In(values) => Some(values.len() as u64),
            _ => None,
        };
        terms.iter().find_map(equal)
    };
    if terms.is_empty() || values("id").is_some() {
        return true;
    }
    NODE.iter().any(|index| {
        let prefix: Vec<u64> = index.fields.iter().map_while(|field| values(field)).collect();
        let Some(rows) = prefix.len().checked_sub(1).map(|last| u64::from(index.rows_per_key[last])) else {
            return terms.iter().all(|(path, test)| is_range(test) && Some(path) == index.fields.first());
        };
        let rows =
            prefix.iter().fold(rows.max(index.crowd.into()), |rows, values| rows.saturating_mul(*values));
        let says = |path: &str, test: &Test| match index.fields.iter().position(|field| *field == path) {
            Some(at) => at < prefix.len() || (at == prefix.len() && is_range(test)),
            None => path == "id" && is_range(test),
        };
        rows <= FEW_ROWS || terms.iter().all(|(path, test)| says(path, test))
    })
}

/// As [`lead_to`], for a page of them: nothing has to be sorted or passed over for long.
pub fn serve(query: &Query) -> bool {
    let in_order = query.sort.first().is_none_or(|key| matches!(key.field, "id" | "created"));
    lead_to(&query.filter) && in_order && query.offset <= FEW_ROWS
}

/// The conditions that all have to hold.
fn conjuncts<'f>(filter: &'f Filter, terms: &mut Vec<(&'f str, &'f Test)>) {
    match filter {
        Filter::And(parts) => parts.iter().for_each(|part| conjuncts(part, terms)),
        Filter::Field { path, test, .. } => terms.push((path, test)),
        Filter::Or(_) | Filter::Not(_) => terms.push(ANYTHING),
    }
}

/// Stands for a condition that no index knows.
const ANYTHING: (&str, &Test) = ("", &Test::Exists(true));

fn is_range(test: &Test) -> bool {
    matches!(test, Test::Lt(_) | Test::Lte(_) | Test::Gt(_) | Test::Gte(_))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::filter;

    #[test]
    fn an_index_serves_what_it_leads_to_or_says_alone() {
        let serves = |json: serde_json::Value| lead_to(&Filter::from_json(&json, &filter::NODE).unwrap());
        let id = "0123456789abcdef01234567";
        for quick in [
            json!({}),
            json!({"id": id, "name__re": "x"}),
            json!({"parent": id}),
            json!({"parent": id, "data.arch": "arm64", "name__re": "a"}),
            json!({"parent__in": vec![id; 500]}),
            json!({"treeid": "t", "not": {"kind": "job"}}),
            json!({"kind": "checkout"}),
            json!({"kind": "job", "state": "running"}),
            json!({"kind": "job", "created__gt": "2026-01-01T00:00:00"}),
            json!({"created__gt": "2026-01-01T00:00:00"}),
            json!({"kind": "test", "name": "login", "data.arch": "arm64"}),
        ] {
            assert!(serves(quick.clone()), "{quick}");
        }
        for slow in [
            json!({"name__re": "x"}),
            json!({"data.arch": "arm64"}),
            json!({"kind": "test", "data.arch": "arm64"}),
            json!({"kind": "test", "name__re": "x"}),
            json!({"owner": "me"}),
            json!({"any": [{"id": id}, {"owner": "me"}]}),
            json!({"kind__ne": "test"}),
            json!({"parent__in": vec![id; 6], "owner": "me"}),
        ] {
            assert!(!serves(slow.clone()), "{slow}");
        }
    }

    #[test]
    fn every_prefix_has_an_estimate_that_shrinks() {
        for index in NODE {
            assert_eq!(index.fields.len(), index.rows_per_key.len(), "{}", index.name);
            assert!(index.rows_per_key.is_sorted_by(|a, b| a >= b), "{}", index.name);
        }
    }
}
