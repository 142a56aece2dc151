//! Runs the real binary as a process, so that it can be killed as one.

use std::fs::{self, File};
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::pool::{self, Database, For};
use super::raw::Raw;
use super::services::services;
use super::wait::{PATIENCE, until_within};

/// The `SECRET_KEY` of every server under test: tests may sign tokens themselves.
pub const SECRET: &str = "a secret of the tests, long enough for HS256";
/// The password of `admin`.
pub const PASSWORD: &str = "a password of the tests";

/// What a server keeps its data in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// SQLite in the data folder.
    Embedded,
    /// MongoDB and Redis.
    Production,
}

/// What [`both_backends`](super::both_backends) can hand to a test.
pub trait PerBackend {
    /// Makes it on this back end.
    async fn on(backend: Backend) -> Self;
}

impl PerBackend for Backend {
    async fn on(backend: Backend) -> Self {
        backend
    }
}

impl PerBackend for Server {
    async fn on(backend: Backend) -> Self {
        Server::start(backend).await
    }
}

/// A running server. Dropping it kills the process and removes its data; after a failed test it prints the log.
pub struct Server {
    backend: Backend,
    process: Option<Child>,
    folder: TempDir,
    /// Shared with the other instances of the test; none if the test brings MongoDB and Redis of its own.
    database: Option<Arc<Database>>,
    /// The id of the superuser `admin`, if the test has not made him otherwise.
    admin: Option<String>,
    port: u16,
    settings: Vec<(String, String)>,
    token: tokio::sync::OnceCell<String>,
}

impl Server {
    /// A server with default settings and an empty store.
    pub async fn start(backend: Backend) -> Server {
        Server::start_with(backend, &[]).await
    }

    /// As [`Server::start`], with these environment variables set in addition.
    pub async fn start_with(backend: Backend, settings: &[(&str, &str)]) -> Server {
        Server::start_in(tempfile::tempdir().expect("a temporary folder"), backend, settings).await
    }

    /// As [`Server::start_with`], in this folder, in which `data` may exist already.
    pub async fn start_in(folder: TempDir, backend: Backend, settings: &[(&str, &str)]) -> Server {
        let sets = |what: &str| settings.iter().any(|(key, _)| key.starts_with(what));
        let first = sets("KCI_INITIAL_");
        // How long MongoDB retains something stays in a database, too.
        let own = first || sets("EVENT_HISTORY_TTL") || sets("TELEMETRY_TTL");
        let data = folder.path().join("data");
        let (mut database, mut admin) = (None, None);
        match backend {
            Backend::Embedded if first || data.exists() => {}
            Backend::Embedded => admin = Some(pool::fill(&data)),
            // A test that brings a database of its own looks after it itself.
            Backend::Production if sets("MONGO_") => {}
            Backend::Production if own => database = Some(Database::new()),
            Backend::Production => database = Some(Database::take(For::Servers).await),
        }
        let mut server = Server::run(folder, backend, database.as_ref(), settings).await;
        if let Some(database) = &mut database
            && !own
        {
            database.keep(For::Servers).await;
            admin = database.admin();
        }
        server.database = database.map(Arc::new);
        server.admin = admin;
        server
    }

    /// As [`Server::start_with`], on a store that nobody used before and nobody will use: for tests of the first start,
    /// of indexes, and of what else stands in a database.
    pub async fn start_apart(backend: Backend, settings: &[(&str, &str)]) -> Server {
        let database = (backend == Backend::Production).then(Database::new);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut server = Server::run(folder, backend, database.as_ref(), settings).await;
        server.database = database.map(Arc::new);
        server
    }

    async fn run(
        folder: TempDir,
        backend: Backend,
        database: Option<&Database>,
        settings: &[(&str, &str)],
    ) -> Server {
        let log = std::env::var("LOG").unwrap_or_else(|_| "info".to_owned());
        let mut all =
            vec![("SECRET_KEY", SECRET), ("KCI_INITIAL_PASSWORD", PASSWORD), ("RUST_BACKTRACE", "1")];
        all.push(("LOG", &log));
        if backend == Backend::Production {
            let at = services();
            all.extend([("MONGO_URL", at.mongo.as_str()), ("REDIS_URL", at.redis.as_str())]);
        }
        if let Some(database) = database {
            all.extend([("MONGO_DB", database.name.as_str()), ("REDIS_PREFIX", database.name.as_str())]);
        }
        all.extend(settings);
        let settings = all.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let token = tokio::sync::OnceCell::new();
        let mut server =
            Server { backend, process: None, folder, database: None, admin: None, port: 0, settings, token };
        server.spawn().await;
        server
    }

    /// A second instance that shares the store of this one, as behind a load balancer (production only).
    pub async fn another(&self) -> Server {
        assert_eq!(self.backend, Backend::Production, "only the production back end can be shared");
        let mut server = Server {
            backend: self.backend,
            process: None,
            folder: tempfile::tempdir().expect("a temporary folder"),
            database: self.database.clone(),
            admin: self.admin.clone(),
            port: 0,
            settings: self.settings.clone(),
            token: tokio::sync::OnceCell::new(),
        };
        server.spawn().await;
        server
    }

