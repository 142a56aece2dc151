//! A server that is started before its database.

use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::services::{free_port, signal};
use crate::support::{Database, Mode, PATIENCE, Proxy, binary, services, until, until_within};

/// A server whose way to MongoDB is closed.
struct Early {
    process: Child,
    port: u16,
    to_mongo: Proxy,
    _database: Database,
}

impl Early {
    async fn start(settings: &[(&str, &str)]) -> Early {
        let address = services().mongo.split_once("://").expect("a URL").1;
        let mongo =
            address.split(['/', ',']).next().and_then(|host| host.rsplit_once(':')).expect("a port").1;
        let to_mongo = Proxy::to(&[mongo.parse().expect("a port")]).await;
        to_mongo.set(Mode::Refuse);
        let (port, database) = (free_port(), Database::new());
        let process = Command::new(binary())
            .args(["serve", "--listen", &format!("127.0.0.1:{port}")])
            .env_clear()
            .env("MONGO_URL", format!("mongodb://127.0.0.1:{}/?directConnection=true", to_mongo.port()))
            .envs([
                ("MONGO_DB", &database.name),
                ("REDIS_PREFIX", &database.name),
                ("REDIS_URL", &services().redis),
            ])
            .envs([
                ("SECRET_KEY", "a key that is long enough for everybody"),
                ("KCI_INITIAL_PASSWORD", "password"),
            ])
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        Early { process, port, to_mongo, _database: database }
    }

    /// Status and body.
    async fn get(&self, path: &str) -> Result<(u16, Value), String> {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let answer = reqwest::get(url).await.map_err(|error| error.to_string())?;
        let status = answer.status().as_u16();
        Ok((status, answer.json().await.map_err(|error| error.to_string())?))
    }

    /// Waits until it has ended: whether well, and what it has said.
    async fn ended(&mut self) -> (bool, String) {
        let status = until_within(2 * PATIENCE, "the server ends", async || {
            self.process.try_wait().expect("a process").ok_or("it runs")
        })
        .await;
        let mut said = String::new();
        let mut output = self.process.stderr.take().expect("piped");
        std::io::Read::read_to_string(&mut output, &mut said).expect("text");
        (status.success(), said)
    }
}

impl Drop for Early {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_started_before_mongodb_waits_and_says_so() {
    let mut early = Early::start(&[]).await;
    until("it says that it lives", async || match early.get("/latest/health").await {
        Ok((200, _)) => Ok(()),
        other => Err(other),
    })
    .await;
    until("it says what it waits for", async || match early.get("/ready").await {
        Ok((503, body)) if body["store"]["why"].as_str().is_some_and(|why| why.contains("store")) => Ok(body),
        other => Err(other),
    })
    .await;
    let (status, body) = early.get("/latest/whoami").await.expect("an answer");
    assert_eq!((status, body), (503, json!({"detail": "the server is starting, try again"})));
    early.to_mongo.set(Mode::Pass);
    until_within(3 * PATIENCE, "it serves", async || match early.get("/ready").await {
        Ok((200, _)) => Ok(()),
        other => Err(other),
    })
    .await;
    signal(early.process.id(), "TERM");
    let (well, said) = early.ended().await;
    assert!(well, "{said}");
    // In words, not in the driver's.
    assert!(said.contains("waiting for the store") && !said.contains("Topology"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_does_not_wait_for_ever_and_can_be_told_to_end() {
    let mut early = Early::start(&[("STARTUP_WAIT_SECONDS", "1")]).await;
    let (well, said) = early.ended().await;
    assert!(!well && said.contains("STARTUP_WAIT_SECONDS") && said.contains("no MongoDB server"), "{said}");
    assert!(!said.contains("Topology") && !said.contains("panicked"), "{said}");

    let mut early = Early::start(&[]).await;
    until("it lives", async || early.get("/health").await.map(drop)).await;
    signal(early.process.id(), "TERM");
    let (well, said) = early.ended().await;
    assert!(well && said.contains("ended before it served"), "{said}");
}
