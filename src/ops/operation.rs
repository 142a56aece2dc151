//! What an operation is, and the table that holds them.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::runtime::Handle;
use tracing::Instrument;

use super::schema::Described;
use super::{Context, Route, fingerprint, patterns};
use crate::auth::{Access, Effect};
use crate::error::{Error, Kind, Result};
use crate::health::Part;
use crate::quota::neighbourhood;
use crate::sync::apart;

/// What an operation answers, before a transport has put it into its form.
pub trait Reply: Send {
    /// About how many bytes its text will have, if that may be many.
    fn weight(&self) -> usize {
        0
    }
    /// The `result` of a JSON-RPC answer, as JSON text.
    fn rpc(&self) -> Result<String>;
    /// The body of a REST answer: the result, or one `member` of it. `with_revision`: the caller wants `revision` in
    /// the body.
    fn rest(self: Box<Self>, member: Option<&str>, with_revision: bool) -> Result<RestReply>;
}

/// The `result` of a JSON-RPC answer, as JSON text; a long one is made apart from the async threads.
pub async fn rpc_text(reply: Box<dyn Reply>) -> Result<String> {
    apart(reply.weight(), move || reply.rpc()).await
}

/// A REST answer.
pub struct RestReply {
    /// JSON.
    pub body: RestBody,
    /// Becomes the `ETag`.
    pub revision: Option<u64>,
}

/// The JSON text of a REST answer.
pub enum RestBody {
    /// At once.
    Whole(String),
    /// At once, and not all that was asked for: the result says that it is `truncated`.
    Cut(String),
    /// Piece by piece, so that an answer may be larger than what memory should hold. A piece that fails ends the
    /// connection, which is how HTTP says that a body is not complete.
    Pieces(BoxStream<'static, Result<String>>),
}

/// The parameters of an operation.
pub enum Params<'a> {
    /// As JSON text.
    Text(&'a str),
    /// The same, for work that goes on by itself.
    Owned(String),
    /// As a value: an object.
    Value(Value),
}

impl Params<'_> {
    fn into_owned(self) -> Params<'static> {
        match self {
            Params::Text(text) => Params::Owned(text.to_owned()),
            Params::Owned(text) => Params::Owned(text),
            Params::Value(value) => Params::Value(value),
        }
    }
}

impl<T: Serialize + Send> Reply for T {
    fn rpc(&self) -> Result<String> {
        serde_json::to_string(self).map_err(Error::internal)
    }
    /// What it holds may be a client's own, and is left alone: only answers that are nodes know of revisions.
    fn rest(self: Box<Self>, member: Option<&str>, _with_revision: bool) -> Result<RestReply> {
        let mut body = serde_json::to_value(*self).map_err(Error::internal)?;
        let cut = body.get("truncated").is_some_and(|truncated| *truncated == Value::Bool(true));
        if let Some(member) = member {
            body = body.get_mut(member).map(Value::take).unwrap_or_default();
        }
        let text = body.to_string();
        let body = if cut { RestBody::Cut(text) } else { RestBody::Whole(text) };
        Ok(RestReply { body, revision: None })
    }
}

