//! Servers that pass messages on, and do something wrong with one of them: the generator has to notice.

use std::sync::Arc;

use futures::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

use super::generator::load;

/// What becomes of the message at this place among those of its publisher; only the first subscriber notices.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    Lost(usize),
    Doubled(usize),
    /// It comes behind the next one.
    Late(usize),
    /// The connection ends.
    Cut(usize),
}

type Subscribers = Arc<Mutex<Vec<mpsc::UnboundedSender<Option<Message>>>>>;

/// Speaks as `load serve-plain` does.
async fn start(fault: Fault) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        let subscribers = Subscribers::default();
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, subscribers.clone(), fault));
        }
    });
    url
}

// tungstenite's own type for a refusal.
#[allow(clippy::result_large_err)]
async fn serve(stream: TcpStream, subscribers: Subscribers, fault: Fault) {
    let mut publishes = false;
    let (all, mut own) = mpsc::unbounded_channel();
    // Taken down before the answer goes out, so that nothing is missed.
    let mut list = subscribers.lock().await;
    let look = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        publishes = request.uri().path() == "/publish";
        Ok(response)
    };
    let Ok(mut socket) = accept_hdr_async(stream, look).await else { return };
    if !publishes {
        list.push(all);
        drop(list);
        while let Some(Some(message)) = own.recv().await {
            if socket.send(message).await.is_err() {
                return;
            }
        }
        return;
    }
    drop(list);
    let (mut place, mut late) = (0, None);
    while let Some(Ok(message)) = socket.next().await {
        if !message.is_text() {
            continue;
        }
        for (at, subscriber) in subscribers.lock().await.iter().enumerate() {
            let put = |message: Option<Message>| drop(subscriber.send(message));
            let message = Some(message.clone());
            match fault {
                _ if at > 0 => put(message),
                Fault::Lost(wrong) if wrong == place => {}
                Fault::Doubled(wrong) if wrong == place => {
                    put(message.clone());
                    put(message);
                }
                Fault::Late(wrong) if wrong == place => late = message,
                Fault::Cut(wrong) if wrong == place => put(None),
                _ => {
                    put(message);
                    if late.is_some() {
                        put(late.take());
                    }
                }
            }
        }
        place += 1;
    }
}

/// Forty events, behind twenty to warm up; both are counted from 0.
const BURST: &str = "burst --adapter plain --subscribers 3 --rate 200 --seconds 0.2 --patience 2";

#[tokio::test]
async fn what_a_server_does_wrong_is_noticed_and_has_no_figures() {
    let url = start(Fault::None).await;
    load(&url, BURST).await.good(&["deliveries"], &["delivery"]);
    for (fault, kind) in [
        (Fault::Lost(30), "lost"),
        (Fault::Lost(39), "lost"),
        (Fault::Lost(5), "lost"),
        (Fault::Doubled(5), "doubled_or_disordered"),
        (Fault::Doubled(38), "doubled_or_disordered"),
        (Fault::Late(30), "doubled_or_disordered"),
        (Fault::Cut(30), "cut"),
    ] {
        let run = load(&start(fault).await, BURST).await;
        assert!(!run.success && run.json["valid"] == false, "{fault:?}: {}", run.text);
        assert!(run.json["faults"][kind].as_u64() > Some(0), "{fault:?}: {:#}", run.json);
        assert!(run.json["faults"]["first"].is_string() && run.text.contains("NOT VALID"), "{}", run.text);
        assert!(run.json["figures"].as_object().is_some_and(|figures| figures.is_empty()), "{:#}", run.json);
        assert!(!run.text.contains("per_second") && !run.text.contains("p99"), "{}", run.text);
    }
}
