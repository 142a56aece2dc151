//! Stores to start on that were used before: the indexes of a new MongoDB database take mongod a second, the password
//! of the first admin half a second more, and hundreds of tests need no more than an empty store.
//!
//! A test has a database and a key prefix, or a data folder, to itself. What was used is emptied when the next one
//! takes it, so that whatever a killed server had under way has ended by then.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bson::{Document, doc};
use serde_json::{Value, json};

use super::server::{PASSWORD, SECRET, binary};
use super::services::{services, to_redis};
use super::wait::eventually;

/// Databases with more nodes than this are dropped: emptying them would take longer than making new ones.
const MOST_NODES: u64 = 1000;

/// A MongoDB database and a prefix of keys in Redis for one test and all its servers. Given back when dropped, unless
/// the test has failed or wants nobody else to have it.
pub struct Database {
    /// `MONGO_DB` and `REDIS_PREFIX`.
    pub name: String,
    /// How it is given back; `None`: it is not.
    back: Option<Back>,
}

/// What the next one has to know of a database.
struct Back {
    kept_for: For,
    /// The document of the first admin, as it has to be when the next one begins.
    admin: Option<Document>,
}

/// Who uses a database. Others have other settings, and changing the retention of events takes mongod long.
#[derive(Clone, Copy)]
pub enum For {
    /// Servers with the default settings.
    Servers,
    /// The fixtures of `tests/store`, in which nobody has an account.
    Stores,
}

impl For {
    /// The list in Redis of the databases that may be used again; the oldest comes first.
    fn list(self) -> &'static str {
        match self {
            For::Servers => "kernelci-live-tests:used:servers",
            For::Stores => "kernelci-live-tests:used:stores",
        }
    }
}

impl Database {
    /// One that was never used and will not be used again: for tests of indexes and of what stands in a database.
    pub fn new() -> Database {
        Database { name: format!("test-{}", uuid::Uuid::new_v4().simple()), back: None }
    }

    /// One that is empty but for its indexes and the first admin, if there is one, or a new one.
    pub async fn take(kept_for: For) -> Database {
        while let Some(used) = next_used(kept_for).await {
            let name = used["name"].as_str().expect("as it was given back").to_owned();
            let admin = used["admin"].as_str().map(document);
            if used["build"] == build() && empty(&name, admin.as_ref()).await {
                return Database { name, back: Some(Back { kept_for, admin }) };
            }
            remove(&name).await.expect("an old database is removed");
        }
        Database::new()
    }

    /// To be called when a server or a store has started on it: from now on the database is fit to be used again.
    pub async fn keep(&mut self, kept_for: For) {
        if self.back.is_none() {
            let users = database(&self.name).await.collection::<Document>("user");
            let admin = users.find_one(doc! {"username": "admin"}).await.expect("MongoDB answers");
            assert_eq!(admin.is_some(), matches!(kept_for, For::Servers), "the first admin");
            self.back = Some(Back { kept_for, admin });
        }
    }

    /// The id of the first admin, if it is known.
    pub fn admin(&self) -> Option<String> {
        Some(self.back.as_ref()?.admin.as_ref()?.get_object_id("_id").expect("an id").to_hex())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let back = self.back.take().filter(|_| !std::thread::panicking());
        let name = self.name.clone();
        // A runtime of its own on a thread of its own, because the caller may be inside one.
        let done = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                match back {
                    Some(back) => give_back(&name, back).await,
                    None => tokio::time::timeout(Duration::from_secs(30), remove(&name)).await?,
                }
            })
        });
        if let Ok(Err(error)) = done.join() {
            eprintln!("leftovers of a test stay in MongoDB or Redis: {error:#}");
        }
    }
}

async fn database(name: &str) -> mongodb::Database {
    mongodb::Client::with_uri_str(&services().mongo).await.expect("MongoDB is there").database(name)
}

async fn next_used(kept_for: For) -> Option<Value> {
    let mut redis = to_redis(None).await;
    let used: Option<String> =
        redis::cmd("RPOP").arg(kept_for.list()).query_async(&mut redis).await.expect("Redis answers");
    used.map(|used| serde_json::from_str(&used).expect("as it was given back"))
}

