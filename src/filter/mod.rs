//! The filter language: `field__op=value` on dotted paths, as KernelCI clients write it (contract 4), parsed once
//! into one [`Filter`], which runs in memory ([`Filter::matches`], the definition), as SQL (`store::sqlite`) and as
//! a MongoDB query (`store::mongo`) with the same meaning; `tests/filter_agreement.rs` proves it.
//!
//! * `json` reads the form of the WebSocket, `query` the one of query strings.
//! * `path` says what a field may be called, `operand` what it may be compared with.
//! * `matches` is the meaning, `pattern` the meaning of regular expressions and `pcre` how MongoDB
//!   is told of them.
//! * `demand` is what an index of filters goes by, `cost` what it takes to try one.

mod cost;
mod demand;
#[cfg(test)]
mod fuzz;
mod json;
mod matches;
mod operand;
pub(crate) mod path;
pub(crate) mod pattern;
pub(crate) mod pcre;
mod query;
mod sources;
pub(crate) mod term;

use serde_json::Value;

use crate::error::Result;

/// What type a field has in the stored documents, where it matters for comparing: everything else is plain JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldType {
    /// A date: a BSON date in MongoDB; in JSON the wire form of node fields (`Timestamp::to_wire`).
    NodeDate,
    /// A date: a BSON date and microseconds in MongoDB; in JSON the form of CloudEvent `time` (`EventTime::to_text`).
    EventDate,
    /// An ObjectId in MongoDB, 24 hex digits in JSON.
    Id,
    /// 24 hex digits in JSON; in MongoDB an ObjectId or a string, depending on who wrote it (contract D-7).
    LooseId,
    /// An integer that query strings may write without `__int`.
    Integer,
    /// A string: query strings' `true` or digits stay text.
    Text,
    /// Any JSON.
    Json,
}

/// The fields that filters may speak of and that are not plain JSON.
#[derive(Debug)]
pub struct Schema {
    /// Field path and type; other paths are [`FieldType::Json`].
    pub fields: &'static [(&'static str, FieldType)],
}

impl Schema {
    /// The type of the field at `path`; `data.node_sequence.0` has the type of `data.node_sequence`.
    pub fn type_of(&self, path: &str) -> FieldType {
        let mut name = path;
        while let Some((head, last)) = name.rsplit_once('.') {
            if !path::is_index(last) {
                break;
            }
            name = head;
        }
        self.fields.iter().find(|(field, _)| *field == name).map_or(FieldType::Json, |(_, kind)| *kind)
    }
}

/// Fields of nodes, as in their wire form.
pub static NODE: Schema = Schema {
    fields: &[
        ("id", FieldType::Id),
        ("parent", FieldType::Id),
        ("created", FieldType::NodeDate),
        ("updated", FieldType::NodeDate),
        ("timeout", FieldType::NodeDate),
        ("holdoff", FieldType::NodeDate),
        ("retry_counter", FieldType::Integer),
        ("data.regression", FieldType::LooseId),
        ("data.fail_node", FieldType::LooseId),
        ("data.pass_node", FieldType::LooseId),
        ("data.node_sequence", FieldType::LooseId),
        ("kind", FieldType::Text),
        ("name", FieldType::Text),
        ("group", FieldType::Text),
        ("state", FieldType::Text),
        ("result", FieldType::Text),
        ("owner", FieldType::Text),
        ("submitter", FieldType::Text),
        ("treeid", FieldType::Text),
    ],
};

/// Fields of events, as in the CloudEvent (`id, source, type, subject, time, owner, partitionkey, data…`).
pub static EVENT: Schema = Schema {
    fields: &[
        ("id", FieldType::Id),
        ("time", FieldType::EventDate),
        ("source", FieldType::Text),
        ("type", FieldType::Text),
        ("subject", FieldType::Text),
        ("owner", FieldType::Text),
        ("partitionkey", FieldType::Text),
        ("sequence", FieldType::Text),
    ],
};

