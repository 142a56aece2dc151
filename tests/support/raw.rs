//! A WebSocket client for tests: frames in, frames out, and it remembers what came unasked.

use std::collections::VecDeque;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue, Response};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::wait::PATIENCE;

/// A connection that reads and writes JSON-RPC by hand.
pub struct Raw {
    socket: WebSocketStream<TcpStream>,
    /// The server's answer to the upgrade.
    pub upgrade: Response<Option<Vec<u8>>>,
    last_id: u64,
    unread: VecDeque<Value>,
    pings: u64,
    /// What the last ping carried.
    ping: String,
}

/// Why nothing more came.
#[derive(Debug)]
pub enum Lost {
    /// The server closed with this code (1005: without one).
    Closed(u16, String),
    /// The connection broke without a close frame.
    Broken(String),
    /// The time was up; the connection stands.
    TimedOut,
}

impl Raw {
    /// Opens `url`; an `Err` with `Error::Http` is the server's refusal.
    pub async fn connect(
        url: &str,
        subprotocol: Option<&str>,
        headers: &[(&str, &str)],
    ) -> Result<Raw, Error> {
        let address = url.into_client_request()?.uri().authority().expect("the URL has a host").to_string();
        let stream = TcpStream::connect(address).await.map_err(Error::Io)?;
        Raw::over(stream, url, subprotocol, headers).await
    }

    /// As [`Raw::connect`], over a connection that is there.
    pub async fn over(
        stream: TcpStream,
        url: &str,
        subprotocol: Option<&str>,
        headers: &[(&str, &str)],
    ) -> Result<Raw, Error> {
        let mut request = url.into_client_request()?;
        for (name, value) in
            subprotocol.iter().map(|name| ("sec-websocket-protocol", *name)).chain(headers.iter().copied())
        {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
            request.headers_mut().insert(name, HeaderValue::from_str(value).expect("a header value"));
        }
        let (socket, upgrade) = client_async(request, stream).await?;
        Ok(Raw { socket, upgrade, last_id: 0, unread: VecDeque::new(), pings: 0, ping: String::new() })
    }

    /// Sends one frame, of any kind.
    pub async fn send(&mut self, message: Message) -> Result<(), Error> {
        self.socket.send(message).await
    }

    /// Writes bytes past the WebSocket, which sends no such frame.
    pub async fn write_bytes(&mut self, bytes: &[u8]) {
        self.socket.get_mut().write_all(bytes).await.expect("the bytes are sent");
    }

    /// Sends one text frame.
    pub async fn send_text(&mut self, text: impl Into<String>) {
        self.send(Message::text(text.into())).await.expect("the frame is sent");
    }

