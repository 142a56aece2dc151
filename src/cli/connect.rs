//! The options by which a command reaches a server.

use anyhow::{Context, bail};

use crate::client::{Auth, Client, Error, Options};

/// Which server, and as whom.
#[derive(clap::Args, Clone, Debug)]
pub struct ConnectArgs {
    /// Address of the server.
    #[arg(long, env = "KCI_URL", default_value = "http://127.0.0.1:8001")]
    pub url: String,
    /// User to log in as, with the password in the variable `KCI_PASSWORD`. A token in `KCI_TOKEN` is used instead.
    #[arg(long, env = "KCI_USER", default_value = "admin")]
    pub user: String,
}

impl ConnectArgs {
    /// The credentials that were given; anonymous without any.
    fn auth(&self) -> Auth {
        // Everybody on the machine can read the command line.
        let given = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
        match (given("KCI_TOKEN"), given("KCI_PASSWORD")) {
            (Some(token), _) => Auth::Token(token),
            (None, Some(password)) => Auth::Password { user: self.user.clone(), password },
            (None, None) => Auth::Anonymous,
        }
    }
    /// A token for many sessions, so that only one has to log in; `None` is anonymous.
    pub async fn access_token(&self, command: &str) -> anyhow::Result<Option<String>> {
        let (user, password) = match self.auth() {
            Auth::Anonymous => return Ok(None),
            Auth::Token(token) => return Ok(Some(token)),
            Auth::Password { user, password } => (user, password),
        };
        let client = self.reader(command).await?;
        let params = serde_json::json!({"username": user, "password": password});
        let login: serde_json::Value = client.call("user.login", params).await?;
        client.close().await;
        let token = login["access_token"].as_str().context("the login answers without a token")?;
        Ok(Some(token.to_owned()))
    }
    /// Connects for a command that only reads.
    pub async fn reader(&self, command: &str) -> anyhow::Result<Client> {
        let name = format!("kernelci-live-{command}/{}", env!("CARGO_PKG_VERSION"));
        let options = Options::new(&self.url).auth(self.auth()).name(name);
        match Client::connect(options).await {
            Ok(client) => Ok(client),
            Err(error @ Error::Connect { .. }) => {
                Err(error).context("no connection; is the server running? (kernelci-live serve)")
            }
            Err(error) if matches!(error.status(), Some(400 | 401)) => {
                Err(error).with_context(|| format!("the server refuses to log in {}", self.user))
            }
            Err(error) => Err(error.into()),
        }
    }
    /// Connects for a command that writes, which nobody may do without credentials.
    pub async fn writer(&self, command: &str) -> anyhow::Result<Client> {
        if matches!(self.auth(), Auth::Anonymous) {
            bail!(
                "{command} writes to the server, so it needs the password of {user} in the variable KCI_PASSWORD \
                 (or a token in KCI_TOKEN). The server prints the password of admin when it starts for the first \
                 time; KCI_INITIAL_PASSWORD sets it there",
                user = self.user
            );
        }
        self.reader(command).await
    }
}
