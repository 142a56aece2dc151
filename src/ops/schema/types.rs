//! Schemas of what is free JSON in the code.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::model::Node;

/// A filter, as JSON or as the text of a query string.
pub struct Filter;

/// An event as it stands in a log.
pub struct CloudEvent;

/// An event as a queue holds it (contract 5.9): it has no place in a log.
pub struct QueueItem;

/// An event as the history shows it (contract 5.1).
pub struct HistoryItem;

impl JsonSchema for Filter {
    fn schema_name() -> Cow<'static, str> {
        "Filter".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let nested = generator.subschema_for::<Filter>();
        json_schema!({
            "description": "Conditions on dotted paths, all of which must hold: `{\"kind\":\"job\",\"data.arch\":\"arm64\"}`. \
                Behind `__` stands the operator: `ne`, `lt`, `lte`, `gt`, `gte`, `in` and `nin` (arrays), `re` (a regular \
                expression), `exists` (true or false), `int` (an integer where a query string would mean text). An \
                array matches if one of its elements does; null matches what is not there. `any` and `all` hold lists \
                of filters, `not` one. At most 64 conditions, 8 levels deep. A string is read as a query string: \
                `kind=job&result__in=fail,incomplete`.",
            "anyOf": [
                {
                    "type": "object",
                    "properties": {
                        "any": {"type": "array", "items": nested, "description": "One of these holds."},
                        "all": {"type": "array", "items": nested, "description": "Each of these holds."},
                        "not": nested,
                    },
                    "additionalProperties": {"type": ["string", "number", "boolean", "null", "array"]},
                },
                {"type": "string"},
            ],
        })
    }
}

impl JsonSchema for CloudEvent {
    fn schema_name() -> Cow<'static, str> {
        "CloudEvent".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "description": "A CloudEvent 1.0. Published events may have further attributes.",
            "properties": {
                "specversion": {"const": "1.0"},
                "id": {"type": "string", "description": "The same each time that it is delivered."},
                "source": {"type": "string"},
                "type": {"type": "string", "description": "`api.kernelci.org` where nobody said another."},
                "subject": {"type": "string", "description": "`id` of the node that it is about."},
                "time": {"type": "string", "format": "date-time"},
                "data": {"description": "On channel `node`: `op` (`created` or `updated`), `id`, `kind`, `name`, \
                    `path`, `group`, `state`, `result`, `owner`, `data`, `is_hierarchy`, and on updates \
                    `previous_state` and `previous_result`."},
                "owner": {"type": "string", "description": "Owner of the node, or who published it."},
                "partitionkey": {"type": "string", "description": "`treeid` of the node, or what the publisher set."},
                "attributenames": {"type": "string", "description": "JSON text of a list: names of attributes that \
                    their publisher has written otherwise, e.g. `Foo_bar`, which is `foobar` here."},
                "sequence": {"type": "string", "pattern": "^[0-9]{20}$", "description":
                    "Its number in the channel, in fixed width."},
            },
            "required": ["specversion", "id", "source", "type", "time", "data", "sequence"],
            "additionalProperties": {"type": ["string", "boolean", "integer"]},
        })
    }
}

impl JsonSchema for QueueItem {
    fn schema_name() -> Cow<'static, str> {
        "QueueItem".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "description": "A CloudEvent 1.0 with the attributes that it was pushed with. `type` and `source` are null if \
                it was pushed with others and without these.",
            "properties": {
                "specversion": {"const": "1.0"},
                "id": {"type": "string"},
                "source": {"type": ["string", "null"]},
                "type": {"type": ["string", "null"]},
                "time": {"type": "string", "format": "date-time"},
                "data": {"description": "The payload."},
            },
            "required": ["specversion", "id", "source", "type", "time", "data"],
            "additionalProperties": true,
        })
    }
}

impl JsonSchema for HistoryItem {
    fn schema_name() -> Cow<'static, str> {
        "HistoryItem".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let event = generator.subschema_for::<CloudEvent>();
        let node = generator.subschema_for::<Node>();
        json_schema!({
            "type": "object",
            "properties": {
                "timestamp": {"type": ["string", "null"], "description": "When it happened, UTC."},
                "sequence_id": {"type": "integer", "description": "Its number in the channel."},
                "channel": {"type": "string"},
                "owner": {"type": ["string", "null"]},
                "data": {"description": "The payload."},
                "id": {"type": "string"},
                "event": event,
                "node": node,
            },
            "required": ["timestamp", "sequence_id", "channel", "data", "id"],
        })
    }
}
