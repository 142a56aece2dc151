//! Every setting of the server: its flag, its environment variable, its default, and what a wrong value is told. Secrets have no
//! flag ([`secrets`]).
//!
//! Names that a KernelCI site already has in its environment are honoured as they are: `SECRET_KEY`,
//! `UNIFIED_SECRET`, `ALGORITHM`, `ACCESS_TOKEN_EXPIRE_SECONDS`, `MONGO_SERVICE`, `REDIS_HOST`, `REDIS_DB_NUMBER`,
//! `CLOUD_EVENTS_SOURCE`, `EVENT_HISTORY_TTL_SECONDS`, `TELEMETRY_TTL_SECONDS`, `NODE_PURGE_AGE_DAYS`,
//! `INVITE_TOKEN_EXPIRE_SECONDS`, `PUBLIC_BASE_URL`, `SMTP_HOST`, `SMTP_PORT`, `EMAIL_*`, `KCI_INITIAL_*`.

mod network;
mod quotas;
pub mod secrets;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};

pub use network::{HostName, Network};
pub use quotas::Quotas;
pub use secrets::Secrets;

/// The options of `kernelci-live serve`.
#[derive(Args, Clone, Debug)]
pub struct Config {
    /// Address and port to listen on; port 0 takes a free one.
    #[arg(long, env = "LISTEN", default_value = "127.0.0.1:8001")]
    pub listen: SocketAddr,
    /// Folder of the embedded database and of the generated signing secret.
    #[arg(long = "data", env = "DATA_DIR", default_value = "./data")]
    pub data: PathBuf,

    /// MongoDB for production, e.g. `mongodb://db:27017` (also read from `MONGO_SERVICE`); needs a Redis as well.
    #[arg(long, env = "MONGO_URL", hide_env_values = true)]
    pub mongo_url: Option<String>,
    /// KernelCI's name for `MONGO_URL`, which wins over it.
    #[arg(long, env = "MONGO_SERVICE", hide = true, hide_env_values = true)]
    pub mongo_service: Option<String>,
    /// Name of the MongoDB database.
    #[arg(long, env = "MONGO_DB", default_value = "kernelci")]
    pub mongo_db: String,
    /// Redis for production, e.g. `redis://redis:6379/1` (also made from `REDIS_HOST` and `REDIS_DB_NUMBER`).
    #[arg(long, env = "REDIS_URL", hide_env_values = true)]
    pub redis_url: Option<String>,
    /// KernelCI's host name of Redis; `REDIS_URL` wins over it.
    #[arg(long, env = "REDIS_HOST")]
    pub redis_host: Option<String>,
    /// KernelCI's database number in Redis, with `REDIS_HOST`.
    #[arg(long, env = "REDIS_DB_NUMBER", default_value_t = 1)]
    pub redis_db_number: u32,
    /// What all keys in Redis begin with.
    #[arg(long, env = "REDIS_PREFIX", default_value = "kernelci-live:")]
    pub redis_prefix: String,

    /// Number of the Redis database with the keys and values that services share (KernelCI's is always 0).
    #[arg(long, env = "KV_REDIS_DB", default_value_t = 0)]
    pub kv_redis_db: u32,

