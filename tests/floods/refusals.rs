//! A refusal leaves nothing behind. Every operation of the table is asked for in every way that it can be, by everybody,
//! with parameters made from its schema; what was refused once is refused again, about other names and ids, and then all
//! is as it was: rows, documents, keys, descriptors, tasks, connections, subscriptions.
//!
//! Whether a request is refused is found out in a first round, which also makes what is made once. What only looks is
//! asked for again in any case: it may leave as little.

mod asked;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::{StreamExt, stream};
use kernelci_live::auth::{Access, Effect};
use kernelci_live::ops::{Body, Operation, Route, Table, table};
use macro_rules_attribute::apply;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Map, Value, json};
use tokio_tungstenite::tungstenite::Message;

use self::asked::{Names, Rest, There, by_route, requests};
use super::looks::{At, at_rest, entries, is_back};
use crate::support::{
    Backend, Http, Lost, PATIENCE, Raw, Server, answer, both_backends_in_pairs, eventually, node,
};

/// Operations that are asked for at the same time.
const AT_ONCE: usize = 8;
/// A client that waits for what does not come leaves after this.
const WAIT: Duration = Duration::from_millis(200);
/// More than a message may have, and more than the body of most requests.
const LARGE: usize = (1 << 20) + 1000;
const LARGER: usize = (4 << 20) + 1000;
/// Everybody soon has as much as they may have.
const ONE_OF_EACH: [(&str, &str); 6] = [
    ("QUEUES_PER_USER", "1"),
    ("CONSUMERS_PER_USER", "1"),
    ("UNNAMED_CONSUMERS_PER_USER", "1"),
    ("CHANNELS_PER_USER", "1"),
    ("KEYS_PER_USER", "1"),
    ("TOKENS_PER_USER", "1"),
];
/// The status of an answer that nobody waited for.
const LEFT: u16 = 0;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Who {
    Nobody,
    /// Somebody whose token is good no more.
    Former,
    /// A user without any rights, whose address is not confirmed.
    Newcomer,
    /// A superuser with a token that may only look.
    Reader,
    Superuser,
}

const ALL: [Who; 5] = [Who::Nobody, Who::Former, Who::Newcomer, Who::Reader, Who::Superuser];

/// On which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Way {
    /// By the route of this number.
    Rest(usize),
    Rpc,
    Session,
}

/// One request, without the names in it.
#[derive(Clone)]
struct Ask {
    who: Who,
    way: Way,
    params: Map<String, Value>,
    /// So many bytes are added.
    padding: usize,
}

/// The tokens of those who ask.
#[derive(Clone, Default)]
struct Tokens(BTreeMap<Who, String>);

impl Tokens {
    fn of(&self, who: Who) -> Option<&str> {
        self.0.get(&who).map(String::as_str)
    }

    /// Whether they still speak for those who have them.
    async fn are_good(&self, http: &Http) -> bool {
        for who in [Who::Newcomer, Who::Reader, Who::Superuser] {
            let token = self.of(who).expect("a token");
            // It asks for a right that a newcomer has not.
            if http.with(token).get("/latest/whoami").await.status == 401 {
                return false;
            }
        }
        true
    }
}

/// An operation and everything that it is asked.
struct Asked<'a> {
    operation: &'a Operation,
    /// For what is chosen by chance.
    seed: u64,
    /// By whom, for it alone: what they have may refuse them the next.
    tokens: Tokens,
    asks: Vec<Ask>,
    /// What the answers were, the last time.
    statuses: BTreeSet<(Way, u16)>,
}

/// Those who ask for one operation, on connections of their own.
struct Clients<'a> {
    server: &'a Server,
    tokens: &'a Tokens,
    http: Http,
    sessions: BTreeMap<Who, Raw>,
}

