//! A MongoDB replica set and a Redis of a test's own, to be killed, frozen and robbed of their data.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bson::{Document, doc};
use tempfile::TempDir;

use crate::support::{PATIENCE, Proxy, eventually_within};

/// A port that was free a moment ago, from a range that no outgoing connection is given one of: services keep theirs
/// while they are dead.
pub fn free_port() -> u16 {
    let mut tries = (0..1000).map(|_| rand::random_range(12_000..32_000_u16));
    tries.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}

/// Sends a signal to a process that this test has started.
pub fn signal(pid: u32, name: &str) {
    // The standard library cannot send signals, the shell can.
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status();
    assert!(sent.is_ok_and(|status| status.success()), "SIG{name} is sent");
}

/// Waits for something that will be true; panics after a long while.
pub async fn eventually(what: &str, is_so: impl AsyncFnMut() -> bool) {
    eventually_within(2 * PATIENCE, what, is_so).await;
}

/// A process that ends with its owner.
struct Process(Option<Child>);

impl Process {
    fn start(command: &mut Command, folder: &Path) -> Process {
        let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).expect("a log");
        let command = command.stdin(Stdio::null()).stdout(log).stderr(Stdio::null());
        Process(Some(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"))))
    }
    /// Whether it has ended by itself.
    fn has_ended(&mut self) -> bool {
        self.0.as_mut().is_none_or(|child| child.try_wait().is_ok_and(|status| status.is_some()))
    }
    fn pid(&self) -> u32 {
        self.0.as_ref().expect("the service runs").id()
    }
    fn kill9(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// The end of what a service has said.
fn log(folder: &TempDir) -> String {
    let text = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

/// What Redis keeps over its own death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// Nothing.
    Nothing,
    /// Every write that it has answered.
    Everything,
}

/// A Redis server.
pub struct Redis {
    pub port: u16,
    keeps: Keeps,
    folder: TempDir,
    process: Process,
}

impl Redis {
    pub async fn start(keeps: Keeps) -> Redis {
        let folder = tempfile::tempdir().expect("a folder");
        let mut redis = Redis { port: free_port(), keeps, folder, process: Process(None) };
        redis.run().await;
        redis
    }

    /// Whether it loses everything when it dies.
    pub fn forgets(&self) -> bool {
        self.keeps == Keeps::Nothing
    }

    async fn run(&mut self) {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--save", ""]);
        command.arg("--dir").arg(self.folder.path());
        if self.keeps == Keeps::Everything {
            command.args(["--appendonly", "yes", "--appendfsync", "always"]);
        }
        self.process = Process::start(&mut command, self.folder.path());
        eventually("redis-server answers", async || {
            assert!(!self.process.has_ended(), "redis-server has ended: {}", log(&self.folder));
            self.try_command(&["PING"]).await.is_ok()
        })
        .await;
    }

    async fn try_command(&self, words: &[&str]) -> redis::RedisResult<redis::Value> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}/", self.port))?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]).query_async(&mut connection).await
    }

    /// Runs a command that must succeed.
    pub async fn command(&self, words: &[&str]) {
        let done = self.try_command(words).await;
        done.unwrap_or_else(|error| panic!("{words:?}: {error}"));
    }

    /// SIGKILL, and after `pause` a new life with what it keeps.
    pub async fn kill9(&mut self, pause: Duration) {
        self.process.kill9();
        tokio::time::sleep(pause).await;
        self.run().await;
    }

    /// Takes a dump, to be restored by [`Redis::restore`].
    pub async fn dump(&self) {
        self.command(&["SAVE"]).await;
        let files = self.folder.path();
        std::fs::rename(files.join("dump.rdb"), files.join("old.rdb")).expect("the dump is there");
    }

    /// Kills it and starts it on the dump of [`Redis::dump`], as a restore from backup or a lagging replica would.
    pub async fn restore(&mut self) {
        assert_eq!(self.keeps, Keeps::Nothing, "a Redis with an AOF does not read its dump");
        self.process.kill9();
        let dump = self.folder.path().join("dump.rdb");
        std::fs::rename(self.folder.path().join("old.rdb"), &dump).expect("the dump is there");
        self.run().await;
        std::fs::remove_file(dump).expect("the dump is there");
    }

    /// SIGSTOP for so long.
    pub async fn freeze(&self, time: Duration) {
        freeze(self.process.pid(), time).await;
    }
}

/// SIGSTOP for so long.
pub async fn freeze(pid: u32, time: Duration) {
    signal(pid, "STOP");
    tokio::time::sleep(time).await;
    signal(pid, "CONT");
}

/// One `mongod` behind a proxy, by which everybody knows it.
struct Member {
    port: u16,
    proxy: Proxy,
    folder: TempDir,
    process: Process,
}

/// A replica set.
pub struct Mongo {
    members: Vec<Member>,
}

impl Mongo {
    pub async fn start(members: usize) -> Mongo {
        let mut mongo = Mongo { members: Vec::new() };
        for _ in 0..members {
            let port = free_port();
            let folder = tempfile::tempdir().expect("a folder");
            let proxy = Proxy::to(&[port]).await;
            let mut member = Member { port, proxy, folder, process: Process(None) };
            member.run();
            mongo.members.push(member);
        }
        let hosts: Vec<Document> = mongo
            .members
            .iter()
            .zip(0..)
            .map(|(member, id)| doc! {"_id": id, "host": format!("127.0.0.1:{}", member.proxy.port())})
            .collect();
        let settings = doc! {"electionTimeoutMillis": 1500, "heartbeatIntervalMillis": 500};
        let initiate = doc! {"replSetInitiate": {"_id": "faults", "members": hosts, "settings": settings}};
        let mut refused = None;
        eventually("mongod takes its configuration", async || {
            for member in &mut mongo.members {
                assert!(!member.process.has_ended(), "mongod has ended: {}", log(&member.folder));
            }
            let done = mongo.members[0].command(initiate.clone()).await;
            if let Err(error) = &done {
                let text = error.to_string();
                if refused.as_ref() != Some(&text) {
                    println!("not yet: {text}");
                    refused = Some(text);
                }
            }
            // Whose answer was lost.
            done.is_ok() || refused.as_ref().is_some_and(|text| text.contains("AlreadyInitialized"))
        })
        .await;
        mongo.has_primary().await;
        mongo
    }