    /// Sends a request and returns its id, without waiting.
    pub async fn send_request(&mut self, method: &str, params: Value) -> Result<u64, Error> {
        self.last_id += 1;
        let request = json!({"jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params});
        self.send(Message::text(request.to_string())).await?;
        Ok(self.last_id)
    }

    /// Sends a request and waits for the whole answer to it. Other messages are kept for later.
    pub async fn try_request(&mut self, method: &str, params: Value) -> Result<Value, Lost> {
        let id = match self.send_request(method, params).await {
            Ok(id) => id,
            Err(error) => return Err(Lost::Broken(error.to_string())),
        };
        self.wait_for(PATIENCE, |message| message["id"] == id && message.get("method").is_none()).await
    }

    /// As [`Raw::try_request`], where the answer must come.
    pub async fn request(&mut self, method: &str, params: Value) -> Value {
        match self.try_request(method, params.clone()).await {
            Ok(answer) => answer,
            Err(lost) => panic!("no answer to {method} {}: {lost:?}; {}", short(&params), self.shown()),
        }
    }

    /// The `result` of a request that must succeed.
    pub async fn call(&mut self, method: &str, params: Value) -> Value {
        let mut answer = self.request(method, params.clone()).await;
        assert!(answer.get("error").is_none(), "{method} {} fails: {}", short(&params), short(&answer));
        answer["result"].take()
    }

    /// The `error` of a request that must fail.
    pub async fn fail(&mut self, method: &str, params: Value) -> Value {
        let mut answer = self.request(method, params.clone()).await;
        assert!(answer.get("result").is_none(), "{method} {} succeeds: {}", short(&params), short(&answer));
        answer["error"].take()
    }

    /// The answer to the request with this id, which was sent before.
    pub async fn answer(&mut self, id: impl Into<Value>) -> Value {
        let id = id.into();
        match self.wait_for(PATIENCE, |message| message.get("method").is_none() && message["id"] == id).await
        {
            Ok(answer) => answer,
            Err(lost) => panic!("no answer to request {id}: {lost:?}; {}", self.shown()),
        }
    }

    /// The `params` of the next notification of this method; others are kept for later.
    pub async fn next_notification(&mut self, method: &str, wait: Duration) -> Value {
        match self.try_notification(method, wait).await {
            Ok(params) => params,
            Err(lost) => panic!("no notification {method}: {lost:?}; {}", self.shown()),
        }
    }

    /// As [`Raw::next_notification`], where none may come.
    pub async fn try_notification(&mut self, method: &str, wait: Duration) -> Result<Value, Lost> {
        let mut message = self.wait_for(wait, |message| message["method"] == method).await?;
        Ok(message["params"].take())
    }

    /// The `params` of the next event of this subscription.
    pub async fn event(&mut self, sub: u64) -> Value {
        let wanted = |message: &Value| message["method"] == "event" && message["params"]["sub"] == sub;
        match self.wait_for(PATIENCE, wanted).await {
            Ok(mut message) => message["params"].take(),
            Err(lost) => panic!("no event of subscription {sub}: {lost:?}; {}", self.shown()),
        }
    }

    /// Asserts that no such notification of this subscription has come yet and waits to be read. To be asked behind
    /// something that it would have come before.
    pub fn assert_none_came(&self, method: &str, sub: u64) {
        let is_one = |message: &Value| message["method"] == method && message["params"]["sub"] == sub;
        assert!(!self.unread.iter().any(is_one), "{method} of {sub} came; {}", self.shown());
    }

    /// Reads, and so answers, so many pings more.
    pub async fn answer_pings(&mut self, count: u64) {
        let (wanted, end) = (self.pings + count, Instant::now() + PATIENCE);
        while self.pings < wanted {
            match self.frame(end).await {
                Ok(None) => {}
                Ok(Some(message)) => self.unread.push_back(message),
                Err(lost) => panic!("no ping: {lost:?}; {}", self.shown()),
            }
        }
    }

    /// What the next ping carries.
    pub async fn next_ping(&mut self) -> &str {
        self.answer_pings(1).await;
        &self.ping
    }

    /// Whatever comes next, in order of arrival.
    pub async fn receive(&mut self, wait: Duration) -> Result<Value, Lost> {
        match self.unread.pop_front() {
            Some(message) => Ok(message),
            None => self.read(Instant::now() + wait).await,
        }
    }

    /// Reads until the server closes, and returns the code.
    pub async fn expect_close(&mut self) -> u16 {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.read(end).await {
                Ok(message) => self.unread.push_back(message),
                Err(Lost::Closed(code, _)) => return code,
                Err(lost) => panic!("no close frame: {lost:?}; {}", self.shown()),
            }
        }
    }

    /// What came and was not asked for, for failure messages.
    fn shown(&self) -> String {
        let shown: Vec<String> = self.unread.iter().take(5).map(short).collect();
        format!("{} unread: {}", self.unread.len(), shown.join(" "))
    }

    /// The bare TCP stream, to write broken frames to.
    pub fn into_stream(self) -> TcpStream {
        self.socket.into_inner()
    }

    /// The first message that is `wanted`, from what is unread or still to come.
    pub async fn wait_for(&mut self, wait: Duration, wanted: impl Fn(&Value) -> bool) -> Result<Value, Lost> {
        if let Some(at) = self.unread.iter().position(&wanted) {
            return self.unread.remove(at).ok_or(Lost::TimedOut);
        }
        let end = Instant::now() + wait;
        loop {
            let message = self.read(end).await?;
            if wanted(&message) {
                return Ok(message);
            }
            self.unread.push_back(message);
        }
    }

    async fn read(&mut self, end: Instant) -> Result<Value, Lost> {
        loop {
            if let Some(message) = self.frame(end).await? {
                return Ok(message);
            }
        }
    }

    /// The next frame, if it is a message.
    async fn frame(&mut self, end: Instant) -> Result<Option<Value>, Lost> {
        let frame = match timeout_at(end, self.socket.next()).await {
            Err(_) => return Err(Lost::TimedOut),
            Ok(None) => return Err(Lost::Broken("end of stream".into())),
            Ok(Some(Err(error))) => return Err(Lost::Broken(error.to_string())),
            Ok(Some(Ok(frame))) => frame,
        };
        match frame {
            Message::Text(text) => Ok(Some(serde_json::from_str(&text).unwrap_or_else(|error| {
                panic!("a frame that is not JSON ({error}): {:.300}", text.as_str())
            }))),
            Message::Close(Some(close)) => Err(Lost::Closed(close.code.into(), close.reason.to_string())),
            Message::Close(None) => Err(Lost::Closed(1005, String::new())),
            Message::Binary(bytes) => panic!("a binary frame of {} bytes", bytes.len()),
            Message::Ping(payload) => {
                self.pings += 1;
                self.ping = String::from_utf8_lossy(&payload).into_owned();
                Ok(None)
            }
            Message::Pong(_) | Message::Frame(_) => Ok(None),
        }
    }
}

/// JSON for a failure message.
fn short(value: &Value) -> String {
    value.to_string().chars().take(400).collect()
}
