//! Where the MongoDB and Redis of the tests are, and how a test's leftovers are removed from them.

use std::process::Command;
use std::sync::OnceLock;

/// Addresses of the services.
pub struct Services {
    /// `MONGO_URL`.
    pub mongo: String,
    /// `REDIS_URL`.
    pub redis: String,
}

/// From the environment, or from `scripts/services` if that has started them.
pub fn services() -> &'static Services {
    static SERVICES: OnceLock<Services> = OnceLock::new();
    SERVICES.get_or_init(|| {
        let script = r#"eval "$(scripts/services env)" && printf '%s\n' "$MONGO_URL" "$REDIS_URL""#;
        let found = Command::new("bash")
            .args(["-c", script])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("bash runs");
        let text = String::from_utf8_lossy(&found.stdout).into_owned();
        match text.lines().collect::<Vec<_>>()[..] {
            [mongo, redis] if !mongo.is_empty() && !redis.is_empty() => {
                Services { mongo: mongo.to_owned(), redis: redis.to_owned() }
            }
            _ => {
                panic!("no MongoDB and Redis to test with: run scripts/test, or scripts/services start first")
            }
        }
    })
}

/// Drops a database and deletes the keys with a prefix. Callable from anywhere, also while a test unwinds.
pub fn remove(database: String, prefix: String) {
    let work = async move {
        let client = mongodb::Client::with_uri_str(&services().mongo).await?;
        client.database(&database).drop().await?;
        let mut redis =
            redis::Client::open(services().redis.as_str())?.get_multiplexed_async_connection().await?;
        let keys: Vec<String> = redis::cmd("KEYS").arg(format!("{prefix}*")).query_async(&mut redis).await?;
        if !keys.is_empty() {
            redis::cmd("UNLINK").arg(keys).exec_async(&mut redis).await?;
        }
        anyhow::Ok(())
    };
    // A runtime of its own on a thread of its own, because the caller may be inside one.
    let done = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { tokio::time::timeout(std::time::Duration::from_secs(10), work).await? })
    });
    if let Ok(Err(error)) = done.join() {
        eprintln!("leftovers of a test stay in MongoDB or Redis: {error:#}");
    }
}
