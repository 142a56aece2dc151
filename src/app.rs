//! What the server's parts share, how it is built, and in which order it shuts down.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::bootstrap::{self, FirstAdmin};
use crate::auth::{
    Caller, Identities,
    mail::Mailer,
    origins::KnownAddresses,
    own_addresses::OwnAddresses,
    passwords::Passwords,
    tokens::{Token, Tokens},
};
use crate::background;
use crate::config::{Backend, Config, Synchronous};
use crate::consumer_group::{Groups, Parts};
use crate::error::Error;
use crate::event_log::EventLog;
use crate::health::{Health, Part};
use crate::hub::Hub;
use crate::kv::{self, Kv};
use crate::metrics;
use crate::ops::{self, Lists, Table, polling};
use crate::quota::rate::Limits;
use crate::quota::{Lanes, Pool, Quotas};
use crate::session::roster::{self, Roster};
use crate::signals::{self, Signals};
use crate::store::{IndexStatus, Store, mongo, sqlite};

/// How often the store is told which named tokens were used.
const NOTE_USES: Duration = Duration::from_secs(60);

/// How long a shutdown waits for what sessions have left to write.
const WORK: Duration = Duration::from_secs(10);

/// Everything that sessions and requests share.
pub struct App {
    /// The settings.
    pub config: Config,
    /// Tells this instance from others.
    pub instance: String,
    /// The truth.
    pub store: Arc<dyn Store>,
    /// The order of events.
    pub log: Arc<dyn EventLog>,
    /// Which of them can be reached.
    pub health: Health,
    /// Keys and values that services share.
    pub kv: Arc<dyn Kv>,
    /// From the log to the sessions.
    pub hub: Arc<Hub>,
    /// Wakes who waits, on any instance.
    pub signals: Arc<dyn Signals>,
    /// The consumers that several connections share.
    pub groups: Groups,
    /// A place for each long list that is read over REST.
    pub lists: Lists,
    /// Who the bearers of tokens are now.
    pub identities: Identities,
    /// Signs and verifies tokens.
    pub tokens: Tokens,
    /// Hashes and verifies passwords.
    pub passwords: Passwords,
    /// How often things may be tried.
    pub limits: Limits,
    /// What clients may have at a time.
    pub quotas: Quotas,
    /// How people reach us.
    pub own_addresses: OwnAddresses,
    /// Where users have been before.
    pub known_addresses: KnownAddresses,
    /// Sends mail.
    pub mail: Mailer,
    /// Opening consumers, those of one name one after the other.
    pub openings: Lanes,
    /// The operations.
    pub table: Table,
    /// Sessions and feeds that live on after their request.
    pub sessions: TaskTracker,
    /// Wakes sessions by the clock and for news.
    pub roster: Arc<Roster>,
    /// What runs on when whoever asked for it has gone: writes, and what sessions have begun to write down.
    pub work: TaskTracker,
    /// Cancelled when the server begins to shut down: sessions say goodbye, nothing new is accepted.
    pub draining: CancellationToken,
}

impl App {
    /// Opens the store and the log, makes the first admin if there is none.
    pub async fn build(mut config: Config) -> Result<(Arc<App>, Option<FirstAdmin>)> {
        config.check()?;
        if matches!(config.backend()?, Backend::Embedded) {
            config.quotas.suit_embedded();
        }
        metrics::install(config.instance.as_deref().unwrap_or("api"));
        let secret = bootstrap::secret(&config)?;
        let Opened { store, log, kv } = open(&config).await?;
        let signals = signals(&config)?;
        let passwords = Passwords::new(&config.quotas);
        let mail = Mailer::new(&config)?;
        let first_admin = bootstrap::users(&*store, &passwords, &config).await?;
        let tokens = Tokens::new(
            &secret,
            config.secrets.unified_secret.as_deref(),
            config.access_token_expire_seconds,
        );
        let hub = Arc::new(Hub::new(log.clone(), config.quotas.hub()));
        let instance = config.instance_name();
        let groups = Groups::new(Parts {
            store: store.clone(),
            log: log.clone(),
            hub: hub.clone(),
            signals: signals.clone(),
            instance: instance.clone(),
            source: config.cloud_events_source.clone(),
            idle_seconds: config.consumer_idle_seconds,
        });
        let app = App {
            health: Health::of(store.clone(), log.clone()),
            hub,
            groups,
            identities: Identities::new(store.clone(), signals.clone()),
            signals,
            lists: Lists::new(config.quotas.long_lists()),
            openings: Lanes::default(),
            table: ops::table(),
            sessions: TaskTracker::new(),
            roster: Arc::default(),
            work: TaskTracker::new(),
            draining: CancellationToken::new(),
            quotas: Quotas::new(&config.quotas),
            own_addresses: OwnAddresses::new(&config),
            instance,
            config,
            store,
            log,
            kv,
            tokens,
            passwords,
            limits: Limits::default(),
            known_addresses: KnownAddresses::default(),
            mail,
        };
        let app = Arc::new(app);
        polling::clean_up(&app);
        background::spawn("roster", roster::keep(Arc::downgrade(&app)));
        background::spawn("uses of tokens", note_uses(app.clone()));
        Ok((app, first_admin))
    }

    /// All that this instance shares out, by name.
    pub fn pools(&self) -> Vec<(&'static str, &Pool)> {
        let more = [
            ("followed_channels", self.hub.places()),
            ("passwords", self.passwords.places()),
            ("mails", self.mail.places()),
        ];
        self.quotas.pools().into_iter().chain(more).collect()
    }