    /// Keys and passwords.
    #[command(flatten)]
    pub secrets: Secrets,
    /// Signature of tokens.
    #[arg(long, env = "ALGORITHM", value_enum, default_value_t = Algorithm::Hs256)]
    pub algorithm: Algorithm,
    /// How long a token from `user.login` is good, in seconds (default: 30 days).
    #[arg(long, env = "ACCESS_TOKEN_EXPIRE_SECONDS", default_value_t = 2_592_000,
          value_parser = clap::value_parser!(u64).range(1..=3_155_760_000))]
    pub access_token_expire_seconds: u64,
    /// Whether tokens of logins outlive a change of the password, as on KernelCI's own server; otherwise daemons that keep one
    /// need a new one then. Named tokens always do. A password that is set with a mailed token ends all.
    #[arg(long, env = "TOKENS_SURVIVE_PASSWORD", default_value_t = false, action = clap::ArgAction::Set)]
    pub tokens_survive_password: bool,
    /// How long an invitation is good, in seconds (default: 7 days).
    #[arg(long, env = "INVITE_TOKEN_EXPIRE_SECONDS", default_value_t = 604_800,
          value_parser = clap::value_parser!(u64).range(1..=315_360_000))]
    pub invite_token_expire_seconds: u64,
    /// How people reach this server, e.g. `https://api.example.org`: what mailed links begin with, and the origin of our
    /// own pages.
    #[arg(long, env = "PUBLIC_BASE_URL")]
    pub public_base_url: Option<String>,
    /// Further names that this server is reached by, without ports; comma-separated. If this or `PUBLIC_BASE_URL` is set,
    /// requests that were sent to any other name get no link to it, count as foreign pages if they come from one, and
    /// bring no passwords; numeric addresses and `localhost` are always ours, and programs with a token are let in
    /// whatever they call us.
    #[arg(long, env = "OWN_HOSTS", value_delimiter = ',')]
    pub own_hosts: Vec<HostName>,
    /// Addresses or networks of proxies in front of us who say from where a request comes (`PROXY_HEADERS`) and are
    /// believed, e.g. `10.0.0.0/8,::1`; comma-separated.
    #[arg(long, env = "TRUSTED_PROXIES", value_delimiter = ',')]
    pub trusted_proxies: Vec<Network>,
    /// Which headers those proxies write: the others are the client's own words, and ignored.
    #[arg(long, env = "PROXY_HEADERS", value_enum, default_value_t = ProxyHeaders::XForwarded)]
    pub proxy_headers: ProxyHeaders,

    /// SMTP server that takes our mail; without it none is sent.
    #[arg(long, env = "SMTP_HOST")]
    pub smtp_host: Option<String>,
    /// Its port: 465 speaks TLS at once, all others begin it with STARTTLS.
    #[arg(long, env = "SMTP_PORT", default_value_t = 587)]
    pub smtp_port: u16,
    /// The address that mail comes from, and the name that we log in with.
    #[arg(long, env = "EMAIL_SENDER")]
    pub email_sender: Option<String>,
    /// Certificate (PEM) of an authority of one's own that the SMTP server's certificate comes from.
    #[arg(long, env = "SMTP_CA_FILE")]
    pub smtp_ca_file: Option<PathBuf>,
    /// `implicit` speaks TLS at once on any port; `none` speaks SMTP in the clear, to a server on this machine only.
    #[arg(long, env = "SMTP_SECURITY", value_enum, default_value_t = SmtpSecurity::Tls)]
    pub smtp_security: SmtpSecurity,

    /// Name of the first admin.
    #[arg(long, env = "KCI_INITIAL_ADMIN_USERNAME", default_value = "admin")]
    pub initial_admin_username: String,
    /// E-mail address of the first admin (default: `<name>@kernelci.org`).
    #[arg(long, env = "KCI_INITIAL_ADMIN_EMAIL")]
    pub initial_admin_email: Option<String>,
    /// Whether sessions and requests without a token may read nodes and events.
    #[arg(long, env = "ANONYMOUS_READ", default_value_t = true, action = clap::ArgAction::Set)]
    pub anonymous_read: bool,
    /// Web origins besides our own whose pages may read our answers (CORS) and send credentials, e.g.
    /// `https://dashboard.example.org`; comma-separated.
    #[arg(long, env = "ALLOWED_ORIGINS", value_delimiter = ',')]
    pub allowed_origins: Vec<String>,

    /// The `source` attribute of our CloudEvents.
    #[arg(long, env = "CLOUD_EVENTS_SOURCE", default_value = "https://api.kernelci.org/")]
    pub cloud_events_source: String,
    /// Seconds that a start waits for MongoDB, while `/health` answers and `/ready` says what is waited for; then it ends
    /// with an error. (Redis may come later.)
    #[arg(long, env = "STARTUP_WAIT_SECONDS", default_value_t = 60,
          value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub startup_wait_seconds: u64,

    /// How long events are kept, in seconds (default: 7 days).
    #[arg(long, env = "EVENT_HISTORY_TTL_SECONDS", default_value_t = 604_800,
          value_parser = clap::value_parser!(u64).range(1..=2_147_483_647))]
    pub event_history_ttl_seconds: u64,

    /// How long records of telemetry are kept, in seconds (default: 14 days).
    #[arg(long, env = "TELEMETRY_TTL_SECONDS", default_value_t = 1_209_600,
          value_parser = clap::value_parser!(u64).range(1..=2_147_483_647))]
    pub telemetry_ttl_seconds: u64,
    /// Nodes older than this many days are removed, checkouts excepted; 0 keeps all.
    #[arg(long, env = "NODE_PURGE_AGE_DAYS", default_value_t = 180,
          value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub node_purge_age_days: u64,
    /// Seconds from the start to the first purge.
    #[arg(long, env = "NODE_PURGE_START_SECONDS", default_value_t = 600,
          value_parser = clap::value_parser!(u64).range(0..=31_536_000))]
    pub node_purge_start_seconds: u64,
    /// Seconds from one purge to the next.
    #[arg(long, env = "NODE_PURGE_INTERVAL_SECONDS", default_value_t = 86_400,
          value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub node_purge_interval_seconds: u64,
    /// Milliseconds of rest after each 1,000 nodes that a purge looks at.
    #[arg(long, env = "NODE_PURGE_PAUSE_MS", default_value_t = 100,
          value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub node_purge_pause_ms: u64,
    /// Seconds after which a long poll that waits is answered with a keep-alive event (`BEEP`), so that clients do not
    /// give up; 0 turns it off.
    #[arg(long, env = "KEEP_ALIVE_PERIOD", default_value_t = 45,
          value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub keep_alive_period: u64,
    /// Seconds after which a long-poll subscription without a name that nobody polls is dropped (default: 15 minutes).
    #[arg(long, env = "SUBSCRIPTION_IDLE_SECONDS", default_value_t = 900,
          value_parser = clap::value_parser!(u64).range(1..=2_147_483_647))]
    pub subscription_idle_seconds: u64,
    /// Seconds after which a named consumer that nobody uses is dropped (default: 30 days).
    #[arg(long, env = "CONSUMER_IDLE_SECONDS", default_value_t = 2_592_000,
          value_parser = clap::value_parser!(u64).range(1..=2_147_483_647))]
    pub consumer_idle_seconds: u64,

    /// Milliseconds between pings on a session; two unanswered ones end it.
    #[arg(long, env = "PING_INTERVAL_MS", default_value_t = 25_000,
          value_parser = clap::value_parser!(u64).range(100..=3_600_000))]
    pub ping_interval_ms: u64,
    /// Milliseconds within which a session must say hello.
    #[arg(long, env = "HELLO_TIMEOUT_MS", default_value_t = 10_000,
          value_parser = clap::value_parser!(u64).range(100..=600_000))]
    pub hello_timeout_ms: u64,
    /// Milliseconds over which sessions are told to leave at shutdown.
    #[arg(long, env = "DRAIN_MS", default_value_t = 2_000,
          value_parser = clap::value_parser!(u64).range(0..=600_000))]
    pub drain_ms: u64,
    /// What clients may have at a time.
    #[command(flatten)]
    pub quotas: Quotas,

    /// Milliseconds that a search of nodes, or counting them, may take.
    #[arg(long, env = "QUERY_TIMEOUT_MS", default_value_t = 15_000,
          value_parser = clap::value_parser!(u64).range(1..=600_000))]
    pub query_timeout_ms: u64,
    /// What a power failure may cost on the embedded store: nothing (`full`), or the last moments (`normal`).
    #[arg(long, env = "SQLITE_SYNCHRONOUS", value_enum, default_value_t = Synchronous::Full)]
    pub sqlite_synchronous: Synchronous,

    /// Name of this instance in `session.hello`, logs and metrics (default: the host's name and a random part; in
    /// metrics, `api`).
    #[arg(long, env = "INSTANCE")]
    pub instance: Option<String>,
    /// What to log, e.g. `info` or `kernelci_live=debug`.
    #[arg(long, env = "LOG", default_value = "info")]
    pub log: String,
    /// How to log.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// Signature algorithms: the one that all KernelCI services share.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    #[value(name = "HS256", alias = "hs256")]
    Hs256,
}

