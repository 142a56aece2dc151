//! How the time of an event stands in MongoDB: `timestamp`, a date in milliseconds as KernelCI's own server writes it
//! (contract 5.2), and beside it `us`, the microseconds within (0 to 999; missing means 0).

use bson::{Bson, DateTime, Document, doc};

use super::document::{date, integer};
use crate::model::{EventTime, Timestamp};

/// The order of time; `_id` for events of others, which may have the same.
pub(crate) fn order() -> Document {
    doc! {"timestamp": 1, "us": 1, "_id": 1}
}

/// The two values.
pub(crate) fn parts(time: EventTime) -> (DateTime, i32) {
    // 0 to 999.
    (date(time.to_millis()), time.us() as i32)
}

/// Reads the two fields of an event.
pub(crate) fn read(event: &Document) -> Option<EventTime> {
    let Some(Bson::DateTime(millis)) = event.get("timestamp") else { return None };
    let us = event.get("us").and_then(integer).filter(|us| (0..1000).contains(us)).unwrap_or(0);
    Some(EventTime::from_parts(Timestamp::from_millis(millis.timestamp_millis()), us))
}

/// At this time.
pub(crate) fn at(time: EventTime) -> Document {
    match parts(time) {
        (millis, 0) => doc! {"timestamp": millis, "us": {"$in": [0, Bson::Null]}},
        (millis, us) => doc! {"timestamp": millis, "us": us},
    }
}

/// Later than this time.
pub(crate) fn after(time: EventTime) -> Document {
    let (millis, us) = parts(time);
    // The first condition says nothing new; it is what an index on the time is used for.
    doc! {"timestamp": {"$gte": millis}, "$or": [{"timestamp": {"$gt": millis}}, {"us": {"$gt": us}}]}
}

/// At this time or later.
pub(crate) fn since(time: EventTime) -> Document {
    match parts(time) {
        (millis, 0) => doc! {"timestamp": {"$gte": millis}},
        (millis, us) => {
            doc! {"timestamp": {"$gte": millis}, "$or": [{"timestamp": {"$gt": millis}}, {"us": {"$gte": us}}]}
        }
    }
}

/// Earlier than this time.
pub(crate) fn before(time: EventTime) -> Document {
    match parts(time) {
        (millis, 0) => doc! {"timestamp": {"$lt": millis}},
        (millis, us) => {
            let earlier = doc! {"us": {"$not": {"$gte": us}}};
            doc! {"timestamp": {"$lte": millis}, "$or": [{"timestamp": {"$lt": millis}}, earlier]}
        }
    }
}

/// At this time or earlier.
pub(crate) fn until(time: EventTime) -> Document {
    let (millis, us) = parts(time);
    let not_later = doc! {"us": {"$not": {"$gt": us}}};
    doc! {"timestamp": {"$lte": millis}, "$or": [{"timestamp": {"$lt": millis}}, not_later]}
}
