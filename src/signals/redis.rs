//! Signals between instances: one Redis channel, whose messages are the topics.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::{Listener, Local, Signals};
use crate::background;
use crate::error::Result;
use crate::event_log::redis::connection::{Connection, RESPONSE, connect};
use crate::sync::Bell;

/// How often the connection that signals come over is tried: one whose other end has vanished is as silent as one on
/// which nothing happens.
const LOOK: Duration = Duration::from_secs(3);
/// How long to rest before connecting again.
const REST: Duration = Duration::from_millis(500);

/// Signals that also reach other instances.
pub struct RedisSignals {
    local: Local,
    manager: Connection,
    channel: String,
    closing: CancellationToken,
}

/// Begins to follow the signals of all instances that use this Redis and prefix. Connects when it can.
pub fn open(url: &str, prefix: &str) -> Result<RedisSignals> {
    let (client, manager) = connect(url, None)?;
    let signals = RedisSignals {
        local: Local::default(),
        manager,
        channel: format!("{prefix}signals"),
        closing: CancellationToken::new(),
    };
    let (local, channel, closing) = (signals.local.clone(), signals.channel.clone(), signals.closing.clone());
    background::spawn("signals", async move {
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
    let connect = async {
        let mut connection = client.get_async_pubsub().await?;
        connection.subscribe(channel).await?;
        Ok::<_, redis::RedisError>(connection)
    };
    let (mut sink, mut messages) = in_time(connect).await?.split();
    // Whatever was sent before.
    local.wake_all();
    loop {
        match tokio::time::timeout(LOOK, messages.next()).await {
            Ok(Some(message)) => {
                if let Ok(topic) = message.get_payload::<String>() {
                    local.wake(&topic);
                }
            }
            Ok(None) => return Ok(()),
            Err(_) => in_time(sink.ping::<redis::Value>()).await.map(drop)?,
        }
    }
}

async fn in_time<T>(answer: impl Future<Output = redis::RedisResult<T>>) -> redis::RedisResult<T> {
    match tokio::time::timeout(RESPONSE, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
    }
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

    fn listen_with(&self, topic: &str, wake: Arc<Bell>) -> Listener {
        self.local.listen_with(topic, wake)
    }

    fn close(&self) {
        self.closing.cancel();
    }
}
