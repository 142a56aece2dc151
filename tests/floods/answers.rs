//! Large answers that nobody reads, to many who ask for them.

use macro_rules_attribute::apply;
use serde_json::json;

use super::looks::{At, at_rest, is_back};
use super::{Bystander, head, post, says_from};
use crate::support::{Backend, Server, both_backends_in_pairs};

const CONNECTIONS: usize = 320;
/// Of the megabyte that each of them asks for.
const MEMORY: u64 = 192 << 20;

/// Strangers from everywhere ask for a megabyte each and take none of it: together they are given what strangers may be
/// given, and others go on.
#[apply(both_backends_in_pairs!)]
async fn answers_to_strangers_are_counted(backend: Backend) {
    let settings = [
        ("ANSWERS_MB", "24"),
        ("ANSWERS_MB_PER_ADDRESS", "4"),
        ("STALL_TIMEOUT_MS", "60000"),
        // Few are made at the same time.
        ("MAX_SEARCHES", "4"),
        ("MIMALLOC_PURGE_DELAY", "0"),
    ];
    let server = Server::start_with(backend, &settings).await;
    let mut bystander = Bystander::come(&server).await;
    for _ in 0..10 {
        let event = json!({"channel": "lab", "data": "x".repeat(100_000)});
        bystander.session.call("event.publish", event).await;
    }
    bystander.work().await;
    let (before, memory) = (at_rest(&server, At::Process).await, server.memory());
    let find = json!({"jsonrpc": "2.0", "id": 1, "method": "event.find", "params": {"channel": "lab", "limit": 100}});
    let get = head("GET /latest/events?channel=lab&limit=100", None, "");
    for request in [get.clone(), post("/latest/rpc", None, &find.to_string()), get.repeat(20)] {
        let mut held = Vec::new();
        let mut most = 0;
        for number in 0..CONNECTIONS {
            held.push(says_from(&server, 10 + (number % 48) as u8, request.as_bytes()).await);
            if number % 64 == 63 {
                bystander.work().await;
                most = most.max(server.memory().saturating_sub(memory));
            }
        }
        println!("{} MiB for {request:.60}", most >> 20);
        // What is on its way, and what is made of those that are worked on: few at a time.
        assert!(most < MEMORY, "{} MiB for {request:.60}", most >> 20);
        drop(held);
        assert_eq!(is_back(&server, At::Process, &before).await, Ok(()), "{request:.60}");
    }
}
