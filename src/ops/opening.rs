//! Opening a consumer for somebody who lives.
//!
//! A connection may end while its request is under way, and its client ask for the same consumer again on a new one, a
//! moment later. So consumers of one name are opened one after the other, in the order in which they were asked for, and
//! each is opened to the end: the old request cannot be carried out behind the new one. What was opened for a connection
//! that has died meanwhile is closed again.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::polling::topic;
use crate::app::App;
use crate::background::watched;
use crate::error::{Error, Kind, Result};
use crate::store::consumers::{Consumer, NewConsumer, Opened};

/// A consumer that was opened. Dropped without being [kept](Opening::keep) it is closed.
pub(super) struct Opening {
    app: Arc<App>,
    consumer: Box<Consumer>,
    is_kept: bool,
}

impl Opening {
    /// Somebody reads for it from now on.
    pub(super) fn keep(mut self) -> Consumer {
        self.is_kept = true;
        (*self.consumer).clone()
    }
    /// The consumer as it was opened.
    pub(super) fn consumer(&self) -> &Consumer {
        &self.consumer
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        let Some(id) = self.consumer.id.filter(|_| !self.is_kept) else { return };
        let app = self.app.clone();
        let close = async move {
            // If this fails it is as if its connection had died later.
            if let Err(error) = app.store.close_consumer(id).await {
                tracing::debug!(id, %error, "a consumer that nobody reads for was not closed");
            }
        };
        self.app.work.spawn(watched("openings", close));
    }
}

/// Opens a consumer; whoever read for it before is told. `field` is what a refused name came in.
pub(super) async fn open_consumer(app: &Arc<App>, field: &'static str, new: NewConsumer) -> Result<Opening> {
    let (answer, opened) = oneshot::channel();
    let work = app.clone();
    app.work.spawn(async move {
        let _turn = work.openings.of((&new.owner.id, &new.name)).await;
        // Nobody waits for it any more.
        if answer.is_closed() {
            return;
        }
        let opened = open(&work, field, &new).await;
        let _ = answer.send(opened.map(|consumer| Opening { app: work.clone(), consumer, is_kept: false }));
    });
    opened.await.map_err(Error::internal)?
}

async fn open(app: &App, field: &str, new: &NewConsumer) -> Result<Box<Consumer>> {
    match app.store.open_consumer(new).await? {
        Opened::Open { consumer, taken_over } => {
            if let Some(before) = taken_over {
                app.signals.send(&topic(before)).await;
            }
            Ok(consumer)
        }
        Opened::Over(over) => Err(over.into()),
        Opened::OtherChannel(channel) => {
            let detail = format!("{field}: it is a consumer of channel {channel}; delete it or take another");
            Err(Error::new(Kind::Conflict, detail))
        }
        Opened::Group => {
            let detail =
                format!("{field}: it is a group; join it with \"group\": true, delete it or take another");
            Err(Error::new(Kind::Conflict, detail))
        }
    }
}
