//! A feed as server-sent events: the data is the CloudEvent, the id where the reader stands, so `Last-Event-ID` resumes.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};

use super::{Reader, Told, described, place};
use crate::app::App;
use crate::connection::Link;
use crate::error::Result;
use crate::ops::Peer;
use crate::session::close::{self, CloseCode};
use crate::session::limits::{FAREWELL, RETURN};

pub(super) async fn answer(
    app: Arc<App>,
    from: (&Peer, Option<&Link>),
    query: Vec<(String, String)>,
    headers: HeaderMap,
) -> Result<Response> {
    let reader = Reader::open(&app, from, query, &headers).await?;
    let events = futures::stream::unfold(Some(reader), |reader| async {
        let mut reader = reader?;
        let told = reader.next().await;
        let event = in_words(&told, &reader);
        let goes_on = !matches!(told, Told::End(_));
        Some((Ok::<_, std::convert::Infallible>(event), goes_on.then_some(reader)))
    });
    let mut response = Sse::new(events).into_response();
    response.headers_mut().insert("x-accel-buffering", header::HeaderValue::from_static("no"));
    Ok(response)
}

fn in_words(told: &Told, reader: &Reader) -> Event {
    match told {
        Told::Event(epoch, entry) => Event::default().id(place(epoch, entry.seq)).data(&entry.json),
        Told::Gap(gap) => {
            Event::default().event("gap").id(reader.position()).data(described(gap).to_string())
        }
        // The first one tells the reader at once that it is connected.
        Told::KeepAlive => Event::default().id(reader.position()).comment("following"),
        Told::End(code) => goodbye(*code, reader),
    }
}

/// There are no close codes here: the reason is a comment, and whoever may come back is told after how long.
fn goodbye(code: CloseCode, reader: &Reader) -> Event {
    let event = Event::default().id(reader.position()).comment(code.name);
    match code {
        close::DRAINING => event.retry(spread(FAREWELL)),
        close::OVERLOADED => event.retry(spread(Duration::from_secs(1))),
        _ => event,
    }
}

/// As sessions are told: so long, and a little more by chance.
fn spread(after: Duration) -> Duration {
    after + RETURN.mul_f64(rand::random_range(0.0..1.0))
}