type Look = Arc<dyn Fn(Context, String) -> BoxFuture<'static, Result<()>> + Send + Sync>;
type Run = Arc<dyn Fn(Context, Params<'_>) -> BoxFuture<'static, Result<Box<dyn Reply>>> + Send + Sync>;

/// One operation.
pub struct Operation {
    /// As WebSocket clients call it, e.g. `node.get`.
    pub name: &'static str,
    /// Who may call it.
    pub access: Access,
    /// What it does: which tokens may call it.
    pub effect: Effect,
    /// One sentence for the documentation.
    pub summary: &'static str,
    /// REST routes that map onto it.
    pub routes: Vec<Route>,
    /// The parameters, for documents.
    pub takes: Described,
    /// The result, for documents.
    pub gives: Described,
    /// Its answers may be megabytes: a session has few of them at a time.
    pub large: bool,
    /// Takes next to no time until all that is left is to wait: a session does it as soon as it is read, also beyond the
    /// limit of requests at a time.
    pub quick: bool,
    /// Takes many things at once: a request may be many times larger than others.
    pub takes_much: bool,
    /// It is told secrets that stand for a user (passwords, mailed tokens), or tells them: foreign pages have no part in
    /// it, and nobody keeps its answers.
    pub secret: bool,
    /// Ends with whoever asked for it, though it writes: it waits for something, and takes nothing before it has it.
    waits: bool,
    /// It has a filter, which may have regular expressions.
    takes_filter: bool,
    /// Schema of the parameters.
    params: Schema,
    /// What it cannot do without.
    needs: &'static [Part],
    /// Looks at what the path of a request names, if that matters before the rest of it.
    look: Option<Look>,
    run: Run,
}

impl Operation {
    /// Checks access, reads the parameters (an object) and runs the operation. When whoever asked has gone (this is
    /// dropped), a read ends and a write runs on, and is waited for at shutdown: nothing is written by halves.
    pub async fn call(&self, context: Context, params: Params<'_>) -> Result<Box<dyn Reply>> {
        context.caller.check(self.access, context.app.config.anonymous_read)?;
        context.caller.check_scope(self.effect)?;
        if self.secret {
            context.peer.may_bring_secrets(context.caller.token.is_some())?;
        }
        let app = context.app.clone();
        if let Some(token) = &context.caller.token
            && token.named.is_none()
            && !self.quick
        {
            app.known_addresses.note(token.user, neighbourhood(context.peer.address));
        }
        // Until the operation has read its filter.
        let _patterns = match self.takes_filter {
            true => patterns::compile(&app, context.holder(), patterns::in_params(&params)?).await?,
            false => Vec::new(),
        };
        let (needs, tasks) = (self.needs(), app.work.clone());
        // It goes with the work: writes run on, and are as many as there may be also when nobody waits for them.
        let place = if self.runs_on() { Some(app.quotas.writes.take(context.holder(), 1)?) } else { None };
        if context.is_heavy() {
            // Megabytes of parameters are read, worked on and dropped on a thread of their own.
            let (run, params, runtime) = (self.run.clone(), params.into_owned(), Handle::current());
            let work = async move {
                let _place = place;
                app.health.serve(needs, run(context, params)).await
            };
            let work = work.in_current_span();
            return tasks.spawn_blocking(move || runtime.block_on(work)).await.map_err(Error::internal)?;
        }
        let work = (self.run)(context, params);
        if !self.runs_on() {
            return app.health.serve(needs, work).await;
        }
        let work = async move {
            let _place = place;
            app.health.serve(needs, work).await
        };
        tasks.spawn(work.in_current_span()).await.map_err(Error::internal)?
    }

    /// Whether a request by this route may be many times larger than others.
    pub fn takes_much_by(&self, route: &Route) -> bool {
        self.takes_much || route.takes_much
    }

    /// The parts of the server that it cannot do without: whatever writes to the store has to be able to.
    fn needs(&self) -> &'static [Part] {
        match self.needs {
            [Part::Store] if self.effect != Effect::Reads => &[Part::Store, Part::Writes],
            needs => needs,
        }
    }

    fn runs_on(&self) -> bool {
        // What is quick acts on the session, in the order in which it comes.
        self.effect != Effect::Reads && !self.waits && !self.quick
    }

    /// Fails if what a request's path names cannot be, for a request that is wrong otherwise, too.
    pub async fn look_at(&self, context: &Context, id: &str) -> Result<()> {
        let Some(look) = &self.look else { return Ok(()) };
        context.app.health.serve(self.needs, look(context.clone(), id.to_owned())).await
    }

    /// The JSON Schema of the parameters.
    pub fn schema(&self) -> &Value {
        self.params.as_value()
    }

    /// Whether the operation has a parameter of this name.
    pub fn has_param(&self, name: &str) -> bool {
        has_property(&self.params, name)
    }

    /// Whether the operation has any parameters.
    pub fn takes_any(&self) -> bool {
        self.params.as_value()["properties"].as_object().is_some_and(|all| !all.is_empty())
    }
}

fn has_property(schema: &Schema, name: &str) -> bool {
    schema.as_value().get("properties").is_some_and(|all| all.get(name).is_some())
}

/// All operations, by name.
pub struct Table {
    operations: Vec<Operation>,
    by_name: HashMap<&'static str, usize>,
}

impl Table {
    pub(super) fn new() -> Table {
        Table { operations: Vec::new(), by_name: HashMap::new() }
    }

    /// Adds an operation. `P` refuses unknown parameters by name (`#[serde(deny_unknown_fields)]`).
    pub(super) fn op<P, R, F, Fut>(
        mut self,
        name: &'static str,
        access: Access,
        summary: &'static str,
        function: F,
    ) -> Table
    where
        P: DeserializeOwned + JsonSchema + Send + 'static,
        R: Reply + JsonSchema + 'static,
        F: Fn(Context, P) -> Fut + Copy + Send + Sync + 'static,
        Fut: Future<Output = Result<R>> + Send + 'static,
    {
        let schema = SchemaGenerator::default().into_root_schema_for::<P>();
        let takes_key = has_property(&schema, fingerprint::KEY);
        let run: Run = Arc::new(move |context, params| {
            let context = if takes_key { context.asking_for(fingerprint::of(&params)) } else { context };
            match read_params::<P>(params) {
                Ok(params) => Box::pin(async move {
                    let reply = function(context, params).await?;
                    Ok(Box::new(reply) as Box<dyn Reply>)
                }),
                Err(error) => Box::pin(std::future::ready(Err(error))),
            }
        });
        let mut operation = Operation {
            name,
            access,
            effect: Effect::of(access),
            summary,
            routes: Vec::new(),
            takes: Described::of::<P>(),
            gives: Described::of::<R>(),
            params: schema,
            large: false,
            quick: false,
            waits: false,
            takes_much: false,
            secret: false,
            takes_filter: false,
            needs: &[Part::Store],
            look: None,
            run,
        };
        operation.takes_filter = operation.has_param("filter");
        self.by_name.insert(name, self.operations.len());
        self.operations.push(operation);
        self
    }