impl Clients<'_> {
    async fn session(&mut self, who: Who) -> &mut Raw {
        if !self.sessions.contains_key(&who) {
            let mut raw = self.server.connect().await;
            raw.call("session.hello", json!({"token": self.tokens.of(who)})).await;
            self.sessions.insert(who, raw);
        }
        self.sessions.get_mut(&who).expect("it is there")
    }

    /// Asks; the status of the answer.
    async fn ask(&mut self, operation: &Operation, ask: &Ask, names: &Names) -> u16 {
        let params = names.fill(&ask.params);
        let waits = operation.has_param("wait_ms") && !params.contains_key("wait_ms");
        let patience = if waits { WAIT } else { PATIENCE };
        let answered = async {
            match ask.way {
                Way::Rest(route) => self.by_rest(&operation.routes[route], ask, params).await,
                Way::Rpc => self.by_rpc(operation.name, ask, params).await,
                Way::Session => self.by_session(operation.name, ask, params).await,
            }
        };
        let answered = tokio::time::timeout(patience, answered).await;
        assert!(answered.is_ok() || waits, "{}: no answer", operation.name);
        answered.unwrap_or(LEFT)
    }

    fn client(&self, who: Who) -> Http {
        self.tokens.of(who).map_or(self.http.clone(), |token| self.http.with(token))
    }

    async fn by_rest(&self, route: &Route, ask: &Ask, params: Map<String, Value>) -> u16 {
        let Rest { path, headers, body } = by_route(route, params);
        let mut request = self.client(ask.who).request(route.method.as_str(), &path);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if let Some((kind, body)) = body {
            request = request.header("content-type", kind).body(body + &" ".repeat(ask.padding));
        }
        answer(request).await.status
    }

    async fn by_rpc(&self, method: &str, ask: &Ask, params: Map<String, Value>) -> u16 {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let request = self.client(ask.who).request("POST", "/latest/rpc");
        let answer = answer(request.body(body + &" ".repeat(ask.padding))).await;
        match answer.json["error"]["data"]["status"].as_u64() {
            Some(status) => status as u16,
            None => answer.status,
        }
    }

    async fn by_session(&mut self, method: &str, ask: &Ask, params: Map<String, Value>) -> u16 {
        if ask.padding > 0 {
            // One that what was asked before has not ended.
            self.sessions.remove(&ask.who);
        }
        let raw = self.session(ask.who).await;
        let mut answered = match ask.padding {
            0 => raw.try_request(method, Value::Object(params)).await,
            padding => {
                let request = json!({"jsonrpc": "2.0", "id": "large", "method": method, "params": params});
                // The session may end before all of it is sent, and the connection with what was to be said.
                _ = raw.send(Message::text(request.to_string() + &" ".repeat(padding))).await;
                match raw.wait_for(PATIENCE, |message| message["id"] == "large").await {
                    Err(Lost::Broken(_)) => Err(Lost::Closed(4413, String::new())),
                    answered => answered,
                }
            }
        };
        if answered.is_err() {
            self.sessions.remove(&ask.who);
        }
        match &mut answered {
            Ok(answer) => answer["error"]["data"]["status"].as_u64().map_or(200, |status| status as u16),
            Err(Lost::Closed(code, _)) if *code >= 4400 => *code - 4000,
            Err(lost) => panic!("{method}: {lost:?}"),
        }
    }
}

/// Whether a request may be found too large, of those that a test can send in numbers.
fn is_limited(operation: &Operation, way: Way) -> bool {
    match way {
        Way::Rest(route) => {
            let route = &operation.routes[route];
            route.body != Body::None && !operation.takes_much && !route.takes_much
        }
        Way::Rpc | Way::Session => true,
    }
}

/// Whether it leaves nothing even if it succeeds.
fn only_looks(operation: &Operation, params: &Map<String, Value>) -> bool {
    // Every token may end itself, and whoever reads may be a user who has places kept.
    operation.effect == Effect::Reads && operation.name != "user.logout" && !params.contains_key("durable")
}