/// The headers in which a proxy says who asks, and what they have asked for.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeaders {
    /// `X-Forwarded-For`, `X-Forwarded-Proto`, `X-Forwarded-Host`.
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// How carefully the embedded store syncs to the disk.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synchronous {
    /// Every commit survives a power failure.
    Full,
    /// Every commit survives the end of the process; a power failure may cost the last ones, and begins a new epoch.
    Normal,
}

/// How the connection to the SMTP server is protected.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmtpSecurity {
    /// Always: at once on port 465, with STARTTLS on others.
    Tls,
    /// Always, and at once on any port.
    Implicit,
    /// Not at all.
    None,
}

/// Form of the log lines.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Which store and log the settings ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// SQLite in the data folder.
    Embedded,
    /// MongoDB and Redis.
    Production {
        /// `mongodb://…`
        mongo_url: String,
        /// `redis://…/db`
        redis_url: String,
    },
}

impl Config {
    /// Which store and log to use; a sentence if the settings contradict each other.
    pub fn backend(&self) -> Result<Backend> {
        let mongo = self.mongo_url.clone().or_else(|| self.mongo_service.clone());
        let redis = self.redis_url.clone().or_else(|| {
            let host = self.redis_host.as_deref()?;
            let port = if host.contains(':') { "" } else { ":6379" };
            Some(format!("redis://{host}{port}/{}", self.redis_db_number))
        });
        match (mongo, redis) {
            (None, None) => Ok(Backend::Embedded),
            (Some(mongo_url), Some(redis_url)) => {
                check_scheme("MONGO_URL", &mongo_url, &["mongodb://", "mongodb+srv://"])?;
                check_scheme("REDIS_URL", &redis_url, &["redis://", "rediss://", "redis+unix://"])?;
                Ok(Backend::Production { mongo_url, redis_url })
            }
            (Some(_), None) => {
                bail!(
                    "MONGO_URL (or MONGO_SERVICE) is set and REDIS_URL (or REDIS_HOST) is not: production needs both, the embedded default neither"
                )
            }
            (None, Some(_)) => {
                bail!(
                    "REDIS_URL (or REDIS_HOST) is set and MONGO_URL (or MONGO_SERVICE) is not: production needs both, the embedded default neither"
                )
            }
        }
    }

