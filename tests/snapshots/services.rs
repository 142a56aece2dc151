//! `queue.*`, `kv.*`, `telemetry.*`.

use macro_rules_attribute::apply;
use serde_json::json;

use super::book::Book;
use crate::support::{Server, both_backends};

pub(super) const METHODS: &[&str] = &["queue.", "kv.", "telemetry."];

#[apply(both_backends!)]
async fn methods_of_services(server: Server) {
    let (mut raw, mut nobody, mut book) = (server.admin().await, server.anonymous().await, Book::default());
    let raw = &mut raw;

    let item = json!({"list": "jobs", "event": {"data": {"job": 1}}, "idempotency_key": "once"});
    book.ask(raw, "a payload", "queue.push", item).await;
    let item = json!({"list": "jobs", "event": {"data": 2, "type": "org.example.job", "rack": "r1"}});
    book.ask(raw, "with attributes", "queue.push", item).await;
    book.refused(raw, "without a payload", "queue.push", json!({"list": "jobs", "event": {}})).await;
    let lease = json!({"list": "jobs", "lease_ms": 3_600_000});
    let held = book.ask(raw, "on a lease", "queue.pop", lease).await;
    book.ask(raw, "for good", "queue.pop", json!({"list": "jobs"})).await;
    book.refused(raw, "empty", "queue.pop", json!({"list": "jobs", "wait_ms": 0})).await;
    let more = json!({"lease": held["lease"], "lease_ms": 7_200_000});
    book.ask(raw, "more time", "queue.extend", more.clone()).await;
    book.ask(raw, "done", "queue.ack", json!({"lease": held["lease"]})).await;
    book.refused(raw, "done already", "queue.ack", json!({"lease": held["lease"]})).await;
    book.refused(raw, "done already", "queue.extend", more).await;

    let key = json!({"namespace": "ci", "key": "last"});
    book.ask(raw, "a value", "kv.set", json!({"namespace": "ci", "key": "last", "value": "v6.17"})).await;
    book.ask(raw, "it is there", "kv.get", key.clone()).await;
    book.refused(&mut nobody, "without a user", "kv.get", key.clone()).await;
    book.ask(raw, "it is there", "kv.delete", key.clone()).await;
    book.ask(raw, "it is gone", "kv.delete", key.clone()).await;
    book.ask(raw, "it is gone", "kv.get", key).await;

    let record = |n: u32, result: &str| {
        json!({"kind": "job_result", "runtime": "lava-a", "device_type": "rk3399",
            "device_id": "rk3399-1", "job_name": "baseline", "arch": "arm64", "result": result,
            "is_infra_error": result == "fail", "extra": {"attempt": n}})
    };
    let records = json!({"events": [record(1, "pass"), record(2, "fail"), record(3, "fail")]});
    book.ask(raw, "three records", "telemetry.add", records.clone()).await;
    book.refused(raw, "not a record", "telemetry.add", json!({"events": [{"kind": "x"}]})).await;
    book.refused(&mut nobody, "without a user", "telemetry.add", records).await;
    let some = json!({"filter": {"runtime": "lava-a"}, "since": "2001-01-01T00:00:00", "limit": 1});
    book.ask(raw, "some", "telemetry.find", some).await;
    book.refused(raw, "not a date", "telemetry.find", json!({"since": "x"})).await;
    let by = json!({"group_by": "runtime,device_type", "kind": "job_result"});
    book.ask(raw, "by lab and device type", "telemetry.stats", by).await;
    book.refused(raw, "by nothing that there is", "telemetry.stats", json!({"group_by": "x"})).await;
    let now = |result: &str| {
        json!({"kind": "job_result", "runtime": "lava-a", "device_type": "rk3399", "device_id": "rk3399-1", "result": result,
            "is_infra_error": true, "error_type": "timeout", "error_msg": "no boot"})
    };
    raw.call("telemetry.add", json!({"events": [now("fail"), now("fail"), now("incomplete")]})).await;
    book.ask(raw, "of the last hours", "telemetry.anomalies", json!({"threshold": 0.1})).await;
    book.refused(raw, "not a window", "telemetry.anomalies", json!({"window": "5h"})).await;
    book.close(METHODS);
}
