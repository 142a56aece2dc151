//! From the start of the process to the first 200 of `/health`, and the size of the binary.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures::StreamExt;
use kernelci_live::client::{Auth, Client, Options};

use crate::load::checkout;
use crate::report::{Figure, Report, ms};
use crate::support::{Backend, PATIENCE};

const RUNS: usize = 5;
/// Nodes in the existing data.
const NODES: usize = 2000;
const BINARY: &str = env!("CARGO_BIN_EXE_kernelci-live");
const PASSWORD: &str = "a password of the figures";

pub(crate) async fn measure(report: &mut Report) {
    let (mut fresh, mut existing, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let kept = folder.path().join("kept");
    let (mut server, port, _) = start(&kept);
    fill(port).await;
    stop(&mut server);
    for number in 0..RUNS {
        for (data, times) in
            [(folder.path().join(number.to_string()), &mut fresh), (kept.clone(), &mut existing)]
        {
            let (mut server, _, took) = start(&data);
            times.push(ms(took));
            stop(&mut server);
        }
        let begin = Instant::now();
        Command::new(BINARY).arg("--version").stdout(Stdio::null()).status().expect("the binary runs");
        bare.push(ms(begin.elapsed()));
    }
    let peer = Some(("the same binary, --version", bare.as_slice()));
    for (name, ours) in [("cold start, no data", &fresh), ("cold start, 2,000 nodes", &existing)] {
        report.add(Figure { name, backend: Some(Backend::Embedded), unit: "ms", ours, peer });
    }
    let size = std::fs::metadata(BINARY).expect("the binary").len() as f64 / (1 << 20) as f64;
    report.add(Figure { name: "binary", backend: None, unit: "MiB", ours: &[size], peer: None });
}

fn start(data: &Path) -> (Child, u16, Duration) {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let begin = Instant::now();
    let server = Command::new(BINARY)
        .args(["serve", "--listen", &free.to_string(), "--data"])
        .arg(data)
        .env_clear()
        .env("KCI_INITIAL_PASSWORD", PASSWORD)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the server starts");
    while !is_healthy(free.port()) {
        assert!(begin.elapsed() < PATIENCE, "the server does not answer");
        std::thread::sleep(Duration::from_micros(500));
    }
    (server, free.port(), begin.elapsed())
}

fn is_healthy(port: u16) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

fn stop(server: &mut Child) {
    // SIGTERM, which the standard library cannot send, so that the store is closed in order.
    let sent = Command::new("kill").arg(server.id().to_string()).status();
    assert!(sent.is_ok_and(|status| status.success()), "the signal is sent");
    server.wait().expect("the server ends");
}

async fn fill(port: u16) {
    let auth = Auth::Password { user: "admin".into(), password: PASSWORD.into() };
    let options = Options::new(format!("http://127.0.0.1:{port}")).auth(auth);
    let client = Client::connect(options).await.expect("a session");
    let create = |number| {
        let client = client.clone();
        async move { client.node_create(&checkout(&format!("n{number}")), None).await.expect("created") }
    };
    futures::stream::iter(0..NODES).map(create).buffer_unordered(16).for_each(async |_| {}).await;
    client.close().await;
}
