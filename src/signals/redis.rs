//! Signals between instances: one Redis channel, whose messages are the topics.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Listener, Local, Signals};
use crate::error::{Error, Result};

/// How long Redis may take for one command.
const RESPONSE: Duration = Duration::from_secs(2);
/// How long to rest before connecting again.
const REST: Duration = Duration::from_millis(500);

/// Signals that also reach other instances.
pub struct RedisSignals {
    local: Local,
    manager: ConnectionManager,
    channel: String,
    closing: CancellationToken,
}

/// Begins to follow the signals of all instances that use this Redis and prefix. Connects when it can.
pub fn open(url: &str, prefix: &str) -> Result<RedisSignals> {
    let setting = |error| {
        Error::invalid("redis_url", "expected redis://host:port/db").because(anyhow::Error::new(error))
    };
    let client = redis::Client::open(url).map_err(setting)?;
    let config = ConnectionManagerConfig::new()
        .set_number_of_retries(usize::MAX)
        .set_max_delay(Duration::from_secs(1))
        .set_connection_timeout(Some(RESPONSE))
        .set_response_timeout(Some(RESPONSE));
    let signals = RedisSignals {
        local: Local::default(),
        manager: ConnectionManager::new_lazy_with_config(client.clone(), config).map_err(setting)?,
        channel: format!("{prefix}signals"),
        closing: CancellationToken::new(),
    };
    let (local, channel, closing) = (signals.local.clone(), signals.channel.clone(), signals.closing.clone());
    tokio::spawn(async move {
        while !closing.is_cancelled() {
            let ended = tokio::select! {
                ended = follow(&client, &channel, &local) => ended,
                () = closing.cancelled() => return,
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "signals of other instances cannot be followed; trying again");
            }
            tokio::time::sleep(REST).await;
        }
    });
    Ok(signals)
}

async fn follow(client: &redis::Client, channel: &str, local: &Local) -> redis::RedisResult<()> {
    let mut messages = client.get_async_pubsub().await?;
    messages.subscribe(channel).await?;
    // Whatever was sent before.
    local.wake_all();
    let mut messages = messages.on_message();
    while let Some(message) = messages.next().await {
        if let Ok(topic) = message.get_payload::<String>() {
            local.wake(&topic);
        }
    }
    Ok(())
}

#[async_trait]
impl Signals for RedisSignals {
    async fn send(&self, topic: &str) {
        // Those here need not wait for Redis.
        self.local.wake(topic);
        let mut manager = self.manager.clone();
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(&self.channel).arg(topic);
        let sent = tokio::time::timeout(RESPONSE, publish.exec_async(&mut manager)).await;
        if !matches!(sent, Ok(Ok(()))) {
            tracing::debug!(topic, "a signal did not reach the other instances");
        }
    }

    fn listen_with(&self, topic: &str, wake: Arc<Notify>) -> Listener {
        self.local.listen_with(topic, wake)
    }

    fn close(&self) {
        self.closing.cancel();
    }
}
