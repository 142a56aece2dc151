//! Mail: one SMTP server that takes what we send, and how long that may take.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use tokio_util::task::TaskTracker;

use super::letters::Letter;
use crate::background::watched;
use crate::config::{Config, SmtpSecurity};
use crate::error::Kind;
use crate::quota::{Binding, Holder, Limits, Place, Pool};

/// The longest that one attempt may take; clients wait a minute for the answer to an invitation.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between attempts of mails that nobody waits for.
const PAUSES: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(15)];
/// Mails under way: while the SMTP server is slow or away each takes up to a minute and more.
const MOST_UNDER_WAY: u64 = 64;
/// Of these a user, or the strangers of an address, may have so many when more than half are taken.
const SHARE: u64 = 8;
/// The port of SMTP inside TLS; on all others TLS begins with STARTTLS.
const SMTPS: u16 = 465;

/// Sends mail, if a server for it is set.
pub struct Mailer {
    server: Option<Server>,
    waiting: TaskTracker,
    places: Arc<Pool>,
}

#[derive(Clone)]
struct Server {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    sender: Mailbox,
}

impl Mailer {
    /// From `SMTP_HOST` and what belongs to it. Does not connect.
    pub fn new(config: &Config) -> Result<Mailer> {
        Ok(Mailer::through(config.smtp_host.as_deref().map(|host| server(host, config)).transpose()?))
    }

    fn through(server: Option<Server>) -> Mailer {
        let limits = Limits {
            server: MOST_UNDER_WAY,
            user: SHARE,
            address: SHARE,
            binding: Binding::UnderPressure,
            full: Kind::TooMany,
        };
        Mailer { server, waiting: TaskTracker::new(), places: Pool::new("mails under way", limits) }
    }

    /// A place for a mail that `holder` asks for: 429 if they have their share of those under way, or there are too many. It
    /// is taken before anything is done that the mail tells of, so that no mail is dropped in silence.
    pub fn place(&self, holder: Holder) -> crate::error::Result<Place> {
        self.places.take(holder, 1)
    }

    /// What is under way.
    pub fn places(&self) -> &Pool {
        &self.places
    }

    /// Whether a server is set.
    pub fn is_set(&self) -> bool {
        self.server.is_some()
    }

    /// Sends, and returns once the server has taken it.
    pub async fn send(&self, place: Place, to: &str, letter: Letter) -> Result<()> {
        let Some(server) = &self.server else { bail!("SMTP_HOST is not set") };
        let sent = deliver(server.clone(), to.to_owned(), letter).await;
        drop(place);
        sent
    }

    /// Writes and sends, a few times if need be, while nobody waits. Does nothing if no server is set.
    pub fn later<F>(&self, place: Place, to: String, letter: F)
    where
        F: Future<Output = crate::error::Result<Letter>> + Send + 'static,
    {
        let Some(server) = self.server.clone() else {
            return tracing::warn!("a mail is not sent: SMTP_HOST is not set");
        };
        let sending = async move {
            let _place = place;
            let letter = match letter.await {
                Ok(letter) => letter,
                Err(error) => return tracing::warn!(%error, "a mail could not be written"),
            };
            for pause in PAUSES.into_iter().map(Some).chain([None]) {
                let Err(error) = deliver(server.clone(), to.clone(), letter.clone()).await else { return };
                tracing::warn!(error = format!("{error:#}"), "a mail was not taken by the SMTP server");
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => return,
                }
            }
        };
        self.waiting.spawn(watched("mail", sending));
    }

    /// Waits a moment for what is under way.
    pub async fn close(&self) {
        self.waiting.close();
        let _ = tokio::time::timeout(Duration::from_secs(5), self.waiting.wait()).await;
    }
}

async fn deliver(server: Server, to: String, letter: Letter) -> Result<()> {
    let message = Message::builder()
        .from(server.sender)
        .to(Mailbox::new(None, to.parse().context("the recipient's address")?))
        .subject(letter.subject)
        .header(ContentType::TEXT_PLAIN)
        .body(letter.text)?;
    let sent = tokio::time::timeout(PATIENCE, server.transport.send(message)).await;
    sent.context("the SMTP server took too long")?.map(drop).context("the SMTP server")
}

fn server(host: &str, config: &Config) -> Result<Server> {
    let sender = config.email_sender.as_deref().context("SMTP_HOST is set and EMAIL_SENDER is not")?;
    let mailbox = sender.parse().with_context(|| format!("EMAIL_SENDER is {sender:?}, not an address"))?;
    let mut tls = TlsParameters::builder(host.to_owned());
    if let Some(path) = &config.smtp_ca_file {
        let pem = std::fs::read(path).with_context(|| format!("SMTP_CA_FILE is {}", path.display()))?;
        let certificate =
            Certificate::from_pem(&pem).context("SMTP_CA_FILE is no certificate in PEM form")?;
        tls = tls.add_root_certificate(certificate);
    }
    let tls = tls.build().context("TLS for SMTP_HOST")?;
    let tls = match (config.smtp_security, config.smtp_port) {
        (SmtpSecurity::None, _) => Tls::None,
        (SmtpSecurity::Implicit, _) | (SmtpSecurity::Tls, SMTPS) => Tls::Wrapper(tls),
        (SmtpSecurity::Tls, _) => Tls::Required(tls),
    };
    let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
        .port(config.smtp_port)
        .tls(tls)
        .timeout(Some(PATIENCE));
    if let Some(password) = &config.secrets.email_password {
        transport = transport.credentials(Credentials::new(sender.to_owned(), password.clone()));
    }
    Ok(Server { transport: transport.build(), sender: mailbox })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ObjectId;

    #[test]
    fn who_asks_for_much_leaves_places_to_others() {
        let mailer = Mailer::through(None);
        let (bob, ann) = (Holder::User(ObjectId::new()), Holder::User(ObjectId::new()));
        let places =
            |holder: Holder| -> Vec<Place> { (0..100).map_while(|_| mailer.place(holder).ok()).collect() };
        let bobs = places(bob);
        assert!(bobs.len() as u64 > MOST_UNDER_WAY / 2, "nobody else wants any");
        let refused = mailer.place(bob).unwrap_err();
        assert_eq!(
            (refused.status(), refused.detail().to_string()),
            (429, "\"a user has at most 8 mails under way, try again\"".to_owned())
        );
        assert_eq!((places(ann).len(), places(Holder::Address(1)).len()), (8, 8));
        drop(bobs);
        assert_eq!(mailer.places().taken(), 0);
    }
}
