//! Connections that say nothing, or the wrong thing, and too many of them.

use std::time::{Duration, Instant};

use macro_rules_attribute::apply;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::{head, metric, rest_of, says_from};
use crate::support::{Backend, Raw, Server, both_backends, both_backends_in_pairs, eventually};

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HALF_A_BODY: &[u8] = b"POST /latest/rpc HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{";

/// A connection from an address of this machine, which has sixteen million.
async fn from(server: &Server, last: u8) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, last], 0).into()).expect("an address");
    socket.connect(([127, 0, 0, 1], server.port()).into()).await.expect("connects")
}

async fn connections(server: &Server) -> u64 {
    metric(server, "kernelci_connections{", "").await
}

#[apply(both_backends!)]
async fn whoever_says_nothing_is_not_waited_for(backend: Backend) {
    let server = Server::start_with(backend, &[("MESSAGE_TIMEOUT_MS", "500")]).await;
    let upgrade: &[u8] = b"GET /latest/ws HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\n";
    for said in [b"".as_slice(), b"P", b"PRI * HTTP/2.0", HTTP2_PREFACE, b"GET /latest/ws HT", upgrade] {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port())).await.expect("connects");
        stream.write_all(said).await.expect("sent");
        let answer = rest_of(&mut stream).await;
        let answer = answer.unwrap_or_else(|| panic!("{:?} stays", String::from_utf8_lossy(said)));
        // No frame of HTTP/2, whose length is in three bytes of which the first is 0.
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
            "{:?}",
            String::from_utf8_lossy(&answer)
        );
    }
    eventually("none is left", async || connections(&server).await == 1).await;
}

/// Half the connections are anybody's. Beyond that an address has its share, strangers leave a quarter, and whoever comes
/// then shows in their first request that they are a user.
#[apply(both_backends!)]
async fn a_share_for_each_address_and_room_for_users(backend: Backend) {
    let settings =
        [("MAX_CONNECTIONS", "40"), ("CONNECTIONS_PER_ADDRESS", "5"), ("MESSAGE_TIMEOUT_MS", "60000")];
    let server = Server::start_with(backend, &settings).await;
    let token = server.token().await.to_owned();
    eventually("the login has gone", async || connections(&server).await == 1).await;
    let mut held = Vec::new();
    let mut open = async |last: u8| {
        let mut stream = from(&server, last).await;
        // It stays if it is there after its first answer.
        _ = stream.write_all(b"GET /latest/count HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let mut answer = [0; 1000];
        let count = stream.read(&mut answer).await.unwrap_or(0);
        let stays = answer[..count].starts_with(b"HTTP/1.1 200");
        if stays {
            held.push(stream);
        }
        stays
    };
    let mut one = 0;
    while open(1).await {
        one += 1;
        assert!(one <= 40, "there is no end of it");
    }
    assert!((20..=22).contains(&one), "{one} of one address: one more than half");
    let mut others = 0;
    for last in 2..20 {
        let mut own = 0;
        while open(last).await {
            own += 1;
        }
        assert!(own <= 5, "{own} of 127.0.0.{last}");
        others += own;
    }
    assert_eq!(one + others, 30, "strangers leave a quarter");
    // A user comes from the address of those who have taken all of it.
    let client =
        reqwest::Client::builder().local_address("127.0.0.1".parse().ok()).build().expect("a client");
    let count = format!("{}/latest/count", server.url());
    let refused = client.get(&count).send().await.expect("answered");
    assert_eq!(
        (refused.status().as_u16(), refused.headers()["connection"].as_bytes()),
        (429, b"close".as_slice())
    );
    let whoami = format!("{}/latest/whoami", server.url());
    for _ in 0..3 {
        assert_eq!(client.get(&whoami).bearer_auth(&token).send().await.expect("answered").status(), 200);
    }
    // Pages cannot send a token with the request for a WebSocket.
    let url = server.ws_url();
    let mut raw = Raw::over(from(&server, 1).await, &url, Some("kernelci.v1.json"), &[])
        .await
        .expect("the upgrade succeeds");
    raw.call("session.hello", json!({"token": token})).await;
    raw.call("node.count", json!({})).await;
    let mut stranger = Raw::over(from(&server, 1).await, &url, Some("kernelci.v1.json"), &[])
        .await
        .expect("the upgrade succeeds");
    stranger.send_request("session.hello", json!({})).await.expect("sent");
    assert_eq!(stranger.expect_close().await, 1013);
    drop(held);
    eventually("there is room again", async || {
        client.get(&count).send().await.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
}

/// Nothing that has not come whole keeps the server from ending.
#[apply(both_backends_in_pairs!)]
async fn the_server_ends_among_silent_connections(backend: Backend) {
    let settings = [("DRAIN_MS", "300"), ("MESSAGE_TIMEOUT_MS", "600000")];
    let mut server = Server::start_with(backend, &settings).await;
    let mut held = Vec::new();
    for said in
        [b"".as_slice(), b"GET /latest/he", HALF_A_BODY, b"GET /latest/health HTTP/1.1\r\nhost: x\r\n\r\n"]
    {
        for _ in 0..20 {
            let mut stream = TcpStream::connect(("127.0.0.1", server.port())).await.expect("connects");
            stream.write_all(said).await.expect("sent");
            held.push(stream);
        }
    }
    // And somebody who takes next to nothing of a long answer.
    let mut writer = server.admin().await;
    for _ in 0..20 {
        writer.call("event.publish", json!({"channel": "lab", "data": "x".repeat(500_000)})).await;
    }
    drop(writer);
    let answers = head("GET /latest/events?channel=lab&limit=1000", None, "");
    let feed = head("GET /latest/events/feed?channel=lab&from=earliest", None, "");
    for said in [answers, feed] {
        let mut stream = says_from(&server, 1, said.as_bytes()).await;
        stream.read_u8().await.expect("the answer begins");
        held.push(stream);
    }
    let mut session = server.anonymous().await;
    eventually("all of them are there", async || connections(&server).await >= 80).await;
    let begun = Instant::now();
    server.terminate().await;
    let took = begun.elapsed();
    assert!(took < Duration::from_millis(300 + 2000), "{took:?}");
    assert_eq!(session.expect_close().await, 1012);
}
