//! Where the MongoDB and Redis of the tests are.

use std::process::Command;
use std::sync::OnceLock;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client};

use super::PATIENCE;

/// Addresses of the services.
pub struct Services {
    /// `MONGO_URL`.
    pub mongo: String,
    /// `REDIS_URL`.
    pub redis: String,
    /// `MONGOD_BIN`, for those who start one of their own.
    pub mongod: String,
}

/// From the environment, or from `scripts/services` if that has started them.
pub fn services() -> &'static Services {
    static SERVICES: OnceLock<Services> = OnceLock::new();
    SERVICES.get_or_init(|| {
        let named = |name| std::env::var(name).ok().filter(|url| !url.is_empty());
        if let (Some(mongo), Some(redis), Some(mongod)) =
            (named("MONGO_URL"), named("REDIS_URL"), named("MONGOD_BIN"))
        {
            return Services { mongo, redis, mongod };
        }
        // Takes half a second, which each test would wait if scripts/test did not set them.
        let script =
            r#"eval "$(scripts/services env)" && printf '%s\n' "$MONGO_URL" "$REDIS_URL" "$MONGOD_BIN""#;
        let found = Command::new("bash")
            .args(["-c", script])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("bash runs");
        let text = String::from_utf8_lossy(&found.stdout).into_owned();
        match text.lines().collect::<Vec<_>>()[..] {
            [mongo, redis, mongod] if !mongo.is_empty() && !redis.is_empty() => {
                Services { mongo: mongo.to_owned(), redis: redis.to_owned(), mongod: mongod.to_owned() }
            }
            _ => {
                panic!("no MongoDB and Redis to test with: run scripts/test, or scripts/services start first")
            }
        }
    })
}

/// A connection to the Redis of the tests, in its database of this number if one is given. It waits for answers as long as
/// tests wait for anything: the library's own patience is a second.
pub async fn to_redis(database: Option<i64>) -> MultiplexedConnection {
    let client = Client::open(services().redis.as_str()).expect("a URL of Redis");
    let mut place = client.get_connection_info().clone();
    if let Some(database) = database {
        let settings = place.redis_settings().clone().set_db(database);
        place = place.set_redis_settings(settings);
    }
    let patience = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE));
    let client = Client::open(place).expect("a place");
    client.get_multiplexed_async_connection_with_config(&patience).await.expect("Redis is there")
}