async fn give_back(name: &str, back: Back) -> anyhow::Result<()> {
    let admin = back.admin.map(|admin| bson::serialize_to_vec(&admin)).transpose()?;
    let admin = admin.map(|admin| BASE64.encode(admin));
    let used = json!({"name": name, "admin": admin, "build": build()});
    redis::cmd("LPUSH")
        .arg(back.kept_for.list())
        .arg(used.to_string())
        .exec_async(&mut to_redis(None).await)
        .await?;
    Ok(())
}

/// Empties a database, or says that it is not worth it.
async fn empty(name: &str, admin: Option<&Document>) -> bool {
    let database = database(name).await;
    if database.collection::<Document>("node").estimated_document_count().await.expect("MongoDB answers")
        > MOST_NODES
    {
        return false;
    }
    let server = database.client().database("admin");
    let busy = doc! {"currentOp": 1, "active": true, "ns": {"$regex": format!("^{name}\\.")}};
    eventually("end of what a killed server had under way", async || {
        let busy = server.run_command(busy.clone()).await.expect("MongoDB answers");
        busy.get_array("inprog").expect("a list").is_empty()
    })
    .await;
    for collection in database.list_collection_names().await.expect("MongoDB answers") {
        database.collection::<Document>(&collection).delete_many(doc! {}).await.expect("emptied");
    }
    if let Some(admin) = admin {
        database.collection::<Document>("user").insert_one(admin).await.expect("the admin is written");
    }
    forget(name).await.expect("Redis answers");
    true
}

async fn remove(name: &str) -> anyhow::Result<()> {
    database(name).await.drop().await?;
    Ok(forget(name).await?)
}

/// Removes the keys with this prefix.
async fn forget(prefix: &str) -> redis::RedisResult<()> {
    let mut redis = to_redis(None).await;
    let keys: Vec<String> = redis::cmd("KEYS").arg(format!("{prefix}*")).query_async(&mut redis).await?;
    if !keys.is_empty() {
        redis::cmd("UNLINK").arg(keys).exec_async(&mut redis).await?;
    }
    Ok(())
}

fn document(admin: &str) -> Document {
    bson::deserialize_from_slice(&BASE64.decode(admin).expect("base64")).expect("a document")
}

/// Which build of the server made it: another one may want other indexes.
fn build() -> String {
    let file = fs::metadata(binary()).expect("the server is built");
    let changed =
        file.modified().expect("a time").duration_since(SystemTime::UNIX_EPOCH).expect("since 1970");
    format!("{:x}-{:x}", changed.as_nanos(), file.len())
}

/// Fills a data folder with what a server leaves there at its first start, and returns the id of the first admin.
pub fn fill(data: &Path) -> String {
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("first-start");
    fs::create_dir_all(&kept).expect("a folder");
    let turn = File::create(kept.join("turn")).expect("a file");
    turn.lock().expect("a lock");
    if fs::read_to_string(kept.join("build")).ok() != Some(build()) {
        first_start(&kept);
        fs::write(kept.join("build"), build()).expect("written");
    }
    fs::create_dir(data).expect("a new folder");
    for file in fs::read_dir(kept.join("data")).expect("what was kept").map(|file| file.expect("a file")) {
        fs::copy(file.path(), data.join(file.file_name())).expect("copied");
    }
    let file = rusqlite::Connection::open(data.join("kernelci.db")).expect("the database opens");
    file.query_row("SELECT id FROM user", [], |row| row.get(0)).expect("the first admin")
}

fn first_start(kept: &Path) {
    let (data, printed) = (kept.join("data"), kept.join("printed"));
    let _ = fs::remove_dir_all(&data);
    let mut server = Command::new(binary())
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(&data)
        .env_clear()
        .envs([("SECRET_KEY", SECRET), ("KCI_INITIAL_PASSWORD", PASSWORD)])
        .stdin(Stdio::null())
        .stdout(File::create(&printed).expect("a file"))
        .spawn()
        .expect("the server starts");
    let printed = || fs::read_to_string(&printed).unwrap_or_default();
    while !printed().contains("http://") {
        assert!(server.try_wait().expect("a process").is_none(), "no first start: {}", printed());
        std::thread::sleep(Duration::from_millis(10));
    }
    let asked = Command::new("sh").args(["-c", &format!("kill -TERM {}", server.id())]).status();
    assert!(asked.is_ok_and(|status| status.success()), "the signal is sent");
    assert!(server.wait().is_ok_and(|status| status.success()), "it ends well");
}
