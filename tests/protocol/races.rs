//! Many sessions that want the same thing at once: nobody loses an update, no rule is broken in between.

use futures::future::join_all;
use macro_rules_attribute::apply;
use serde_json::{Value, json};

use crate::support::{Raw, Server, both_backends, both_backends_in_pairs, node};

/// So many sessions of one user.
async fn sessions(server: &Server, count: usize) -> Vec<Raw> {
    join_all((0..count).map(|_| server.admin())).await
}

#[apply(both_backends!)]
async fn conditional_updates_lose_nothing(server: Server) {
    const WRITERS: usize = 6;
    const EACH: u64 = 10;
    let mut writers = sessions(&server, WRITERS).await;
    let id = writers[0].call("node.create", json!({"node": node("checkout", "counter")})).await["id"].take();
    // They meet at least once: nobody writes before all have read.
    let all_have_read = tokio::sync::Barrier::new(WRITERS);
    let conflicts = join_all(writers.iter_mut().map(|raw| {
        let (id, all_have_read) = (id.clone(), &all_have_read);
        async move {
            let (mut done, mut conflicts, mut first) = (0, 0, true);
            while done < EACH {
                let read = raw.call("node.get", json!({"id": id})).await;
                if std::mem::take(&mut first) {
                    all_have_read.wait().await;
                }
                let count = read["data"]["count"].as_u64().unwrap_or(0);
                let update =
                    json!({"id": id, "if_revision": read["revision"], "set": {"data": {"count": count + 1}}});
                let answer = raw.request("node.update", update).await;
                match answer["error"]["data"]["status"].as_u64() {
                    None => done += 1,
                    Some(409) => {
                        assert!(
                            answer["error"]["data"]["revision"].as_u64() > read["revision"].as_u64(),
                            "{answer}"
                        );
                        conflicts += 1;
                    }
                    Some(_) => panic!("{answer}"),
                }
            }
            conflicts
        }
    }))
    .await;
    assert!(conflicts.iter().sum::<u64>() >= WRITERS as u64 - 1, "{conflicts:?}");
    let last = writers[0].call("node.get", json!({"id": id})).await;
    assert_eq!(last["data"]["count"], WRITERS as u64 * EACH);
    assert_eq!(last["revision"], WRITERS as u64 * EACH + 1);
}

/// `done` is final: whoever comes later with `closing` is refused, however close the two are.
#[apply(both_backends!)]
async fn transitions_are_checked_where_they_are_written(server: Server) {
    const NODES: usize = 15;
    let mut writers = sessions(&server, 6).await;
    let mut watcher = server.admin().await;
    watcher.call("event.subscribe", json!({"sub": 1})).await;
    let mut written = 0;
    for number in 0..NODES {
        let id =
            watcher.call("node.create", json!({"node": node("job", &format!("job {number}"))})).await["id"]
                .take();
        let answers = join_all(writers.iter_mut().enumerate().map(|(writer, raw)| {
            let state = ["available", "closing", "done"][writer % 3];
            raw.request("node.update", json!({"id": id, "set": {"state": state}}))
        }))
        .await;
        for answer in &answers {
            let status = answer["error"]["data"]["status"].as_u64();
            assert!(matches!(status, None | Some(400)), "{answer}");
            written += usize::from(status.is_none());
        }
        assert_eq!(watcher.call("node.get", json!({"id": id})).await["state"], "done");
    }
    // The events tell of every step, in order, and each is one that the state machine has.
    let rank =
        |state: &Value| ["running", "available", "closing", "done"].iter().position(|known| state == known);
    let mut last = std::collections::HashMap::new();
    for _ in 0..NODES + written {
        let data = watcher.event(1).await["event"]["data"].take();
        let before = last.insert(data["id"].to_string(), data["state"].clone());
        assert_eq!(before.as_ref(), data.get("previous_state"), "{data}");
        if let Some(before) = &before {
            assert!(rank(before) <= rank(&data["state"]), "{data}");
        }
    }
}

#[apply(both_backends_in_pairs!)]
async fn repetitions_that_race_are_done_once(server: Server) {
    let mut writers = sessions(&server, 6).await;
    for number in 0..10 {
        let create = json!({"node": node("checkout", "once"), "idempotency_key": format!("k{number}")});
        let made = join_all(writers.iter_mut().map(|raw| raw.call("node.create", create.clone()))).await;
        assert!(made.iter().all(|node| node["id"] == made[0]["id"]), "{made:?}");
    }
    // Another operation's key of the same name is another key.
    let publish = json!({"channel": "lab", "data": 1, "idempotency_key": "k0"});
    let published = join_all(writers.iter_mut().map(|raw| raw.call("event.publish", publish.clone()))).await;
    assert!(
        published.iter().all(|answer| answer["id"] == published[0]["id"] && answer["seq"] == 1),
        "{published:?}"
    );
    let count = writers[0].call("node.count", json!({"filter": {"name": "once"}})).await;
    assert_eq!(count["count"], 10);
    let events = writers[0].call("event.find", json!({"channel": "node", "limit": 100})).await;
    assert_eq!(events["items"].as_array().map(Vec::len), Some(10));
}
