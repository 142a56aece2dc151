//! From an address to an authenticated session: upgrade, log in, `session.hello`.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use url::Url;

use super::error::{Error, Result};
use super::wire::{Closing, Incoming, SUBPROTOCOL, request};
use super::{Auth, Options};

/// The whole of upgrade, login and hello must fit in here.
const TIME_LIMIT: Duration = Duration::from_secs(15);
/// What one answer may be: a page of 1,000 large nodes fits.
const MESSAGE_LIMIT: usize = 64 << 20;

pub(super) type Socket = WebSocketStream<transport::Stream>;

/// The network.
#[cfg(not(test))]
mod transport {
    use tokio::net::TcpStream;
    use tokio_tungstenite::{MaybeTlsStream, connect_async_with_config};

    use super::{Request, Socket, WebSocketConfig, WsError};

    pub(crate) type Stream = MaybeTlsStream<TcpStream>;

    pub(super) async fn open(request: Request, config: WebSocketConfig) -> Result<Socket, WsError> {
        Ok(connect_async_with_config(request, Some(config), true).await?.0)
    }
}

/// Pipes in memory, which leave nothing on its way when all have done what they can: only then may time that stands
/// still go on by itself.
#[cfg(test)]
mod transport {
    use tokio_tungstenite::client_async_with_config;

    use super::{Request, Socket, WebSocketConfig, WsError};

    pub(crate) type Stream = tokio::io::DuplexStream;

    pub(super) async fn open(request: Request, config: WebSocketConfig) -> Result<Socket, WsError> {
        let pipe = crate::client::tests::dial(request.uri().host().unwrap_or_default())?;
        Ok(client_async_with_config(request, pipe, Some(config)).await?.0)
    }
}

/// What the server says about a session (the result of `session.hello`).
#[derive(Clone, Debug, Deserialize)]
pub struct Session {
    /// Names the session in the server's log.
    #[serde(default)]
    pub session: String,
    /// The instance that the session is on.
    #[serde(default)]
    pub instance: String,
    /// Who the server takes us for; `None` is anonymous.
    #[serde(default)]
    pub user: Option<String>,
    /// Seconds until the credentials expire.
    #[serde(default)]
    pub expires_in: Option<u64>,
    /// The epoch of the event log.
    #[serde(default)]
    pub epoch: Option<String>,
    /// How often the server pings.
    #[serde(default = "Session::default_ping_ms")]
    pub ping_ms: u64,
    /// What the server accepts.
    #[serde(default)]
    pub limits: Limits,
}

impl Session {
    fn default_ping_ms() -> u64 {
        25_000
    }
    /// A server that has been silent for so long is gone: two of its pings are missing.
    pub(super) fn silence_limit(&self) -> Duration {
        Duration::from_millis(self.ping_ms.max(100)) * 5 / 2
    }
}

/// What the server accepts from one session.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Bytes in one message.
    pub message: usize,
    /// Subscriptions.
    pub subscriptions: usize,
    /// Requests that are not yet answered.
    pub inflight: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { message: 1 << 20, subscriptions: 128, inflight: 32 }
    }
}

/// Where to connect: takes http(s) and ws(s), the server's base or the full address.
pub(super) fn endpoint(address: &str) -> Result<Url> {
    let wrong = |reason: String| Error::Connect { url: address.to_owned(), reason, retry_after_ms: None };
    let mut url = Url::parse(address).map_err(|error| wrong(error.to_string()))?;
    let scheme = match url.scheme() {
        "http" | "ws" => "ws",
        "https" | "wss" => "wss",
        other => return Err(wrong(format!("expected http, https, ws or wss, not {other}"))),
    };
    if url.set_scheme(scheme).is_err() || url.host_str().is_none() {
        return Err(wrong("expected an address such as http://127.0.0.1:8001".to_owned()));
    }
    let path = url.path().trim_end_matches('/');
    let full = match path.rsplit('/').next() {
        Some("ws") => path.to_owned(),
        Some("latest" | "v0") => format!("{path}/ws"),
        _ => format!("{path}/latest/ws"),
    };
    url.set_path(&full);
    url.set_fragment(None);
    Ok(url)
}

/// Opens a session. `token` is what a login gave before; it is used while the server accepts it, because a login
/// costs the server a password hash.
pub(super) async fn establish(options: &Options, token: &mut Option<String>) -> Result<(Socket, Session)> {
    let url = endpoint(&options.url)?;
    let done = tokio::time::timeout(TIME_LIMIT, async {
        let mut socket = upgrade(&url).await?;
        let session = hello(&mut socket, &url, options, token).await?;
        Ok((socket, session))
    });
    done.await.unwrap_or_else(|_| {
        let reason = format!("no session after {} s", TIME_LIMIT.as_secs());
        Err(Error::Connect { url: url.to_string(), reason, retry_after_ms: None })
    })
}

