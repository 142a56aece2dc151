//! An SMTP server that takes whatever it is given and shows it to the test.

use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};

use super::wait::soon;

/// What came in one mail.
#[derive(Debug)]
pub struct Mail {
    /// Of the envelope.
    pub from: String,
    /// Of the envelope.
    pub to: String,
    /// What the client logged in with, as it stands in `AUTH PLAIN` (base64).
    pub auth: Option<String>,
    /// Whether it came through TLS.
    pub tls: bool,
    /// Header and body, soft line breaks undone.
    pub text: String,
}

/// How the server protects its connections.
#[derive(Clone)]
pub enum Protection {
    /// Not at all.
    None,
    /// From `STARTTLS` on.
    StartTls(Arc<rustls::ServerConfig>),
    /// From the start.
    Tls(Arc<rustls::ServerConfig>),
}

/// A running server; ends with the test's runtime.
pub struct MailServer {
    /// `127.0.0.1:port`.
    pub port: u16,
    mails: Mutex<mpsc::UnboundedReceiver<Mail>>,
}

impl MailServer {
    /// Listens on loopback.
    pub async fn start(protection: Protection) -> MailServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (sender, mails) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, protection.clone(), sender.clone()));
            }
        });
        MailServer { port, mails: Mutex::new(mails) }
    }

    /// The settings of a server under test that sends its mail here in the clear.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("SMTP_HOST", "127.0.0.1".into()),
            ("SMTP_PORT", self.port.to_string()),
            ("SMTP_SECURITY", "none".into()),
            ("EMAIL_SENDER", "ci@kernelci.example".into()),
        ]
    }

    /// The next mail.
    pub async fn next(&self) -> Mail {
        let mut mails = self.mails.lock().await;
        let next = soon("a mail comes", mails.recv()).await;
        next.expect("the server runs")
    }

    /// The mails that have come and nobody has asked for. A server that was told to end sends first what is under way.
    pub async fn rest(&self) -> Vec<Mail> {
        let mut mails = self.mails.lock().await;
        std::iter::from_fn(|| mails.try_recv().ok()).collect()
    }
}

impl Mail {
    /// The line of the body that looks like a token, or like a link with one.
    pub fn token(&self) -> &str {
        let line = self.text.lines().find(|line| line.split('.').count() >= 3 && line.contains("eyJ"));
        let line = line.unwrap_or_else(|| panic!("no token in {}", self.text));
        line.trim().split_once("token=").map_or(line.trim(), |(_, token)| token)
    }
}

const GREETING: &str = "220 sink\r\n";

async fn serve(stream: TcpStream, protection: Protection, mails: mpsc::UnboundedSender<Mail>) {
    match protection {
        Protection::None => {
            drop(converse(BufReader::new(stream), Some(GREETING), false, false, &mails).await)
        }
        Protection::Tls(config) => {
            let Ok(stream) = tokio_rustls::TlsAcceptor::from(config).accept(stream).await else { return };
            converse(BufReader::new(stream), Some(GREETING), true, false, &mails).await;
        }
        Protection::StartTls(config) => {
            let stream = converse(BufReader::new(stream), Some(GREETING), false, true, &mails).await;
            let Some(stream) = stream else { return };
            let acceptor = tokio_rustls::TlsAcceptor::from(config);
            let Ok(stream) = acceptor.accept(stream.into_inner()).await else { return };
            converse(BufReader::new(stream), None, true, false, &mails).await;
        }
    }
}

/// Until the client leaves; the stream if it wants TLS now.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: BufReader<S>,
    greeting: Option<&str>,
    tls: bool,
    offer_tls: bool,
    mails: &mpsc::UnboundedSender<Mail>,
) -> Option<BufReader<S>> {
    stream.write_all(greeting.unwrap_or_default().as_bytes()).await.ok()?;
    let (mut from, mut to, mut auth) = (String::new(), String::new(), None);
    loop {
        let line = read_line(&mut stream).await?;
        let upper = line.to_ascii_uppercase();
        let answer = if upper.starts_with("EHLO") {
            if offer_tls { "250-sink\r\n250 STARTTLS" } else { "250-sink\r\n250 AUTH PLAIN" }
        } else if upper == "STARTTLS" && offer_tls {
            stream.write_all(b"220 go\r\n").await.ok()?;
            return Some(stream);
        } else if let Some(credentials) = line.strip_prefix("AUTH PLAIN ") {
            auth = Some(credentials.to_owned());
            "235 ok"
        } else if upper.starts_with("MAIL FROM:") {
            from = line[10..].split(' ').next().unwrap_or_default().to_owned();
            "250 ok"
        } else if upper.starts_with("RCPT TO:") {
            to = line[8..].to_owned();
            "250 ok"
        } else if upper == "DATA" {
            stream.write_all(b"354 go\r\n").await.ok()?;
            let mut text = String::new();
            loop {
                match read_line(&mut stream).await?.as_str() {
                    "." => break,
                    line => text += &format!("{line}\n"),
                }
            }
            let text = text.replace("=\n", "").replace("=3D", "=");
            let (from, to, auth) = (from.clone(), to.clone(), auth.clone());
            let _ = mails.send(Mail { from, to, auth, tls, text });
            "250 ok"
        } else if upper == "QUIT" {
            stream.write_all(b"221 bye\r\n").await.ok()?;
            return None;
        } else {
            "250 ok"
        };
        stream.write_all(format!("{answer}\r\n").as_bytes()).await.ok()?;
    }
}

async fn read_line<S: AsyncRead + Unpin>(stream: &mut BufReader<S>) -> Option<String> {
    let mut line = String::new();
    match stream.read_line(&mut line).await {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(line.trim_end_matches(['\r', '\n']).to_owned()),
    }
}
