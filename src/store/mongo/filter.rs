//! Filters as MongoDB queries, with the meaning of `Filter::matches` on the wire form of what is stored.
//!
//! Only operators that stand in this file are ever sent, and every operand goes with one, so that nothing a client
//! writes is syntax. What MongoDB cannot answer (patterns that PCRE could spend long on, fields that it stores in
//! another way) becomes a condition that finds more: [`Mongo::exact`] is false then and the caller matches again. Below
//! a negation such a condition has to find less instead, so that the whole still finds more.

use bson::{Bson, DateTime, Document, doc};
use serde_json::Value;

use super::moment;
use crate::filter::pcre::{self, Pcre};
use crate::filter::{FieldType, Filter, Pattern, Test};
use crate::model::{EventTime, ObjectId, Timestamp};

/// A condition for MongoDB.
#[derive(Clone, Debug, PartialEq)]
pub struct Mongo {
    /// The query.
    pub query: Document,
    /// Whether it finds exactly what the filter matches; else at least that.
    pub exact: bool,
}

/// Where documents of a collection differ from their wire form.
struct Layout {
    /// Fields of another name: in JSON, in MongoDB.
    renamed: &'static [(&'static str, &'static str)],
    /// Top-level fields that are stored as they are (dates and ids as BSON ones).
    same: &'static [&'static str],
}

/// Nodes. Whatever else an older server stored is no field of a node, so filters do not find it.
const NODES: Layout = Layout {
    renamed: &[("id", "_id")],
    same: &[
        "kind",
        "name",
        "path",
        "group",
        "parent",
        "state",
        "result",
        "artifacts",
        "data",
        "debug",
        "jobfilter",
        "platform_filter",
        "created",
        "updated",
        "timeout",
        "holdoff",
        "owner",
        "submitter",
        "treeid",
        "user_groups",
        "processed_by_kcidb_bridge",
        "retry_counter",
        "revision",
    ],
};

/// The event history. `sequence`, `specversion` and extension attributes are not looked for there.
const EVENTS: Layout = Layout {
    renamed: &[("id", "_id"), ("time", "timestamp")],
    same: &["source", "type", "subject", "owner", "partitionkey", "data"],
};

/// Translates a filter on nodes (schema `filter::NODE`).
pub fn to_mongo(filter: &Filter) -> Mongo {
    translate(filter, &NODES)
}

/// Translates a filter on events (schema `filter::EVENT`) for the event history, whose documents have the members
/// `_id, timestamp, source, type, subject, owner, partitionkey, data`.
pub fn to_mongo_event(filter: &Filter) -> Mongo {
    translate(filter, &EVENTS)
}

fn translate(filter: &Filter, layout: &Layout) -> Mongo {
    let mut writer = Writer { layout, exact: true };
    let query = writer.filter(filter, true);
    Mongo { query, exact: writer.exact }
}

struct Writer<'l> {
    layout: &'l Layout,
    exact: bool,
}

