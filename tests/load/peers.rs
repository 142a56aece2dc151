//! The peers that need nothing but this machine's own programs.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::generator::load;
use crate::support::services;

struct Plain(Child);

impl Drop for Plain {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn the_plain_server_passes_everything_on() {
    let mut server = Command::new(env!("CARGO_BIN_EXE_kernelci-live"))
        .args(["load", "serve-plain", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .map(Plain)
        .expect("starts");
    let mut line = String::new();
    let out = server.0.stdout.take().expect("its output");
    BufReader::new(out).read_line(&mut line).expect("a line");
    let url = line.trim().rsplit(' ').next().expect("an address");
    let run = load(url, "fan-out --adapter plain --subscribers 20 --events 10 --size 500").await;
    run.good(&["deliveries_per_second"], &["delivery", "last_delivery"]);
    assert_eq!((run.figure("message_bytes"), run.figure("deliveries")), (500.0, 200.0));
    // More than the sockets' buffers hold at a time.
    let run = load(url, "coalesced --adapter plain --subscribers 20 --seconds 0.5 --size 20000").await;
    run.good(&["deliveries_per_second"], &["delivery"]);
    let run = load(url, "requests get --adapter plain").await;
    assert!(!run.success && run.text.contains("--adapter kernelci only"), "{}", run.text);
}

#[tokio::test]
async fn redis_passes_everything_on() {
    let run = load(&services().redis, "burst --adapter redis --subscribers 5 --rate 100 --seconds 0.5").await;
    run.good(&["deliveries_per_second"], &["delivery"]);
    assert_eq!(run.figure("deliveries"), 250.0);
}