    /// The address of the whole set.
    pub fn url(&self) -> String {
        let hosts: Vec<String> =
            self.members.iter().map(|member| format!("127.0.0.1:{}", member.proxy.port())).collect();
        format!("mongodb://{}/?replicaSet=faults", hosts.join(","))
    }

    /// Runs a command, which must succeed, on the first member.
    pub async fn command(&self, command: Document) {
        let done = self.members[0].command(command.clone()).await;
        done.unwrap_or_else(|error| panic!("{command}: {error}"));
    }

    /// The port of the only member itself.
    pub fn port(&self) -> u16 {
        self.members[0].port
    }

    async fn primary(&self) -> Option<usize> {
        for (index, member) in self.members.iter().enumerate() {
            if member.process.0.is_none() {
                continue;
            }
            let hello = member.command(doc! {"hello": 1}).await;
            if hello.is_ok_and(|hello| hello.get_bool("isWritablePrimary").unwrap_or(false)) {
                return Some(index);
            }
        }
        None
    }

    /// Waits until there is a primary.
    pub async fn has_primary(&self) -> usize {
        let mut found = None;
        eventually("the replica set has a primary", async || {
            found = self.primary().await;
            found.is_some()
        })
        .await;
        found.expect("waited for")
    }

    /// SIGKILL for the primary, and after `pause` a new life.
    pub async fn kill9(&mut self, pause: Duration) {
        let primary = self.has_primary().await;
        self.members[primary].process.kill9();
        tokio::time::sleep(pause).await;
        self.members[primary].run();
        self.has_primary().await;
    }

    /// The primary steps down and another member takes its place.
    pub async fn step_down(&self) {
        let primary = self.has_primary().await;
        let step_down = doc! {"replSetStepDown": 10, "secondaryCatchUpPeriodSecs": 5, "force": true};
        // It may cut the connection over which it was asked.
        let _ = self.members[primary].command(step_down).await;
        self.has_primary().await;
    }

    /// SIGSTOP for the primary.
    pub async fn freeze(&self, time: Duration) {
        let primary = self.has_primary().await;
        freeze(self.members[primary].process.pid(), time).await;
        self.has_primary().await;
    }

    /// The proxies of all members.
    pub fn proxies(&self) -> impl Iterator<Item = &Proxy> {
        self.members.iter().map(|member| &member.proxy)
    }
}

impl Member {
    fn run(&mut self) {
        let mut command = Command::new(&crate::support::services().mongod);
        command.args(["--bind_ip", "127.0.0.1", "--port", &self.port.to_string(), "--replSet", "faults"]);
        command.args(["--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "64", "--nounixsocket", "--quiet"]);
        command.args(["--setParameter", "diagnosticDataCollectionEnabled=false"]);
        // What an instance leaves open that is killed in a transaction; see the README.
        command.args(["--setParameter", "transactionLifetimeLimitSeconds=3"]);
        command.arg("--dbpath").arg(self.folder.path());
        self.process = Process::start(&mut command, self.folder.path());
    }

    /// Runs a command on this very member.
    async fn command(&self, command: Document) -> mongodb::error::Result<Document> {
        let url =
            format!("mongodb://127.0.0.1:{}/?directConnection=true&serverSelectionTimeoutMS=500", self.port);
        let client = mongodb::Client::with_uri_str(url).await?;
        let admin = client.database("admin");
        let done = tokio::time::timeout(Duration::from_secs(20), admin.run_command(command)).await;
        done.unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
    }
}