impl Writer<'_> {
    /// `more`: where it cannot be exact the condition finds more, else less.
    fn filter(&mut self, filter: &Filter, more: bool) -> Document {
        match filter {
            Filter::And(parts) if parts.is_empty() => doc! {},
            Filter::And(parts) => doc! {"$and": self.all(parts, more)},
            Filter::Or(parts) if parts.is_empty() => never(),
            Filter::Or(parts) => doc! {"$or": self.all(parts, more)},
            Filter::Not(part) => doc! {"$nor": [self.filter(part, !more)]},
            Filter::Field { path, kind, test } => match self.name(path) {
                Some(name) => self.field(name, *kind, test, more),
                None => self.unknown(more),
            },
        }
    }

    fn all(&mut self, parts: &[Filter], more: bool) -> Vec<Document> {
        parts.iter().map(|part| self.filter(part, more)).collect()
    }

    /// The name of the field in MongoDB, if its values can be looked for there.
    fn name<'p>(&self, path: &'p str) -> Option<&'p str>
    where
        Self: 'p,
    {
        let first = path.split('.').next().unwrap_or(path);
        if self.layout.same.contains(&first) {
            return Some(path);
        }
        self.layout.renamed.iter().find(|(json, _)| *json == path).map(|(_, stored)| *stored)
    }

    fn unknown(&mut self, more: bool) -> Document {
        self.exact = false;
        if more {
            doc! {}
        } else {
            never()
        }
    }

    fn field(&mut self, name: &str, kind: FieldType, test: &Test, more: bool) -> Document {
        if kind == FieldType::EventDate
            && let Some(query) = event_time(test)
        {
            return query;
        }
        let compare = |op: &str, value: &Value| {
            let mut forms = operands(kind, value).into_iter().map(|value| doc! {name: {op: value}});
            match (forms.next(), forms.next()) {
                (Some(one), None) => one,
                (one, two) => doc! {"$or": one.into_iter().chain(two).collect::<Vec<_>>()},
            }
        };
        let list = |op: &str, values: &[Value]| {
            let values: Vec<Bson> = values.iter().flat_map(|value| operands(kind, value)).collect();
            doc! {name: {op: values}}
        };
        match test {
            Test::Eq(value) if kind == FieldType::LooseId => list("$in", std::slice::from_ref(value)),
            Test::Ne(value) if kind == FieldType::LooseId => list("$nin", std::slice::from_ref(value)),
            Test::Eq(value) => compare("$eq", value),
            Test::Ne(value) => compare("$ne", value),
            Test::Lt(value) => compare("$lt", value),
            Test::Lte(value) => compare("$lte", value),
            Test::Gt(value) => compare("$gt", value),
            Test::Gte(value) => compare("$gte", value),
            Test::In(values) => list("$in", values),
            Test::Nin(values) => list("$nin", values),
            Test::Exists(wanted) => doc! {name: {"$exists": *wanted}},
            Test::Re(pattern) => self.pattern(name, pattern, more),
        }
    }

    fn pattern(&mut self, name: &str, pattern: &Pattern, more: bool) -> Document {
        match pcre::translate(pattern.text()) {
            Pcre::Exact(text) => doc! {name: {"$regex": text}},
            _ if !more => self.unknown(more),
            Pcre::Superset(text) => {
                self.exact = false;
                doc! {name: {"$regex": text}}
            }
            Pcre::Unknown => {
                self.exact = false;
                doc! {name: {"$type": "string"}}
            }
        }
    }
}

/// A test of an event's time, which stands in two fields; `None` if no time is in it.
fn event_time(test: &Test) -> Option<Document> {
    let time = |value: &Value| value.as_str().and_then(|text| EventTime::parse_iso(text).ok());
    let any = |values: &[Value]| -> Option<Document> {
        let any: Vec<Document> =
            values.iter().map(|value| time(value).map(moment::at)).collect::<Option<_>>()?;
        Some(if any.is_empty() {
            never()
        } else {
            doc! {"$or": any}
        })
    };
    let none = |any: Document| doc! {"$nor": [any]};
    match test {
        Test::Eq(value) => time(value).map(moment::at),
        Test::Ne(value) => time(value).map(moment::at).map(none),
        Test::Lt(value) => time(value).map(moment::before),
        Test::Lte(value) => time(value).map(moment::until),
        Test::Gt(value) => time(value).map(moment::after),
        Test::Gte(value) => time(value).map(moment::since),
        Test::In(values) => any(values),
        Test::Nin(values) => any(values).map(none),
        Test::Re(_) | Test::Exists(_) => None,
    }
}

/// Matches nothing.
fn never() -> Document {
    doc! {"$alwaysFalse": 1}
}

