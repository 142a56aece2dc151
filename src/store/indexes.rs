//! The indexes that both stores keep on nodes: one table, so that what is fast on one is fast on the other.
//!
//! SQLite makes expression indexes of it, MongoDB compound ones. Each ends with the node's id behind the fields named
//! here, because `id` is the last key of every sort order: so a page in the default order is read off the index.

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
    index("node_by_parent", &["parent"], &[10]),
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
    Index { name, fields, rows_per_key }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prefix_has_an_estimate_that_shrinks() {
        for index in NODE {
            assert_eq!(index.fields.len(), index.rows_per_key.len(), "{}", index.name);
            assert!(index.rows_per_key.is_sorted_by(|a, b| a >= b), "{}", index.name);
        }
    }
}
