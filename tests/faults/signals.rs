//! Signals between instances: what was sent while Redis could not be reached is found afterwards.

use std::time::Instant;

use serde_json::Value;

use super::cluster::Cluster;
use super::services::Keeps;
use crate::support::{Answer, Http, Mode, Proxy, soon, until};

/// Opens the subscription `taken` through this instance, which ends the one before; an `Err` if it does not reach the log.
async fn take(http: &Http) -> Result<u64, String> {
    let answer = http.post("/latest/subscribe/node?subscriber_id=taken", &Value::Null).await;
    if answer.status == 503 {
        return Err(answer.text);
    }
    Ok(answer.ok()["id"].as_u64().expect("an id"))
}

/// A poll that waits on one instance hears that another one has taken its subscription over. Where the log of the first is
/// cut off, too, the poll may be told to try again before it hears of anything: then all of it is tried again.
async fn hears(polls: &Http, takes: &Http, while_away: impl AsyncFn(bool)) {
    for _ in 0..5 {
        if heard(polls, takes, &while_away).await {
            return;
        }
    }
    panic!("it is told to try again and again");
}

/// One try; false: it was told to try again.
async fn heard(polls: &Http, takes: &Http, while_away: &impl AsyncFn(bool)) -> bool {
    // Its connections may have been cut: the log's is not back because the signals' is.
    let id = until("the log is reached", async || take(polls).await).await;
    let poll = tokio::spawn({
        let polls = polls.clone();
        async move { polls.get(&format!("/latest/listen/{id}")).await }
    });
    // It has to be waiting, not on its way: it is noted when the poll has looked for events and listens for more.
    until("the poll is noted", async || {
        let stats = polls.get("/latest/stats/subscriptions").await.ok();
        let one = stats.as_array().expect("a list").iter().find(|one| one["id"] == id).cloned();
        if one.as_ref().is_some_and(|one| one["last_poll"].is_string()) { Ok(()) } else { Err(one) }
    })
    .await;
    assert!(!poll.is_finished(), "nothing to answer yet");
    while_away(true).await;
    let begun = Instant::now();
    take(takes).await.expect("nobody has cut its connections");
    while_away(false).await;
    let answer: Answer = soon("the poll is answered", poll).await.expect("an answer");
    if answer.status == 503 {
        return false;
    }
    assert_eq!(answer.status, 404, "{} after {:?}", answer.text, begun.elapsed());
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_that_was_missed_is_made_up_for() {
    // Keep-alives would end the polls as well.
    let cluster = Cluster::production_with(2, 1, Keeps::Nothing, &[("KEEP_ALIVE_PERIOD", "600")]).await;
    let token = cluster.servers[0].token().await;
    let [one, other] = [0, 1].map(|instance| Http::new(&cluster.servers[instance]).with(token));
    let way: &Proxy = &cluster.below.as_ref().expect("production").to_redis[0];

    hears(&one, &other, async |_| {}).await;
    hears(&one, &other, async |away| {
        way.set(if away { Mode::Refuse } else { Mode::Pass });
        way.cut();
    })
    .await;
    hears(&one, &other, async |_| {}).await;
    // The instance does not learn that its connections are gone.
    hears(&one, &other, async |away| {
        if away {
            way.half_open();
        }
    })
    .await;
    hears(&one, &other, async |_| {}).await;
}