    /// Which back end it runs on.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// `http://127.0.0.1:<port>`, without a slash behind.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The WebSocket's address.
    pub fn ws_url(&self) -> String {
        format!("ws://127.0.0.1:{}/latest/ws", self.port)
    }

    /// The data folder.
    pub fn folder(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The value of an environment variable that it was started with.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Bytes of memory that the process has now.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the process lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the server runs").id()
    }

    /// A token of the superuser `admin`: as the login gives it, but signed here where that is possible, since checking a
    /// password takes long on purpose.
    pub async fn token(&self) -> &str {
        let issue = async || match &self.admin {
            Some(id) => {
                let now = chrono::Utc::now().timestamp();
                let jti = uuid::Uuid::new_v4().simple().to_string();
                signed(
                    &json!({"sub": id, "aud": ["fastapi-users:auth"], "exp": now + 86_400, "iat": now, "jti": jti, "gen": 0}),
                )
            }
            None => self.login("admin", PASSWORD).await,
        };
        self.token.get_or_init(issue).await
    }

    /// A token from `POST /latest/user/login`.
    pub async fn login(&self, username: &str, password: &str) -> String {
        let answer = reqwest::Client::new()
            .post(format!("{}/latest/user/login", self.url()))
            .form(&[("username", username), ("password", password)])
            .send()
            .await
            .expect("the login answers");
        let body: Value = answer.json().await.expect("the login answers with JSON");
        body["access_token"]
            .as_str()
            .unwrap_or_else(|| panic!("no token in the login's answer: {body}"))
            .to_owned()
    }

