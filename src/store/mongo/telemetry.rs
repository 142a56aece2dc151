//! Telemetry, collection `telemetry` (contract 7.2, 7.5).

use async_trait::async_trait;
use bson::{Bson, Document, doc};
use futures::TryStreamExt;

use super::MongoStore;
use super::bson_json::{from_json, object};
use super::document::{date, integer};
use super::errors::{QUERY_TIME, call, call_on};
use super::stored::Stored;
use crate::error::{Error, Result};
use crate::model::telemetry::{LABELS, Sample};
use crate::model::{ObjectId, Timestamp};
use crate::store::telemetry::{Group, MOST_GROUPS, Samples, Telemetry, Which};

#[async_trait]
impl Telemetry for MongoStore {
    async fn add_samples(&self, samples: &[Sample]) -> Result<()> {
        if samples.is_empty() {
            return Ok(());
        }
        let documents: Vec<Stored> =
            samples.iter().map(|sample| document(sample).map(Stored)).collect::<Result<_>>()?;
        call_on(&self.telemetry, self.telemetry.insert_many(documents)).await.map(drop)
    }

    async fn find_samples(&self, which: &Which, limit: u64, offset: u64) -> Result<Samples> {
        let query = condition(which);
        let count = async {
            match query.is_empty() {
                true => call(self.telemetry.estimated_document_count().max_time(QUERY_TIME)).await,
                false => call(self.telemetry.count_documents(query.clone()).max_time(QUERY_TIME)).await,
            }
        };
        let (total, found) = tokio::try_join!(count, self.samples(query.clone(), limit, offset))?;
        Ok(Samples { total, ..found })
    }

    async fn more_samples(&self, which: &Which, end: &str, limit: u64) -> Result<Samples> {
        let end: ObjectId = end.parse().map_err(Error::internal)?;
        self.samples(doc! {"$and": [condition(which), {"_id": {"$gt": end}}]}, limit, 0).await
    }