    /// Who this token speaks for: 401 unless it is good and its user is active.
    pub async fn caller(&self, token: &str) -> Result<Caller, Error> {
        for token in self.tokens.verify(token) {
            if let Some(caller) = self.known(&Arc::new(token)).await? {
                return Ok(caller);
            }
        }
        Err(Error::unauthorized())
    }

    /// Who a verified token speaks for now; `None` if it does not count any more, 503 soon where the store is away.
    pub async fn known(&self, token: &Arc<Token>) -> Result<Option<Caller>, Error> {
        self.health.serve(&[Part::Store], self.identities.caller(token)).await
    }

    /// Ends everything in the order in which nothing is lost: sessions say goodbye, they and the `requests` in flight
    /// finish, what they have left is written, the hub stops following, the log passes on what was acknowledged, the
    /// store closes.
    pub async fn shut_down(&self, requests: impl Future<Output = ()>) {
        self.draining.cancel();
        self.sessions.close();
        let patience = Duration::from_millis(self.config.drain_ms) + Duration::from_secs(10);
        let finished = async { tokio::join!(self.sessions.wait(), requests) };
        if tokio::time::timeout(patience, finished).await.is_err() {
            tracing::warn!(sessions = self.sessions.len(), "some sessions or requests did not end in time");
        }
        self.work.close();
        if tokio::time::timeout(WORK, self.work.wait()).await.is_err() {
            tracing::warn!("something that sessions have left was not written");
        }
        self.groups.close().await;
        self.mail.close().await;
        self.hub.close();
        self.identities.note_uses().await;
        self.signals.close();
        self.log.close().await;
        self.store.close().await;
    }
}

/// The signals that the settings ask for.
fn signals(config: &Config) -> Result<Arc<dyn Signals>> {
    match config.backend()? {
        Backend::Embedded => Ok(Arc::new(signals::Local::default())),
        Backend::Production { redis_url, .. } => {
            let signals = signals::redis::open(&redis_url, &config.redis_prefix);
            Ok(Arc::new(signals.context("Redis (REDIS_URL) cannot be used")?))
        }
    }
}

/// What indexes the store that the settings ask for has, lacks, and has without need; nothing is changed.
pub async fn index_status(config: &Config) -> Result<Vec<IndexStatus>> {
    match config.backend()? {
        Backend::Embedded => Ok(sqlite::index_status(&config.data).await?),
        Backend::Production { mongo_url, .. } => {
            mongo::index_status(&mongo_url, &config.mongo_db).await.context("MongoDB (MONGO_URL)")
        }
    }
}

async fn note_uses(app: Arc<App>) {
    while app.draining.run_until_cancelled(tokio::time::sleep(NOTE_USES)).await.is_some() {
        app.identities.note_uses().await;
    }
}

/// Waits until the store that the settings ask for can be opened, or is no more to be waited for; `tell` hears why it
/// cannot.
pub async fn wait_for_store(config: &Config, tell: impl Fn(&Error)) -> Result<()> {
    let Backend::Production { mongo_url, .. } = config.backend()? else { return Ok(()) };
    let patience = Duration::from_secs(config.startup_wait_seconds);
    let waited = mongo::wait(&mongo_url, &config.mongo_db, patience, tell).await;
    let seconds = patience.as_secs();
    waited.with_context(|| {
        format!("MongoDB (MONGO_URL) cannot be opened, waited {seconds} s for it (STARTUP_WAIT_SECONDS)")
    })
}

/// Where everything is kept.
pub struct Opened {
    /// The truth.
    pub store: Arc<dyn Store>,
    /// The order of events.
    pub log: Arc<dyn EventLog>,
    /// Keys and values.
    pub kv: Arc<dyn Kv>,
}

/// Opens what the settings ask for.
pub async fn open(config: &Config) -> Result<Opened> {
    let retention = Duration::from_secs(config.event_history_ttl_seconds);
    let prune_every = (retention / 20).clamp(Duration::from_secs(1), Duration::from_secs(60));
    match config.backend()? {
        Backend::Embedded => {
            let options = sqlite::Options {
                retention,
                telemetry_retention: Duration::from_secs(config.telemetry_ttl_seconds),
                search_limit: Duration::from_millis(config.query_timeout_ms),
                prune_every,
                synchronous: match config.sqlite_synchronous {
                    Synchronous::Full => sqlite::Synchronous::Full,
                    Synchronous::Normal => sqlite::Synchronous::Normal,
                },
                // As many as run at a time: beside the slow ones there is always room for quick ones.
                readers: (config.quotas.max_searches + config.quotas.max_scans) as usize,
                ..sqlite::Options::default()
            };
            let (store, log) = sqlite::open(&config.data, options).await.with_context(|| {
                format!("the embedded store in {} cannot be opened", config.data.display())
            })?;
            let kv = Arc::new(store.kv());
            Ok(Opened { store, log, kv })
        }
        Backend::Production { mongo_url, redis_url } => {
            let kv = kv::redis::open(&redis_url, config.kv_redis_db, &config.redis_prefix)
                .context("Redis (REDIS_URL) cannot be used")?;
            let options = mongo::Options {
                mongo_url,
                database: config.mongo_db.clone(),
                redis_url,
                key_prefix: config.redis_prefix.clone(),
                event_retention_seconds: config.event_history_ttl_seconds,
                telemetry_retention_seconds: config.telemetry_ttl_seconds,
                prune_every,
                query_time: Duration::from_millis(config.query_timeout_ms),
                ..mongo::Options::default()
            };
            let (store, log) = mongo::open(options).await.context("MongoDB (MONGO_URL) cannot be opened")?;
            Ok(Opened { store, log, kv: Arc::new(kv) })
        }
    }
}