    /// A token of `admin` with these claims changed, e.g. `{"exp": …}`; signed here, not by the server.
    pub async fn sign(&self, changes: Value) -> String {
        use base64::Engine;
        let payload = self.token().await.split('.').nth(1).unwrap_or_default();
        let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).expect("a JWT");
        let mut claims: Value = serde_json::from_slice(&payload).expect("claims");
        for (key, value) in changes.as_object().expect("claims are an object") {
            claims[key] = value.clone();
        }
        signed(&claims)
    }

    /// A token of `admin` that is valid for so many seconds.
    pub async fn token_for(&self, seconds: i64) -> String {
        self.sign(json!({"exp": chrono::Utc::now().timestamp() + seconds})).await
    }

    /// A WebSocket session without credentials that has not said hello yet.
    pub async fn connect(&self) -> Raw {
        Raw::connect(&self.ws_url(), Some("kernelci.v1.json"), &[]).await.expect("the upgrade succeeds")
    }

    /// A WebSocket session that has said hello without a token.
    pub async fn anonymous(&self) -> Raw {
        let mut raw = self.connect().await;
        raw.call("session.hello", json!({})).await;
        raw
    }

    /// A WebSocket session of `admin`.
    pub async fn admin(&self) -> Raw {
        // Logging in takes a while on a busy machine, longer than a session may wait for its hello or a pong.
        let token = self.token().await;
        let mut raw = self.connect().await;
        raw.call("session.hello", json!({"token": token, "client": "tests"})).await;
        raw
    }

    /// SIGKILL: nothing is flushed, nobody is told.
    pub fn kill9(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// SIGTERM.
    pub fn ask_to_stop(&self) {
        // The standard library cannot send this signal, the shell can.
        let sent = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.pid())]).status();
        assert!(sent.is_ok_and(|status| status.success()), "the signal is sent");
    }

    /// Waits until the process has ended.
    pub async fn exited(&mut self) -> ExitStatus {
        let drain = self.setting("DRAIN_MS").and_then(|ms| ms.parse().ok()).unwrap_or(0);
        let process = self.process.as_mut().expect("the server runs");
        let ended = async || process.try_wait().expect("the process can be waited for").ok_or("it runs");
        let status = until_within(PATIENCE + Duration::from_millis(drain), "the server ends", ended).await;
        self.process = None;
        status
    }

    /// SIGTERM, then waits until the process has ended.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.ask_to_stop();
        self.exited().await
    }

    /// Starts it again on the same port and data, after it was killed or has ended.
    pub async fn restart(&mut self) {
        assert!(self.process.is_none(), "the server still runs");
        self.spawn().await;
    }

    /// A token of a new user without any rights; the user is written directly into the database.
    pub async fn user(&self, username: &str) -> String {
        let (id, email) = (bson::oid::ObjectId::new(), format!("{username}@example.org"));
        match self.backend {
            Backend::Embedded => {
                let file = self.folder.path().join("data/kernelci.db");
                let database = rusqlite::Connection::open(file).expect("the database opens");
                let sql = "INSERT INTO user (id, username, email, hashed_password, is_active, is_superuser, is_verified, groups)
                     VALUES (?, ?, ?, '', 1, 0, 1, '[]')";
                let hex = id.to_hex();
                database.execute(sql, [hex.as_str(), username, &email]).expect("the user is written");
            }
            Backend::Production => {
                let client =
                    mongodb::Client::with_uri_str(&services().mongo).await.expect("MongoDB is there");
                let name = self.setting("MONGO_DB").expect("a database");
                let user = bson::doc! {
                    "_id": id, "username": username, "email": email, "hashed_password": "", "is_active": true,
                    "is_superuser": false, "is_verified": true, "groups": [],
                };
                let users = client.database(name).collection::<bson::Document>("user");
                users.insert_one(user).await.expect("the user is written");
            }
        }
        self.sign(json!({"sub": id.to_hex()})).await
    }

    /// Makes a user inactive, directly in the database.
    pub async fn deactivate(&self, username: &str) {
        match self.backend {
            Backend::Embedded => {
                let sql = "UPDATE user SET is_active = 0 WHERE username = ?";
                assert_eq!(self.database().execute(sql, [username]).expect("the user is written"), 1);
            }
            Backend::Production => {
                let update = bson::doc! {"$set": {"is_active": false}};
                let done =
                    self.mongo_users().await.update_one(bson::doc! {"username": username}, update).await;
                assert_eq!(done.expect("the user is written").modified_count, 1);
            }
        }
    }

    /// Sets a user's password hash, directly in the database.
    pub async fn set_password_hash(&self, username: &str, hash: &str) {
        match self.backend {
            Backend::Embedded => {
                let sql = "UPDATE user SET hashed_password = ?2 WHERE username = ?1";
                assert_eq!(self.database().execute(sql, [username, hash]).expect("the user is written"), 1);
            }
            Backend::Production => {
                let update = bson::doc! {"$set": {"hashed_password": hash}};
                let done =
                    self.mongo_users().await.update_one(bson::doc! {"username": username}, update).await;
                assert_eq!(done.expect("the user is written").matched_count, 1);
            }
        }
    }

    /// A user's password hash, as it stands in the database.
    pub async fn password_hash(&self, username: &str) -> String {
        match self.backend {
            Backend::Embedded => {
                let sql = "SELECT hashed_password FROM user WHERE username = ?";
                self.database().query_row(sql, [username], |row| row.get(0)).expect("the user")
            }
            Backend::Production => {
                let user = self.mongo_users().await.find_one(bson::doc! {"username": username}).await;
                user.expect("MongoDB answers")
                    .expect("the user")
                    .get_str("hashed_password")
                    .expect("text")
                    .to_owned()
            }
        }
    }

    async fn mongo_users(&self) -> mongodb::Collection<bson::Document> {
        self.mongo().await.collection("user")
    }

    /// The file of an embedded server.
    pub fn database(&self) -> rusqlite::Connection {
        let file = self.folder.path().join("data/kernelci.db");
        rusqlite::Connection::open(file).expect("the database opens")
    }

    /// What it has printed so far: standard error over all its lives, then standard output of this life.
    pub fn log(&self) -> String {
        let read = |name| fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        read("log") + &read("out")
    }

    async fn spawn(&mut self) {
        let log_path = self.folder.path().join("log");
        let log = File::options().create(true).append(true).open(log_path).expect("the log opens");
        // Standard output apart, and new at every start: the address is read from it.
        let out_path = self.folder.path().join("out");
        let out = File::create(&out_path).expect("the output file opens");
        let program = self.setting("KERNELCI_LIVE").map_or_else(binary, str::to_owned);
        let process = Command::new(program)
            .args(["serve", "--listen", &format!("127.0.0.1:{}", self.port)])
            .arg("--data")
            .arg(self.folder())
            .env_clear()
            .envs(self.settings.iter().map(|(key, value)| (key, value)))
            .current_dir(self.folder.path())
            .stdin(std::process::Stdio::null())
            .stdout(out)
            .stderr(log)
            .spawn()
            .expect("the server starts");
        self.process = Some(process);
        let process = self.process.as_mut().expect("it was started");
        let address = async || {
            let printed = fs::read_to_string(&out_path).unwrap_or_default();
            let ended = process.try_wait().ok().flatten();
            assert!(ended.is_none(), "the server ended at its start ({ended:?}): {printed}");
            printed_port(&printed).ok_or(printed)
        };
        // A new database with all its indexes takes long where many are being made.
        self.port = until_within(3 * PATIENCE, "the server prints its address", address).await;
    }
}

/// A token with these claims.
fn signed(claims: &Value) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key).expect("signs")
}

/// The server that is tested. `KERNELCI_LIVE` is another build of the same: what is measured under load is better
/// measured on a release build. (A test may start another one with the setting of this name.)
pub fn binary() -> String {
    std::env::var("KERNELCI_LIVE").unwrap_or_else(|_| env!("CARGO_BIN_EXE_kernelci-live").to_owned())
}

/// The port in the first `http://127.0.0.1:<port>/` of the server's output.
fn printed_port(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("http://127.0.0.1:")?;
    let (port, _) = rest.split_once('/')?;
    port.parse().ok()
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(60)..];
            eprintln!("--- the server's log ({:?}), last lines\n{}\n---", self.backend, last.join("\n"));
        }
    }
}
