//! Somebody who measures how it goes for everybody else: the health, an indexed find, a delivered event.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::attack::Attackers;
use crate::floods::{head, looks::entries};
use crate::support::{Raw, Server, node};

/// Nobody is measured for longer.
pub const LONGEST: Duration = Duration::from_secs(10);
/// Between two measurements of one kind.
const REST: Duration = Duration::from_millis(10);
/// A server that takes more is not flooded any further.
pub const MOST_MEMORY: u64 = 3 << 30;

/// What was measured under one flood.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Seconds, of each that was measured.
    pub health: Vec<f64>,
    pub find: Vec<f64>,
    pub event: Vec<f64>,
    /// The most of each.
    pub memory: u64,
    pub descriptors: u64,
}

/// The sessions and the connection that are measured on.
pub struct Probe<'a> {
    server: &'a Server,
    finder: Raw,
    writer: Raw,
    reader: Raw,
    health: TcpStream,
    id: Value,
}

/// Measures one thing again and again until the time is up; what fails or takes too long counts as the longest.
macro_rules! measure {
    ($end:expr, $into:expr, $once:expr) => {
        while Instant::now() < $end {
            let begun = Instant::now();
            let done = timeout(LONGEST, $once).await.is_ok_and(|done| done);
            $into.push(if done { begun.elapsed() } else { LONGEST }.as_secs_f64());
            sleep(REST).await;
        }
    };
}

impl<'a> Probe<'a> {
    /// Comes before the flood.
    pub async fn come(server: &'a Server) -> Probe<'a> {
        let (mut finder, mut writer, mut reader) =
            (server.admin().await, server.admin().await, server.admin().await);
        let id = finder.call("node.create", json!({"node": node("checkout", "as ever")})).await["id"].take();
        writer.call("event.publish", json!({"channel": "lab", "data": 0})).await;
        reader.call("event.subscribe", json!({"sub": 1, "channel": "lab"})).await;
        let health = TcpStream::connect(("127.0.0.1", server.port())).await.expect("connects");
        Probe { server, finder, writer, reader, health, id }
    }

    /// Measures for so long.
    pub async fn measure(&mut self, time: Duration, attackers: &Attackers) -> Figures {
        let mut figures = Figures::default();
        let Figures { health, find, event, memory, descriptors } = &mut figures;
        let end = Instant::now() + time;
        let Probe { server, finder, writer, reader, health: connection, id } = self;
        let (ask, port) = (head("GET /latest/health", None, ""), server.port());
        tokio::join!(
            async { measure!(end, health, is_healthy(connection, &ask, port)) },
            async {
                let filter = json!({"filter": {"id": id}});
                measure!(end, find, async {
                    finder
                        .try_request("node.find", filter.clone())
                        .await
                        .is_ok_and(|answer| answer["error"].is_null())
                });
            },
            async {
                let mut number = 0;
                measure!(end, event, async {
                    number += 1;
                    let event = json!({"channel": "lab", "data": number});
                    let told = async |reader: &mut Raw| {
                        let is_it = |message: &Value| message["params"]["event"]["data"] == number;
                        reader.wait_for(LONGEST, is_it).await.is_ok()
                    };
                    let (answer, told) =
                        tokio::join!(writer.try_request("event.publish", event), told(reader));
                    told && answer.is_ok()
                });
            },
            async {
                while Instant::now() < end {
                    *memory = server.memory().max(*memory);
                    if *memory > MOST_MEMORY {
                        attackers.stop();
                    }
                    *descriptors = entries(server, "fd").max(*descriptors);
                    sleep(Duration::from_millis(200)).await;
                }
            },
        );
        figures
    }
}

/// Asks on a connection that stays, or on a new one if it does not.
async fn is_healthy(stream: &mut TcpStream, ask: &str, port: u16) -> bool {
    let mut answer = [0; 1000];
    let asked = async {
        stream.write_all(ask.as_bytes()).await?;
        stream.read(&mut answer).await
    };
    match asked.await {
        Ok(count) if answer[..count].starts_with(b"HTTP/1.1 200") => true,
        _ => {
            if let Ok(new) = TcpStream::connect(("127.0.0.1", port)).await {
                *stream = new;
            }
            false
        }
    }
}

/// The value below which so much of them lies.
pub fn percentile(figures: &[f64], part: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}
