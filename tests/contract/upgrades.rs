//! Requests that ask for a WebSocket and are refused, and heads that two readers may take for two requests.

use macro_rules_attribute::apply;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Server, both_backends, soon};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// All that comes back until the server ends the connection.
async fn talk(server: &Server, request: &str) -> String {
    let mut stream = TcpStream::connect(format!("127.0.0.1:{}", server.port())).await.expect("connects");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    soon("the connection ends", stream.read_to_end(&mut answer)).await.expect("reads");
    String::from_utf8_lossy(&answer).to_lowercase()
}

fn upgrade(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n{headers}\r\n")
}

#[apply(both_backends!)]
async fn a_refused_upgrade_ends_the_connection_and_names_the_version(server: Server) {
    let key = format!("sec-websocket-key: {KEY}\r\n");
    let version = "sec-websocket-version: 13\r\n";
    for path in ["/latest/ws", "/latest/events/feed", "/latest/nodes"] {
        for (what, headers) in [
            ("version 8", format!("{key}sec-websocket-version: 8\r\n")),
            ("no version", key.clone()),
            ("no key", version.to_owned()),
            ("no base64", format!("{version}sec-websocket-key: x\r\n")),
            ("15 bytes", format!("{version}sec-websocket-key: dGhlIHNhbXBsZSBub25j\r\n")),
            ("two keys", format!("{version}{key}{key}")),
            ("another subprotocol", format!("{version}{key}sec-websocket-protocol: other\r\n")),
        ] {
            // What stands behind it would be answered as a request.
            let both = upgrade(path, &headers) + "GET /latest/health HTTP/1.1\r\nhost: x\r\n\r\n";
            let answer = talk(&server, &both).await;
            assert_eq!(answer.matches("http/1.1 ").count(), 1, "{path}, {what}: {answer}");
            let status = if path == "/latest/nodes" { "http/1.1 200" } else { "http/1.1 400" };
            assert!(answer.starts_with(status), "{path}, {what}: {answer}");
            assert!(answer.contains("\r\nconnection: close\r\n"), "{path}, {what}: {answer}");
            assert!(answer.contains("\r\nsec-websocket-version: 13\r\n"), "{path}, {what}: {answer}");
        }
    }
}

#[apply(both_backends!)]
async fn a_request_for_two_hosts_or_none_is_refused(server: Server) {
    let more = "GET /latest/health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    for hosts in ["host: a\r\nhost: b\r\n", "host: a\r\nhost: a\r\n", "host: a, b\r\n", "host: a/b\r\n", ""] {
        for path in ["/latest/nodes", "/health", "/latest/ws", "/"] {
            let answer = talk(&server, &format!("GET {path} HTTP/1.1\r\n{hosts}\r\n{more}")).await;
            assert!(answer.starts_with("http/1.1 400"), "{hosts:?} {path}: {answer}");
            assert_eq!(answer.matches("http/1.1 ").count(), 1, "{hosts:?} {path}: {answer}");
        }
    }
    let old = talk(&server, "GET /latest/health HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("http/1.0 200"), "{old}");
}
