//! The connection for commands: shared, made at the first one, and again whenever it must.

use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig};
use redis::io::tcp::TcpSettings;
use redis::{Cmd, IntoConnectionInfo, Pipeline, RedisFuture, RedisResult, Value};

use crate::error::{Error, Result};
use crate::metrics;
use crate::sync::lock;

/// How long any answer may take, never endless.
pub(crate) const RESPONSE: Duration = Duration::from_secs(2);
/// How long a command may wait, reconnecting included.
const COMMAND: Duration = Duration::from_secs(3);

/// A [`ConnectionManager`] that also gives up connections that do not answer. By itself it does so only when it is told
/// that one has ended; one whose other end has vanished would be kept for as long as TCP tries, a quarter of an hour.
#[derive(Clone)]
pub(crate) struct Connection {
    client: redis::Client,
    current: Arc<Mutex<(u64, ConnectionManager)>>,
}

impl Connection {
    /// Nothing is connected yet.
    pub(crate) fn new(client: redis::Client) -> Result<Connection> {
        let current = Arc::new(Mutex::new((0, manager(&client).map_err(setting)?)));
        Ok(Connection { client, current })
    }

    fn current(&self) -> (u64, ConnectionManager) {
        lock(&self.current).clone()
    }

    /// Begins anew if this answer did not come and nobody else has begun anew yet.
    fn look<T>(&self, number: u64, answer: &RedisResult<T>) {
        if !answer.as_ref().is_err_and(redis::RedisError::is_timeout) {
            return;
        }
        let mut current = lock(&self.current);
        if current.0 == number
            && let Ok(manager) = manager(&self.client)
        {
            *current = (number + 1, manager);
        }
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let (number, mut manager) = self.current();
            let answer = manager.req_packed_command(cmd).await;
            self.look(number, &answer);
            answer
        })
    }
    fn req_packed_commands<'a>(
        &'a mut self,
        cmd: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            let (number, mut manager) = self.current();
            let answer = manager.req_packed_commands(cmd, offset, count).await;
            self.look(number, &answer);
            answer
        })
    }
    fn get_db(&self) -> i64 {
        self.client.get_connection_info().redis_settings().db()
    }
}

fn manager(client: &redis::Client) -> RedisResult<ConnectionManager> {
    let config = ConnectionManagerConfig::new()
        .set_number_of_retries(usize::MAX)
        .set_max_delay(Duration::from_secs(1))
        .set_connection_timeout(Some(RESPONSE))
        .set_response_timeout(Some(RESPONSE));
    ConnectionManager::new_lazy_with_config(client.clone(), config)
}

/// A client of a Redis, and a connection for its commands; `db` is the number of the database, if not the one in the URL.
pub(crate) fn connect(url: &str, db: Option<i64>) -> Result<(redis::Client, Connection)> {
    // Commands of many tasks share a connection, so one must not wait for the answer to the one before it.
    let tcp = TcpSettings::default().set_nodelay(true);
    let mut info = url.into_connection_info().map_err(setting)?.set_tcp_settings(tcp);
    if let Some(db) = db {
        let settings = info.redis_settings().clone().set_db(db);
        info = info.set_redis_settings(settings);
    }
    let client = redis::Client::open(info).map_err(setting)?;
    Ok((client.clone(), Connection::new(client)?))
}

fn setting(error: redis::RedisError) -> Error {
    Error::invalid("redis_url", "expected redis://host:port/db").because(anyhow::Error::new(error))
}

/// Waits for a command, but not for ever; `part` is what an error calls the one that is away.
pub(crate) async fn wait<T>(part: &str, command: impl Future<Output = RedisResult<T>>) -> Result<T> {
    static SECONDS: LazyLock<::metrics::Histogram> = LazyLock::new(|| metrics::REDIS_SECONDS.histogram(&[]));
    let began = Instant::now();
    let answer = in_time(part, command).await;
    SECONDS.record(began.elapsed());
    answer
}

/// As [`wait`], not measured.
pub(crate) async fn in_time<T>(part: &str, command: impl Future<Output = RedisResult<T>>) -> Result<T> {
    match tokio::time::timeout(COMMAND, command).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Error::unavailable(part, error)),
        Err(late) => Err(Error::unavailable(part, late)),
    }
}
