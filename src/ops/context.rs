//! What an operation knows of its surroundings.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::handover::{Handover, HandoverSlot};
use crate::app::App;
use crate::auth::Caller;
use crate::auth::own_addresses::Page;
use crate::auth::tokens::Token;
use crate::error::{Error, Kind, Result};
use crate::model::ObjectId;
use crate::quota::{Holder, Place, Share, Turn};
use crate::session::subscription::Subscription;
use crate::session::{Handle, Slot};
use crate::sync::lock;

/// Where a request comes from.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The client's address; behind a trusted proxy the one that the proxy tells.
    pub address: IpAddr,
    /// How the client reached us, e.g. `https://api.example.org`, without a path.
    pub base_url: String,
    /// Whether that is one of our own addresses, as far as these are known.
    pub is_ours: bool,
    /// The web page behind the request.
    pub page: Page,
}

impl Peer {
    /// 403 for pages of foreign origins: whoever made them must not act in the name of those who look at them.
    pub fn may_bring_credentials(&self) -> Result<()> {
        match self.page {
            Page::None | Page::Trusted => Ok(()),
            Page::Foreign => {
                Err(Error::new(Kind::Forbidden, "credentials are not accepted from this web origin"))
            }
        }
    }

    /// 403 where passwords and the like do not belong: on pages of foreign origins, and at a name that is not ours. With
    /// a token the name does not matter: browsers add none by themselves.
    pub fn may_bring_secrets(&self, with_token: bool) -> Result<()> {
        self.may_bring_credentials()?;
        match self.is_ours || with_token {
            true => Ok(()),
            false => Err(Error::new(
                Kind::Forbidden,
                "Host: passwords and mailed tokens are taken at this server's own addresses only (OWN_HOSTS)",
            )),
        }
    }
}

impl Default for Peer {
    fn default() -> Peer {
        Peer {
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            base_url: "http://localhost".into(),
            is_ours: true,
            page: Page::None,
        }
    }
}

/// Handed to every operation: the server, who asks and from where, and the session if there is one that lives on.
#[derive(Clone)]
pub struct Context {
    /// The server's shared parts.
    pub app: Arc<App>,
    /// Who asks.
    pub caller: Caller,
    /// From where.
    pub peer: Arc<Peer>,
    session: Option<(Arc<Handle>, Slot)>,
    handover: HandoverSlot,
    answered: bool,
    heavy: Option<Arc<Turn>>,
    _carried: Option<Arc<Mutex<Option<Place>>>>,
    /// A token that came with the request and speaks for nobody any more.
    spent: Option<Arc<str>>,
    /// What a request with an idempotency key asks for.
    fingerprint: Option<Arc<str>>,
}

impl Context {
    /// For a request; with the session and the slot for what it opens where subscriptions can be held.
    pub fn new(
        app: Arc<App>,
        caller: Caller,
        peer: Arc<Peer>,
        session: Option<(Arc<Handle>, Slot)>,
    ) -> Context {
        Context {
            app,
            caller,
            peer,
            session,
            handover: HandoverSlot::default(),
            answered: true,
            heavy: None,
            _carried: None,
            spent: None,
            fingerprint: None,
        }
    }

    /// Says whether the request gets an answer; a notification gets none.
    pub fn answered(self, answered: bool) -> Context {
        Context { answered, ..self }
    }

    /// Keeps what the request asks for, if it has an idempotency key ([`super::fingerprint`]).
    pub(super) fn asking_for(self, fingerprint: String) -> Context {
        match fingerprint.is_empty() {
            true => self,
            false => Context { fingerprint: Some(fingerprint.into()), ..self },
        }
    }

    /// What a request with an idempotency key asks for; empty without one.
    pub fn fingerprint(&self) -> &str {
        self.fingerprint.as_deref().unwrap_or_default()
    }

    /// Keeps the token that the request came with if it speaks for nobody: it may still show where the client has been.
    pub fn with_bearer(self, token: Option<&str>) -> Context {
        let spent = token.filter(|_| self.caller.token.is_none()).map(Arc::from);
        Context { spent, ..self }
    }

    /// A login of this user from which the client has a token, the one given or the one that the request came with;
    /// whether it has ended does not matter.
    pub fn earlier_login(&self, user: ObjectId, given: Option<&str>) -> Option<Arc<Token>> {
        let remembered = |token: &str| self.app.tokens.remembered(token).map(Arc::new);
        let all = [
            given.and_then(remembered),
            self.caller.token.clone().filter(|token| token.named.is_none()),
            self.spent.as_deref().and_then(remembered),
        ];
        all.into_iter().flatten().find(|token| token.user == user)
    }

    /// Says that the request has megabytes, and gives it the turn that those take: it ends with the work on them.
    pub fn heavy(self, turn: Option<Arc<Turn>>) -> Context {
        Context { heavy: turn, ..self }
    }

    /// Gives the request the place that its body has taken: it ends with the work on it, too.
    pub fn carrying(self, carried: Option<Arc<Mutex<Option<Place>>>>) -> Context {
        Context { _carried: carried, ..self }
    }

    /// Whether the request has megabytes: what is made of them takes so long that async threads must not do it.
    pub fn is_heavy(&self) -> bool {
        self.heavy.is_some()
    }

    /// Whether somebody waits for the answer.
    pub fn is_answered(&self) -> bool {
        self.answered
    }

    /// Whom what this request costs is counted for.
    pub fn holder(&self) -> Holder {
        Holder::of(&self.caller, self.peer.address)
    }

    /// How much the caller may have of what stays; 401 for nobody in particular.
    pub fn share(&self) -> Result<Share> {
        Ok(Share::new(self.caller.user()?, &self.app.config.quotas))
    }

    /// Waits for a turn to search: 429 if too much is asked at once, or if it takes longer than a search may. `served`:
    /// an index leads to what is looked for.
    pub async fn search(&self, served: bool) -> Result<Turn> {
        let quotas = &self.app.quotas;
        let turns = if served { &quotas.searches } else { &quotas.scans };
        let patience = Duration::from_millis(self.app.config.query_timeout_ms);
        turns.turn_within(patience, self.holder()).await
    }

    /// Asks to be told whether this request's answer reached its client.
    pub fn hand_over(&self, handover: Handover) {
        *lock(&self.handover) = Some(handover);
    }

    /// Where the transport finds what was asked for with [`Context::hand_over`].
    pub fn handover(&self) -> HandoverSlot {
        self.handover.clone()
    }

    /// The session that subscriptions and credentials live in; a clear error for requests that have none.
    pub fn session(&self) -> Result<&Arc<Handle>> {
        self.here().map(|(handle, _)| handle)
    }

    /// Lets a subscription begin as soon as this request's answer is on its way.
    pub fn open(&self, subscription: Subscription) -> Result<()> {
        let (_, slot) = self.here()?;
        *lock(slot) = Some(subscription);
        Ok(())
    }

    fn here(&self) -> Result<&(Arc<Handle>, Slot)> {
        self.session.as_ref().ok_or_else(|| {
            Error::new(Kind::NotAllowed, "this method needs a session that stays: call it on the WebSocket")
        })
    }
}