/// Bounds of what one filter may ask for.
pub mod limits {
    /// Conditions and nested objects in a filter.
    pub const TERMS: usize = 64;
    /// Levels of `any`, `all`, `not`, the outermost object included.
    pub const LEVELS: usize = 8;
    /// Values of one `in` or `nin`.
    pub const LIST: usize = 1000;
    /// Values of all lists of a filter together: each becomes a parameter of the SQL statement.
    pub const LISTS: usize = 10_000;
    /// Regular expressions in a filter: each holds up to some 100 KiB once compiled.
    pub const PATTERNS: usize = 8;
    /// Characters of a regular expression.
    pub const PATTERN: usize = 256;
    /// Bytes of a path.
    pub const PATH: usize = 256;
    /// Names in a path.
    pub const SEGMENTS: usize = 20;
    /// Numbers in a path: each may be an index or a key, so each can double the ways to walk.
    pub const INDEXES: usize = 8;
}

/// A condition on a JSON document. `Filter::all()` matches everything.
#[derive(Clone, Debug)]
pub enum Filter {
    /// All of these hold (none: always true).
    And(Vec<Filter>),
    /// At least one of these holds (none: never true).
    Or(Vec<Filter>),
    /// This does not hold.
    Not(Box<Filter>),
    /// A test of one field.
    Field {
        /// Dotted path; numbers index arrays, and arrays on the way are descended into, as MongoDB does.
        path: String,
        /// The type of the field in stored documents.
        kind: FieldType,
        /// The test.
        test: Test,
    },
}

/// A test of one field, with MongoDB's meaning (contract 4.2). Dates and ids are held in their JSON wire form.
#[derive(Clone, Debug)]
pub enum Test {
    /// Equal; null also where the field is missing; on an array if any element (or, never, the array itself) is.
    Eq(Value),
    /// Not [`Test::Eq`]: also where the field is missing.
    Ne(Value),
    /// Less, between values of the same type only.
    Lt(Value),
    /// Less or equal, between values of the same type only.
    Lte(Value),
    /// Greater, between values of the same type only.
    Gt(Value),
    /// Greater or equal, between values of the same type only.
    Gte(Value),
    /// Equal to one of these.
    In(Vec<Value>),
    /// Equal to none of these.
    Nin(Vec<Value>),
    /// A string in which the pattern is found.
    Re(Pattern),
    /// Whether the field is there at all.
    Exists(bool),
}

pub use cost::PATTERN as PATTERN_COST;
pub use demand::Demand;
pub(crate) use matches::strings_at;
pub use pattern::Pattern;
pub use sources::Sources;

impl Filter {
    /// Matches every document.
    pub fn all() -> Filter {
        Filter::And(Vec::new())
    }
    /// Reads a filter in JSON, as `{"kind":"job","result__in":["fail","incomplete"],"data.arch":"arm64"}`.
    ///
    /// Members are AND-ed. A key is a path, or a path and one of `ne lt lte gt gte in nin re int exists` behind
    /// `__`; `any` (an array of filters) is OR, `all` (likewise) AND, `not` (a filter) negation. Dates are ISO
    /// strings, ids 24 hex digits. Fails with 422 naming the key and what was expected, 400 for a bad date or id.
    pub fn from_json(filter: &Value, schema: &Schema) -> Result<Filter> {
        json::read(filter, schema)
    }
    /// Reads the conditions of a query string with the coercions of contract 4.1 (paging parameters taken out).
    /// Fails with 400 naming the parameter.
    pub fn from_query<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
        schema: &Schema,
    ) -> Result<Filter> {
        query::read(&mut pairs.into_iter(), schema)
    }
    /// The ids that it allows, if it names any: those documents need not be searched for.
    pub fn ids(&self) -> Option<Vec<String>> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        match self {
            Filter::And(parts) => parts.iter().find_map(Filter::ids),
            Filter::Field { path, test: Test::Eq(id), .. } if path == "id" => text(id).map(|id| vec![id]),
            Filter::Field { path, test: Test::In(ids), .. } if path == "id" => ids.iter().map(text).collect(),
            _ => None,
        }
    }
    /// What it costs to try it on a document, in simple comparisons.
    pub fn cost(&self) -> usize {
        cost::cost(self)
    }
    /// About how many bytes its regular expressions, once they have been used, and its lists hold.
    pub fn weight(&self) -> usize {
        cost::weight(self)
    }
    /// Whether `doc` matches: this function defines what filters mean.
    pub fn matches(&self, doc: &Value) -> bool {
        matches::matches(self, doc)
    }
}