/// Everything that an operation is asked.
fn asks(operation: &Operation, there: &There, seed: u64) -> Vec<Ask> {
    let mut rng = StdRng::seed_from_u64(seed);
    let all = requests(operation, there, &mut rng);
    let mut ways: Vec<Way> = (0..operation.routes.len()).map(Way::Rest).collect();
    ways.extend([Way::Rpc, Way::Session]);
    let others = all.iter().skip(2).zip(ways.iter().cycle());
    let ask = |(params, way): (&Map<String, Value>, &Way)| Ask {
        who: Who::Superuser,
        way: *way,
        params: params.clone(),
        padding: 0,
    };
    let mut asks: Vec<Ask> = others.map(ask).collect();
    for way in ways {
        // A session of somebody whose token is good no more ends with its hello.
        for who in ALL.into_iter().filter(|who| (way, *who) != (Way::Session, Who::Former)) {
            let ask = |params: &Map<String, Value>| Ask { who, way, params: params.clone(), padding: 0 };
            // What is wrong with parameters is found whoever asks, and on whichever way.
            asks.extend(all.iter().take(2).map(ask));
        }
        let (who, padding) = match way {
            Way::Rest(_) => (Who::Superuser, LARGER),
            Way::Rpc | Way::Session => (Who::Nobody, LARGE),
        };
        if is_limited(operation, way) {
            asks.push(Ask { who, way, params: all[0].clone(), padding });
        }
    }
    asks
}

/// Asks everything once; keeps what was refused, and what cannot leave anything anyway.
async fn first_round(server: &Server, admin: &Http, names: &Names, asked: &mut Asked<'_>) {
    let operation = asked.operation;
    let (http, mut kept, mut lives) = (Http::new(server), Vec::new(), 0);
    let name = operation.name.replace('.', "-");
    let there = make(server, admin, format!("taken-{name}")).await;
    let life = |lives: u32| format!("{name}-{lives}");
    let mut own = tokens(server, admin, &life(lives)).await;
    let mut clients = Clients { server, tokens: &own, http: http.clone(), sessions: BTreeMap::new() };
    for ask in asks(operation, &there, asked.seed) {
        let status = clients.ask(operation, &ask, names).await;
        assert!(status < 500 || status == 503, "{} {:?}: {status}", operation.name, ask.way);
        let refused = status >= 400 || status == LEFT;
        if refused || only_looks(operation, &ask.params) {
            kept.push(ask);
        } else if !own.are_good(&http).await {
            // They have ended who they are, and the next ones come.
            lives += 1;
            own = tokens(server, admin, &life(lives)).await;
            clients = Clients { server, tokens: &own, http: http.clone(), sessions: BTreeMap::new() };
        }
    }
    (asked.asks, asked.tokens) = (kept, own);
}

/// Asks again what was kept.
async fn next_round(server: &Server, names: &Names, asked: &mut Asked<'_>) {
    let http = Http::new(server);
    let mut clients = Clients { server, tokens: &asked.tokens, http, sessions: BTreeMap::new() };
    asked.statuses.clear();
    for ask in &asked.asks {
        let status = clients.ask(asked.operation, ask, names).await;
        let name = asked.operation.name;
        assert!(
            status >= 400 || status == LEFT || only_looks(asked.operation, &ask.params),
            "{name} {:?} {:?}: {status} to {:?}, which was refused before",
            ask.way,
            ask.who,
            ask.params
        );
        asked.statuses.insert((ask.way, status));
    }
}

/// Somebody whose rights are as said.
async fn user(server: &Server, admin: &Http, name: &str, rights: Value) -> (String, String) {
    let token = server.user(name).await;
    let id = admin.with(&token).get("/latest/whoami").await.ok()["id"].as_str().expect("an id").to_owned();
    admin.patch(&format!("/latest/user/{id}"), &rights).await.ok();
    (id, token)
}

/// One of each who ask.
async fn tokens(server: &Server, admin: &Http, name: &str) -> Tokens {
    let (_, newcomer) = user(server, admin, &format!("new-{name}"), json!({"is_verified": false})).await;
    let (_, superuser) = user(server, admin, &format!("super-{name}"), json!({"is_superuser": true})).await;
    let reader = json!({"name": "reader", "scopes": ["read"]});
    let reader = admin.with(&superuser).post("/latest/user/tokens", &reader).await.ok();
    let reader = reader["token"].as_str().expect("a token").to_owned();
    let former = server.token_for(-10).await;
    Tokens(BTreeMap::from([
        (Who::Former, former),
        (Who::Newcomer, newcomer),
        (Who::Reader, reader),
        (Who::Superuser, superuser),
    ]))
}