    /// Checks what the types of the settings cannot, so that a wrong value ends the start with a sentence.
    pub fn check(&self) -> Result<()> {
        self.backend()?;
        self.secrets.check()?;
        if self.mongo_db.is_empty() || self.mongo_db.contains(['/', '\\', '.', ' ', '"', '$', '\0']) {
            bail!("MONGO_DB is {:?}: a database name has no spaces and none of / \\ . \" $", self.mongo_db);
        }
        if self.redis_prefix.is_empty() {
            bail!(
                "REDIS_PREFIX is empty: what is kept in Redis must be told apart from what others keep there"
            );
        }
        if self.initial_admin_username.trim().is_empty() {
            bail!("KCI_INITIAL_ADMIN_USERNAME is blank");
        }
        self.check_mail()?;
        if let Some(base) = &self.public_base_url {
            let url = url::Url::parse(base).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
            url.with_context(|| format!("PUBLIC_BASE_URL is {base:?}, not like https://api.example.org"))?;
        }
        url::Url::parse(&self.cloud_events_source)
            .with_context(|| format!("CLOUD_EVENTS_SOURCE is {:?}, not a URL", self.cloud_events_source))?;
        for origin in &self.allowed_origins {
            let url = url::Url::parse(origin).with_context(|| {
                format!("ALLOWED_ORIGINS has {origin:?}, not an origin like https://host")
            })?;
            if url.origin().ascii_serialization() != *origin {
                bail!(
                    "ALLOWED_ORIGINS has {origin:?}: an origin is scheme://host[:port] and nothing behind it"
                );
            }
        }
        // A consumer that is connected is noted as used with every ping.
        if Duration::from_secs(self.consumer_idle_seconds) < 2 * self.ping_interval() {
            bail!(
                "CONSUMER_IDLE_SECONDS is {}: connected consumers would be dropped, expected at least twice PING_INTERVAL_MS ({})",
                self.consumer_idle_seconds,
                self.ping_interval_ms
            );
        }
        Ok(())
    }

    fn check_mail(&self) -> Result<()> {
        let Some(host) = &self.smtp_host else { return Ok(()) };
        let sender = self.email_sender.as_deref().context("SMTP_HOST is set and EMAIL_SENDER is not")?;
        if crate::model::email::check("EMAIL_SENDER", sender).is_err() {
            bail!("EMAIL_SENDER is {sender:?}, not an e-mail address");
        }
        let is_local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|host| host.is_loopback());
        if self.smtp_security == SmtpSecurity::None && !is_local {
            bail!("SMTP_SECURITY is none and SMTP_HOST is {host:?}: mail leaves this machine protected only");
        }
        Ok(())
    }

    /// The name of this instance: the setting, or the host's name and a random part, the same for the whole process.
    pub fn instance_name(&self) -> String {
        static MADE: OnceLock<String> = OnceLock::new();
        let make = || {
            let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            let host = host.trim().split('.').next().filter(|host| !host.is_empty()).unwrap_or("host");
            format!("{host}-{:04x}", rand::random::<u16>())
        };
        self.instance.clone().unwrap_or_else(|| MADE.get_or_init(make).clone())
    }

    /// The interval between pings.
    pub fn ping_interval(&self) -> Duration {
        Duration::from_millis(self.ping_interval_ms)
    }
}

fn check_scheme(name: &str, url: &str, schemes: &[&str]) -> Result<()> {
    if schemes.iter().any(|scheme| url.starts_with(scheme)) {
        return Ok(());
    }
    bail!("{name} must begin with {}", schemes.join(" or "))
}