async fn upgrade(url: &Url) -> Result<Socket> {
    if url.scheme() == "wss" {
        // Fails if there is one already, which is just as well.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    }
    let mut upgrade = url.as_str().into_client_request().map_err(|error| unreachable(url, error))?;
    upgrade.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
    let config = WebSocketConfig::default()
        .read_buffer_size(8 << 10)
        .write_buffer_size(8 << 10)
        .max_message_size(Some(MESSAGE_LIMIT))
        .max_frame_size(Some(MESSAGE_LIMIT));
    transport::open(upgrade, config).await.map_err(|error| unreachable(url, error))
}

async fn hello(
    socket: &mut Socket,
    url: &Url,
    options: &Options,
    token: &mut Option<String>,
) -> Result<Session> {
    let known = token.is_some();
    for last in [false, true] {
        if let (Auth::Password { user, password }, None) = (&options.auth, &*token) {
            *token = Some(login(socket, url, user, password).await?);
        }
        let params = json!({"token": token, "client": options.name, "max_message": MESSAGE_LIMIT});
        match ask(socket, url, 2 + u64::from(last), "session.hello", params).await {
            // The token that an earlier login gave may have expired meanwhile.
            Err(error) if error.status() == Some(401) && known && !last => match options.auth {
                Auth::Password { .. } => *token = None,
                _ => return Err(error),
            },
            Err(error) => return Err(error),
            Ok(result) => return decode(&result, "session.hello"),
        }
    }
    Err(Error::Protocol("session.hello was refused twice".to_owned()))
}

async fn login(socket: &mut Socket, url: &Url, user: &str, password: &str) -> Result<String> {
    let params = json!({"username": user, "password": password});
    let result = ask(socket, url, 1, "user.login", params).await?;
    access_token(&result)
}

/// The token in the answer of `user.login`.
pub(super) fn access_token(result: &RawValue) -> Result<String> {
    #[derive(Deserialize)]
    struct Login {
        access_token: String,
    }
    decode::<Login>(result, "user.login").map(|login| login.access_token)
}

/// Sends one request and waits for its answer, before the connection task has taken over.
async fn ask(
    socket: &mut Socket,
    url: &Url,
    id: u64,
    method: &str,
    mut params: serde_json::Value,
) -> Result<Box<RawValue>> {
    if let Some(map) = params.as_object_mut() {
        map.retain(|_, value| !value.is_null());
    }
    let params = serde_json::value::to_raw_value(&params).map_err(|e| Error::Protocol(e.to_string()))?;
    let text = request(id, method, &params);
    socket.send(Message::Text(text)).await.map_err(|error| unreachable(url, error))?;
    let gone =
        |reason: String, retry_after_ms| Error::Connect { url: url.to_string(), reason, retry_after_ms };
    loop {
        let message = match socket.next().await {
            Some(message) => message.map_err(|error| unreachable(url, error))?,
            None => return Err(gone(format!("closed during {method}"), None)),
        };
        let text = match message {
            Message::Text(text) => text,
            Message::Close(frame) => {
                let why = frame.map(|frame| format!(": {} {}", u16::from(frame.code), frame.reason));
                return Err(gone(format!("closed during {method}{}", why.unwrap_or_default()), None));
            }
            _ => continue,
        };
        let incoming: Incoming<'_> = serde_json::from_str(&text)
            .map_err(|error| Error::Protocol(format!("the server sent no JSON-RPC: {error}")))?;
        if incoming.id == Some(id) {
            return incoming.outcome();
        }
        if incoming.method.as_deref() == Some("session.closing") {
            let closing =
                incoming.params.and_then(|params| serde_json::from_str::<Closing>(params.get()).ok());
            let wait = closing.map(|closing| closing.after_ms + rand::random_range(0..=closing.jitter_ms));
            return Err(gone("the server is closing".to_owned(), wait));
        }
    }
}

/// Reads an answer as what was expected.
pub(super) fn decode<T: serde::de::DeserializeOwned>(raw: &RawValue, method: &str) -> Result<T> {
    serde_json::from_str(raw.get())
        .map_err(|error| Error::Protocol(format!("unexpected answer to {method}: {error}")))
}

/// Says in one line why there is no connection; an HTTP answer speaks for itself.
fn unreachable(url: &Url, error: WsError) -> Error {
    let mut retry_after_ms = None;
    let reason = match error {
        WsError::Http(response) => {
            let seconds = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
            retry_after_ms =
                seconds.and_then(|text| text.parse::<u64>().ok()).map(|s| s.saturating_mul(1000));
            let body = response.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
            let body: String = body.chars().take(200).collect();
            format!("the server answers {} {body}", response.status()).trim_end().to_owned()
        }
        other => other.to_string(),
    };
    Error::Connect { url: url.to_string(), reason, retry_after_ms }
}

#[cfg(test)]
mod tests {
    use super::endpoint;

    #[test]
    fn base_and_full_addresses_lead_to_the_same_endpoint() {
        for (given, expected) in [
            ("http://127.0.0.1:8001", "ws://127.0.0.1:8001/latest/ws"),
            ("http://127.0.0.1:8001/", "ws://127.0.0.1:8001/latest/ws"),
            ("https://api.example/latest", "wss://api.example/latest/ws"),
            ("https://api.example/v0/", "wss://api.example/v0/ws"),
            ("wss://api.example/kci", "wss://api.example/kci/latest/ws"),
            ("ws://api.example/latest/ws", "ws://api.example/latest/ws"),
        ] {
            assert_eq!(endpoint(given).unwrap().as_str(), expected, "{given}");
        }
        assert!(endpoint("ftp://api.example").is_err());
        assert!(endpoint("127.0.0.1:8001").is_err());
    }
}