/// Makes what an operation may stumble over, for it alone: what it does to it in the first round is done.
async fn make(server: &Server, admin: &Http, name: String) -> There {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let made = admin.post("/latest/node", &node("checkout", &name)).await.ok();
    let group = admin.post("/latest/group", &json!({"name": name})).await.ok();
    let (user, token) = user(server, admin, &name, json!({"groups": [name]})).await;
    let subscribe = format!("/latest/subscribe/there?subscriber_id={name}");
    admin.with(&token).post(&subscribe, &Value::Null).await.ok();
    let others =
        admin.with(&token).post("/latest/user/tokens", &json!({"name": name, "scopes": ["read"]})).await;
    There {
        node: text(&made["id"]),
        user,
        group: text(&group["id"]),
        token: text(&others.ok()["id"]),
        spent: server.token_for(-10).await,
        name,
        channel: "there".into(),
    }
}

/// What has to be among the answers, of what the table says of an operation.
fn expected(operation: &Operation) -> BTreeSet<(Way, u16)> {
    let mut ways: Vec<Way> = (0..operation.routes.len()).map(Way::Rest).collect();
    ways.extend([Way::Rpc, Way::Session]);
    let mut all = BTreeSet::new();
    for way in ways {
        let mut add = |status| _ = all.insert((way, status));
        match operation.access {
            Access::Open | Access::Read => {}
            Access::Active => add(401),
            Access::Verified | Access::Superuser => [401, 403].into_iter().for_each(add),
        }
        if matches!(operation.effect, Effect::Writes) {
            all.insert((way, 403));
        }
        if is_limited(operation, way) {
            all.insert((way, 413));
        }
    }
    all
}

#[apply(both_backends_in_pairs!)]
async fn a_refusal_leaves_nothing_behind(backend: Backend) {
    let settings = [("KEEP_ALIVE_PERIOD", "1"), ("LOG", "warn")];
    let server = Server::start_with(backend, &[&settings[..], &ONE_OF_EACH].concat()).await;
    let admin = Http::admin(&server).await;
    admin.post("/latest/publish/there", &json!({"data": 1})).await.ok();
    let (table, names): (Table, Names) = (table(), Names::default());
    let mut all = Vec::new();
    for (operation, seed) in table.iter().zip(0..) {
        let (asks, tokens, statuses) = (Vec::new(), Tokens::default(), BTreeSet::new());
        all.push(Asked { operation, seed, tokens, asks, statuses });
    }
    stream::iter(&mut all)
        .for_each_concurrent(AT_ONCE, async |asked| first_round(&server, &admin, &names, asked).await)
        .await;
    let before = at_rest(&server, At::All).await;
    let threads = entries(&server, "task");
    stream::iter(&mut all)
        .for_each_concurrent(AT_ONCE, async |asked| next_round(&server, &names, asked).await)
        .await;
    let asked: usize = all.iter().map(|asked| asked.asks.len()).sum();
    if let Err(changed) = is_back(&server, At::All, &before).await {
        println!("{asked} requests leave {changed}");
        // By whom? As long as there is time.
        for asked in &mut all {
            let before = at_rest(&server, At::All).await;
            next_round(&server, &names, asked).await;
            if let Err(changed) = is_back(&server, At::All, &before).await {
                println!("{} leaves {changed}", asked.operation.name);
            }
        }
        panic!("{asked} requests leave {changed}");
    }
    eventually("no thread is left", async || entries(&server, "task") <= threads).await;
    // What depends on what there is, for as many operations as there are now.
    for (status, least) in [(404, 20), (409, 3), (429, 2)] {
        let refused = |asked: &&Asked<'_>| asked.statuses.iter().any(|(_, other)| *other == status);
        let names: Vec<&str> = all.iter().filter(refused).map(|asked| asked.operation.name).collect();
        println!("{status}: {names:?}");
        assert!(names.len() >= least, "{status}: {names:?}");
    }
    let missing = all.iter().filter_map(|Asked { operation, statuses, .. }| {
        let missing: BTreeSet<_> = expected(operation).difference(statuses).copied().collect();
        let finds_mistakes = statuses.iter().any(|(_, status)| *status == 422);
        (!missing.is_empty() || !finds_mistakes)
            .then(|| format!("{}: {missing:?} is missing in {statuses:?}", operation.name))
    });
    let missing: Vec<String> = missing.collect();
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}
