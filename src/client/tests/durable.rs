//! Durable subscriptions: what is acknowledged when, and what a reconnect does to it.

use super::*;

impl Peer {
    /// Confirms a durable subscription that stands at `seq`.
    async fn resumed(&mut self, seq: u64) -> Value {
        let request = self.expect("event.subscribe").await;
        let position = json!({"epoch": "e1", "seq": seq});
        let result = json!({"sub": 1, "position": position, "recovered": true, "resumed": true});
        self.answer(&request, result).await;
        request["params"].clone()
    }
    /// The next acknowledgement, which must be this one.
    async fn acked(&mut self, seq: u64) -> Value {
        let request = self.expect("event.ack").await;
        assert_eq!(request["params"], json!({"sub": 1, "seq": seq}));
        request
    }
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_are_coalesced_and_sent_again_only_if_need_be() {
    let server = Server::start().await;
    let (client, mut peer) = server.connected().await;
    let wanted = Subscribe::to("lab").durable("d").window(9);
    let (events, params) = tokio::join!(client.subscribe(wanted), peer.resumed(10));
    assert_eq!((&params["durable"], &params["window"]), (&json!("d"), &json!(9)));
    let mut events = events.unwrap();
    for number in 11..=16 {
        peer.event(1, number).await;
        assert_eq!(seq(&mut events).await, number);
    }
    // One is on its way at a time; those meanwhile become one. What is older than that is not sent.
    events.ack(11);
    let first = peer.acked(11).await;
    [12, 14, 13].into_iter().for_each(|seq| events.ack(seq));
    peer.answer(&first, json!({})).await;
    peer.acked(14).await;
    // Lost with the connection. The server has written 11; 12 to 14 come again, are not shown again and acknowledged as
    // soon as this server has shown them.
    drop(peer);
    let (mut peer, _) = server.session().await;
    peer.resumed(11).await;
    peer.event(1, 12).await;
    let second = peer.acked(12).await;
    peer.event(1, 13).await;
    peer.event(1, 14).await;
    peer.event(1, 15).await;
    peer.answer(&second, json!({})).await;
    let third = peer.acked(14).await;
    peer.answer(&third, json!({})).await;
    peer.event(1, 16).await;
    peer.event(1, 17).await;
    assert_eq!(seq(&mut events).await, 17);
    // What is acknowledged is sent before the end.
    events.ack(17);
    let close = client.close();
    let script = async {
        peer.acked(17).await;
        while peer.next().await.is_some() {}
    };
    tokio::join!(close, script);
}

#[tokio::test(start_paused = true)]
async fn a_place_that_was_moved_back_while_away_is_read_again() {
    let server = Server::start().await;
    let (client, mut peer) = server.connected().await;
    let (events, _) = tokio::join!(client.subscribe(Subscribe::to("lab").durable("d")), peer.resumed(0));
    let mut events = events.unwrap();
    for number in 1..=3 {
        peer.event(1, number).await;
        assert_eq!(seq(&mut events).await, number);
    }
    events.ack(3);
    let request = peer.acked(3).await;
    peer.answer(&request, json!({})).await;
    // Its answer is in when what was asked for behind it is.
    let asked = tokio::join!(client.node_get("a"), async {
        let request = peer.expect("node.get").await;
        peer.answer(&request, json!(1)).await;
    });
    asked.0.unwrap();
    drop(peer);
    let (mut peer, _) = server.session().await;
    peer.resumed(1).await;
    for number in 2..=3 {
        peer.event(1, number).await;
        assert_eq!(seq(&mut events).await, number);
    }
    events.ack(2);
    peer.acked(2).await;
    // By a request of its own connection that was lost, it subscribes again.
    peer.notify("unsubscribed", json!({"sub": 1, "reason": "taken over", "by": "s"})).await;
    peer.resumed(1).await;
    // Taken over by somebody else, it ends; it is not for this client to take it back.
    peer.notify("unsubscribed", json!({"sub": 1, "reason": "taken over", "by": "other"})).await;
    assert!(timeout(PATIENCE, events.next()).await.unwrap().is_none());
    assert_eq!(events.ended(), Some(Ended::TakenOver));
}