    async fn group_samples(&self, which: &Which, by: &[&'static str], least: u64) -> Result<Vec<Group>> {
        let when = |result: &str| doc! {"$sum": {"$cond": [{"$eq": ["$result", result]}, 1, 0]}};
        let or_null = |field: &str| doc! {"$ifNull": [format!("${field}"), null]};
        let key: Document = by.iter().map(|&label| (label.to_owned(), Bson::from(or_null(label)))).collect();
        let stages = [
            doc! {"$match": condition(which)},
            doc! {"$group": {
                "_id": key,
                "total": {"$sum": 1},
                "pass": when("pass"),
                "fail": when("fail"),
                "incomplete": when("incomplete"),
                "skip": when("skip"),
                "infra_error": {"$sum": {"$cond": [{"$eq": ["$is_infra_error", true]}, 1, 0]}},
                // Documents are compared field by field.
                "newest": {"$max": {
                    "ts": "$ts", "id": "$_id", "error_type": or_null("error_type"), "error_msg": or_null("error_msg"),
                }},
            }},
            doc! {"$match": {"total": {"$gte": i64::try_from(least).unwrap_or(i64::MAX)}}},
            doc! {"$sort": {"total": -1, "_id": 1}},
            doc! {"$limit": MOST_GROUPS as i64},
        ];
        let groups = self.telemetry.aggregate(stages).allow_disk_use(true).max_time(QUERY_TIME);
        let groups = groups.with_type::<Stored>();
        let groups: Vec<Stored> = call(async { groups.await?.try_collect().await }).await?;
        Ok(groups.iter().map(|found| group(found, by)).collect())
    }
}

impl MongoStore {
    async fn samples(&self, query: Document, limit: u64, offset: u64) -> Result<Samples> {
        // Ids grow with time: the order in which the records came.
        let find = self.telemetry.find(query).sort(doc! {"_id": 1}).max_time(QUERY_TIME);
        let find = find.skip(offset.min(i64::MAX as u64)).limit(i64::try_from(limit).unwrap_or(i64::MAX));
        let found: Vec<Stored> = call(async { find.allow_disk_use(true).await?.try_collect().await }).await?;
        let end = found.last().and_then(|last| last.get_object_id("_id").ok()).map(|id| id.to_hex());
        Ok(Samples { items: found.iter().map(|found| read(found).to_wire()).collect(), total: 0, end })
    }
}

fn document(sample: &Sample) -> Result<Document> {
    let mut document = doc! {"_id": sample.id, "ts": date(sample.ts)};
    for (name, label) in LABELS.iter().zip(&sample.labels) {
        document.insert(*name, label.clone());
    }
    document.insert("is_infra_error", sample.is_infra_error);
    document.insert("retry", i32::try_from(sample.retry).map_or(Bson::Int64(sample.retry), Bson::Int32));
    document.insert("extra", from_json("extra", &sample.extra.clone().into())?);
    Ok(document)
}

fn read(document: &Document) -> Sample {
    let id = document.get_object_id("_id").unwrap_or_else(|_| ObjectId::from_bytes([0; 12]));
    let ts = document
        .get_datetime("ts")
        .map_or_else(|_| id.timestamp().timestamp_millis(), |ts| ts.timestamp_millis());
    Sample {
        id,
        ts: Timestamp::from_millis(ts),
        labels: LABELS.map(|name| document.get_str(name).ok().map(str::to_owned)),
        is_infra_error: document.get_bool("is_infra_error").unwrap_or(false),
        retry: document.get("retry").and_then(integer).unwrap_or(0),
        extra: document.get_document("extra").map(object).unwrap_or_default(),
    }
}

fn condition(which: &Which) -> Document {
    let mut all = Document::new();
    let mut conflicts = Vec::new();
    for (label, value) in &which.labels {
        match all.contains_key(label) {
            true => conflicts.push(doc! {*label: {"$eq": value}}),
            false => drop(all.insert(*label, doc! {"$eq": value})),
        }
    }
    for (path, value) in &which.extra {
        all.insert(format!("extra.{}", path.join(".")), doc! {"$eq": value});
    }
    if let Some(flag) = which.is_infra_error {
        all.insert("is_infra_error", flag);
    }
    if let Some(retry) = which.retry {
        all.insert("retry", retry);
    }
    let mut span = Document::new();
    span.extend(which.since.map(|since| ("$gte".to_owned(), Bson::from(date(since)))));
    span.extend(which.until.map(|until| ("$lte".to_owned(), Bson::from(date(until)))));
    if !span.is_empty() {
        all.insert("ts", span);
    }
    if let Some(label) = which.having {
        conflicts.push(doc! {label: {"$nin": [null, ""]}});
    }
    if !which.kinds.is_empty() {
        conflicts.push(doc! {"kind": {"$in": &which.kinds}});
    }
    if !conflicts.is_empty() {
        all.insert("$and", conflicts);
    }
    all
}

fn group(found: &Document, by: &[&'static str]) -> Group {
    let number = |key: &str| found.get(key).and_then(integer).map_or(0, i64::unsigned_abs);
    let text = |of: Option<&Document>, key: &str| of?.get_str(key).ok().map(str::to_owned);
    let key = found.get_document("_id").ok();
    let newest = found.get_document("newest").ok();
    let last_seen = newest.and_then(|newest| newest.get_datetime("ts").ok());
    Group {
        by: by.iter().map(|label| text(key, label)).collect(),
        total: number("total"),
        pass: number("pass"),
        fail: number("fail"),
        incomplete: number("incomplete"),
        skip: number("skip"),
        infra_error: number("infra_error"),
        last_seen: Timestamp::from_millis(last_seen.map_or(0, |ts| ts.timestamp_millis())),
        error_type: text(newest, "error_type"),
        error_msg: text(newest, "error_msg"),
    }
}