/// The forms in which a value of this type may be stored.
fn operands(kind: FieldType, value: &Value) -> Vec<Bson> {
    let id =
        |value: &Value| value.as_str().and_then(|text| ObjectId::parse_str(text).ok()).map(Bson::ObjectId);
    match kind {
        FieldType::Id => vec![id(value).unwrap_or_else(|| scalar(value))],
        FieldType::LooseId => std::iter::once(scalar(value)).chain(id(value)).collect(),
        FieldType::NodeDate | FieldType::EventDate => {
            let time = value.as_str().and_then(|text| Timestamp::parse_iso(text).ok());
            vec![time.map_or_else(|| scalar(value), |time| DateTime::from_millis(time.millis()).into())]
        }
        FieldType::Integer | FieldType::Text | FieldType::Json => vec![scalar(value)],
    }
}

fn scalar(value: &Value) -> Bson {
    match value {
        Value::Bool(value) => Bson::Boolean(*value),
        Value::String(text) => Bson::String(text.clone()),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Bson::Int64(whole),
            (None, Some(float)) => Bson::Double(float),
            (None, None) => Bson::Null,
        },
        Value::Null | Value::Array(_) | Value::Object(_) => Bson::Null,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::filter::{EVENT, NODE};

    fn node(filter: Value) -> Mongo {
        to_mongo(&Filter::from_json(&filter, &NODE).unwrap())
    }

    #[test]
    fn fields_go_in_their_stored_form() {
        let id = ObjectId::parse_str("5f0000000000000000000abc").unwrap();
        for (filter, query) in [
            (json!({"kind": "job"}), doc! {"kind": {"$eq": "job"}}),
            (json!({"id": "5f0000000000000000000abc"}), doc! {"_id": {"$eq": id}}),
            (json!({"parent": null}), doc! {"parent": {"$eq": null}}),
            (
                json!({"created__gt": "1970-01-01T00:00:01Z"}),
                doc! {"created": {"$gt": DateTime::from_millis(1000)}},
            ),
            (
                json!({"data.regression": "5f0000000000000000000abc"}),
                doc! {"data.regression": {"$in": ["5f0000000000000000000abc", id]}},
            ),
            (json!({"retry_counter__lt": 3}), doc! {"retry_counter": {"$lt": 3_i64}}),
            (json!({"not": {"name__re": "^a"}}), doc! {"$nor": [{"$and": [{"name": {"$regex": "\\Aa"}}]}]}),
        ] {
            assert_eq!(node(filter), Mongo { query: doc! {"$and": [query]}, exact: true });
        }
    }

    #[test]
    fn what_is_not_exact_finds_more_even_when_negated() {
        let and = |part: Document| doc! {"$and": [part]};
        let inexact = |part| Mongo { query: and(part), exact: false };
        assert_eq!(node(json!({"name__re": "foo.*barbaz"})), inexact(doc! {"name": {"$regex": "barbaz"}}));
        assert_eq!(node(json!({"name__re": "a+"})), inexact(doc! {"name": {"$type": "string"}}));
        assert_eq!(node(json!({"not": {"name__re": "a+"}})), inexact(doc! {"$nor": [and(never())]}));
        assert_eq!(
            node(json!({"not": {"not": {"name__re": "a+"}}})),
            inexact(doc! {"$nor": [and(doc! {"$nor": [and(doc! {"name": {"$type": "string"}})]})]})
        );
        assert_eq!(node(json!({"outbox": 1})), inexact(doc! {}));
        assert_eq!(node(json!({"not": {"id.x": null}})), inexact(doc! {"$nor": [and(never())]}));
    }

    #[test]
    fn events_have_other_names() {
        let filter = json!({"time__lte": "1970-01-01", "data.op": "created", "sequence": "1"});
        let filter = Filter::from_json(&filter, &EVENT).unwrap();
        let epoch = DateTime::from_millis(0);
        let not_later = doc! {"us": {"$not": {"$gt": 0}}};
        let time = doc! {"timestamp": {"$lte": epoch}, "$or": [{"timestamp": {"$lt": epoch}}, not_later]};
        let query = doc! {"$and": [time, {"data.op": {"$eq": "created"}}, {}]};
        assert_eq!(to_mongo_event(&filter), Mongo { query, exact: false });
    }
}