    /// Says that the answers of the operation added last may be large ([`Operation::large`]).
    pub(super) fn large(mut self) -> Table {
        if let Some(operation) = self.operations.last_mut() {
            operation.large = true;
        }
        self
    }

    /// Says that the operation added last takes no time ([`Operation::quick`]).
    pub(super) fn quick(mut self) -> Table {
        if let Some(operation) = self.operations.last_mut() {
            operation.quick = true;
        }
        self
    }

    /// Says that the operation added last takes many things at once.
    pub(super) fn takes_much(mut self) -> Table {
        if let Some(operation) = self.operations.last_mut() {
            operation.takes_much = true;
        }
        self
    }

    /// Says that the operation added last has to do with secrets ([`Operation::secret`]).
    pub(super) fn secret(mut self) -> Table {
        if let Some(operation) = self.operations.last_mut() {
            operation.secret = true;
        }
        self
    }

    /// Says that the operation added last waits, and ends with whoever asked for it.
    pub(super) fn waits(mut self) -> Table {
        if let Some(operation) = self.operations.last_mut() {
            operation.waits = true;
        }
        self
    }

    /// Whether the node that the path names is there, and the caller's to edit, matters to the operation added last before
    /// anything else that is wrong with a request (contract 1.5). This asks for it.
    pub(super) fn of_a_node<Fut>(mut self, look: fn(Context, String) -> Fut) -> Table
    where
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        if let Some(operation) = self.operations.last_mut() {
            operation.look = Some(Arc::new(move |context, id| Box::pin(look(context, id))));
        }
        self
    }

    /// Says what the operation added last cannot do without, if that is not the store alone.
    pub(super) fn needs(mut self, parts: &'static [Part]) -> Table {
        if let Some(operation) = self.operations.last_mut() {
            operation.needs = parts;
        }
        self
    }

    /// The operation added last only looks, whatever its access rule lets expect.
    pub(super) fn reads(self) -> Table {
        self.effect(Effect::Reads)
    }

    /// The operation added last writes nodes, and asks for each whether the caller's token covers it.
    pub(super) fn writes_nodes(self) -> Table {
        self.effect(Effect::WritesNodes)
    }

    fn effect(mut self, effect: Effect) -> Table {
        if let Some(operation) = self.operations.last_mut() {
            operation.effect = effect;
        }
        self
    }

    /// Maps a REST method and path onto the operation added last.
    pub(super) fn route(mut self, route: Route) -> Table {
        if let Some(operation) = self.operations.last_mut() {
            operation.routes.push(route);
        }
        self
    }

    /// Says what the free JSON looks like that the operation added last answers with.
    pub(super) fn gives<T: JsonSchema>(mut self) -> Table {
        if let Some(operation) = self.operations.last_mut() {
            operation.gives = Described::of::<T>();
        }
        self
    }

    /// The operation of this name.
    pub fn get(&self, name: &str) -> Result<&Operation> {
        match self.by_name.get(name) {
            Some(&index) => Ok(&self.operations[index]),
            None => {
                let shown: String = name.chars().take(64).collect();
                Err(Error::new(Kind::UnknownMethod, format!("there is no method {shown:?}")))
            }
        }
    }

    /// This name if an operation has it, else `unknown`: what metrics may say of names that clients choose.
    pub fn known_name(&self, name: &str) -> &'static str {
        self.by_name.get_key_value(name).map_or("unknown", |(name, _)| *name)
    }

    /// All operations in the order of the table.
    pub fn iter(&self) -> impl Iterator<Item = &Operation> {
        self.operations.iter()
    }
}

fn read_params<P: DeserializeOwned>(params: Params<'_>) -> Result<P> {
    match params {
        Params::Owned(text) => read_params(Params::Text(&text)),
        Params::Text(text) if text.trim_start().starts_with('{') => {
            let mut reader = serde_json::Deserializer::from_str(text);
            let params = serde_path_to_error::deserialize(&mut reader).map_err(unreadable)?;
            reader.end().map_err(|error| Error::invalid("params", error))?;
            Ok(params)
        }
        Params::Value(Value::Object(params)) => {
            serde_path_to_error::deserialize(Value::Object(params)).map_err(unreadable)
        }
        _ => Err(Error::new(Kind::InvalidParams, "params: expected an object of named parameters")),
    }
}

fn unreadable(error: serde_path_to_error::Error<serde_json::Error>) -> Error {
    let path = error.path().to_string();
    let text = error.inner().to_string();
    // The position counts in our rendering of the parameters, which the caller never saw.
    let text = text.split(" at line ").next().unwrap_or(&text);
    Error::invalid(if path == "." { "params" } else { &path }, text)
}

/// Parameters of an operation that has none.
#[derive(serde::Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct NoParams {}

/// A JSON object of any content.
pub type Object = Map<String, Value>;
