//! From a REST request to an operation and back. Nothing here knows any operation in particular.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Body as HttpBody;
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use bytes::Bytes;
use futures::TryStreamExt;
use serde_json::{Map, Value};

use super::answer::{failed, json, unkept};
use super::body::{self, Held, Turn};
use super::connections;
use super::form;
use super::handover::watched;
use super::peer;
use super::validation::{self, Given, Origin, Sent};
use crate::app::App;
use crate::auth::{Access, Caller, tokens};
use crate::error::{Error, Kind, Result};
use crate::metrics;
use crate::ops::{Answer, Body, Context, Handover, Operation, Params, Peer, Reply, RestBody, Route};
use crate::quota::json::Shape;
use crate::quota::{self, Holder, Place};
use crate::session::credentials;
use crate::sync::{apart, in_place_if, lock};

/// Says that an answer is not all that was asked for.
const TRUNCATED: &str = "x-total-truncated";

/// The handler of a route.
pub(super) fn handler(operation: &'static str, route: Route) -> MethodRouter<Arc<App>> {
    let filter = MethodFilter::try_from(route.method.clone()).unwrap_or(MethodFilter::GET);
    on(
        filter,
        async move |State(app): State<Arc<App>>,
                    peer::From(peer): peer::From,
                    Path(path): Path<Vec<(String, String)>>,
                    RawQuery(query): RawQuery,
                    request: Request| {
            let asked = Asked { path, query: query.unwrap_or_default(), peer };
            let is_secret = app.table.get(operation).is_ok_and(|operation| operation.secret);
            let answer = answer(app, operation, &route, asked, request);
            let answer = metrics::timed(metrics::Transport::Rest, operation, route.status, answer).await;
            let response = answer.unwrap_or_else(|error| failed(operation, &error));
            if is_secret { unkept(response) } else { response }
        },
    )
}

/// What a request says besides its headers and its body.
struct Asked {
    path: Vec<(String, String)>,
    query: String,
    peer: Arc<Peer>,
}

async fn answer(
    app: Arc<App>,
    operation: &'static str,
    route: &Route,
    asked: Asked,
    request: Request,
) -> Result<Response> {
    let operation = app.table.get(operation)?;
    let (parts, body) = request.into_parts();
    // The order of checks is KernelCI's (contract 1.5): the syntax of the body, then who asks, then the rest.
    let caller = admit(&app, operation, &asked.peer, &parts.headers).await;
    let sender = Holder::of(caller.as_ref().unwrap_or(&Caller::default()), asked.peer.address);
    let most = app.config.quotas.bodies().of(operation, route);
    // Whoever is not known has a message's worth of values, whatever the route.
    let shape = if operation.takes_much_by(route) && caller.is_ok() { Shape::Large } else { Shape::Message };
    let (body, turn) = match read_body(&app, sender, (route, most, shape), &parts.headers, body).await {
        Err(error) if matches!(error.kind(), Kind::TooLarge | Kind::TooMany) => {
            return Err(caller.err().unwrap_or(error));
        }
        body => body?,
    };
    let caller = caller?;
    connections::belongs_to(&parts.extensions, &caller);
    let heavy = turn.is_some();
    let (params, sent) = in_place_if(heavy, || parameters(route, operation, body))?;
    let mut given = Given { route, params, origins: HashMap::new(), sent };
    let with_revision = add(&mut given, operation, &asked);
    add_headers(&mut given, operation, &parts.headers)?;
    let holder = Holder::of(&caller, asked.peer.address);
    let context = Context::new(app.clone(), caller, asked.peer.clone(), None);
    let context = context
        .with_bearer(tokens::bearer(&parts.headers))
        .heavy(turn)
        .carrying(parts.extensions.get::<Held>().cloned());
    if let Err(error) = in_place_if(heavy, || given.read(operation)) {
        // What the path names comes before what is wrong with query and body (contract 1.5).
        let named = asked.path.iter().find(|(name, _)| name == "id").map_or("", |(_, id)| id);
        operation.look_at(&context, named).await?;
        return Err(error);
    }
    let handover = context.handover();
    let params = given.take();
    match operation.call(context, Params::Value(Value::Object(params))).await {
        Ok(reply) => {
            let (response, counted) = succeeded(&app, holder, route, reply, with_revision).await?;
            let counted = counted.map(|place| Handover::new(move |_| drop(place)));
            let handover = lock(&handover).take();
            Ok(watched(watched(response, handover, &parts.extensions), counted, &parts.extensions))
        }
        Err(error) if route.answer == Answer::OrNull && error.kind() == Kind::NotFound => {
            Ok(json(StatusCode::OK, "null".into()))
        }
        Err(error) => Err(given.listed(error)),
    }
}

/// Who asks, if they may use the operation. Where everybody may, a token that is no good any more does not matter: the
/// old server never looked at it there.
async fn admit(app: &App, operation: &Operation, peer: &Peer, headers: &HeaderMap) -> Result<Caller> {
    let anonymous_read = app.config.anonymous_read;
    let caller = match credentials(app, peer, headers).await {
        Ok(caller) => caller.unwrap_or_default(),
        Err(error) => {
            let open =
                operation.access == Access::Open || (operation.access == Access::Read && anonymous_read);
            if !open || error.kind() != Kind::Unauthorized {
                return Err(error);
            }
            Caller::default()
        }
    };
    caller.check(operation.access, anonymous_read)?;
    Ok(caller)
}

/// Adds the parameters of the query, the path and the route to those of the body, as they were written; whether the
/// caller wants `revision` in the body of the answer. Secrets come in bodies only.
fn add(given: &mut Given<'_>, operation: &Operation, asked: &Asked) -> bool {
    let query = url::form_urlencoded::parse(asked.query.as_bytes()).map(|pair| (pair, Origin::Query));
    let path = asked.path.iter().map(|(name, text)| ((name.into(), text.into()), Origin::Path));
    let mut conditions = url::form_urlencoded::Serializer::new(String::new());
    let mut with_revision = false;
    for ((name, text), origin) in query.chain(path) {
        if name == "revision" && !operation.has_param("revision") {
            with_revision = text == "true";
            continue;
        }
        if let (Some(own), Origin::Query) = (given.route.filter_beside, origin)
            && !own.contains(&&*name)
        {
            conditions.append_pair(&name, &text);
            continue;
        }
        let name = given.route.param(&name).to_owned();
        // Addresses are kept in logs, histories and `Referer`.
        if validation::is_secret(&name) {
            continue;
        }
        let in_body = given.params.contains_key(&name) && !given.origins.contains_key(&name);
        if !operation.has_param(&name) || (in_body && origin == Origin::Query) {
            continue;
        }
        given.sent.note(&name, &text);
        given.params.insert(name.clone(), text.into());
        given.origins.insert(name, origin);
    }
    if given.route.filter_beside.is_some() {
        given.params.insert("filter".into(), conditions.finish().into());
        given.origins.insert("filter".into(), Origin::Query);
    }
    for (name, value) in &given.route.fixed {
        given.params.insert((*name).to_owned(), value.clone());
    }
    for (name, value) in &given.route.defaults {
        // As KernelCI has it, text that is blank says nothing.
        let says = |given: &Value| !given.as_str().is_some_and(|text| matches!(text.trim(), "" | "null"));
        if !given.params.get(*name).is_some_and(says) {
            given.params.insert((*name).to_owned(), value.clone());
        }
    }
    with_revision
}

/// `If-Match` is `if_revision` and `Idempotency-Key` is `idempotency_key`, where the operation has them.
fn add_headers(given: &mut Given<'_>, operation: &Operation, headers: &HeaderMap) -> Result<()> {
    if let Some(value) = headers.get(header::IF_MATCH)
        && operation.has_param("if_revision")
    {
        let revision = value.to_str().ok().and_then(|text| text.trim().trim_matches('"').parse::<u64>().ok());
        let bad = || Error::bad_request("If-Match: expected the ETag of the node, as \"7\"");
        given.params.insert("if_revision".into(), revision.ok_or_else(bad)?.into());
    }
    if let Some(value) = headers.get("idempotency-key")
        && operation.has_param("idempotency_key")
    {
        let bad = |_| Error::bad_request("Idempotency-Key: expected 1 to 128 visible ASCII characters");
        given.params.insert("idempotency_key".into(), value.to_str().map_err(bad)?.into());
    }
    Ok(())
}

/// The answer, with its place among the large ones if it is large.
async fn succeeded(
    app: &App,
    holder: Holder,
    route: &Route,
    reply: Box<dyn Reply>,
    with_revision: bool,
) -> Result<(Response, Option<Place>)> {
    let status = StatusCode::from_u16(route.status).unwrap_or(StatusCode::OK);
    let member = match route.answer {
        Answer::Empty => return Ok((status.into_response(), None)),
        Answer::Null => return Ok((json(status, "null".into()), None)),
        Answer::Member(name) => Some(name),
        Answer::Whole | Answer::OrNull => None,
    };
    let reply = apart(reply.weight(), move || reply.rest(member, with_revision)).await?;
    let (mut counted, cut) = (None, matches!(reply.body, RestBody::Cut(_)));
    let mut response = match reply.body {
        RestBody::Whole(text) | RestBody::Cut(text) => {
            let (text, place) = app.quotas.count(holder, Ok(text));
            counted = place;
            json(status, text?)
        }
        RestBody::Pieces(pieces) => {
            let pieces = pieces.map_ok(Bytes::from).inspect_err(|error| error.log("an answer in pieces"));
            let body = HttpBody::from_stream(pieces);
            (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
        }
    };
    if cut {
        response.headers_mut().insert(TRUNCATED, HeaderValue::from_static("true"));
    }
    if let Some(revision) = reply.revision {
        let etag = HeaderValue::try_from(format!("\"{revision}\"")).map_err(Error::internal)?;
        response.headers_mut().insert(header::ETAG, etag);
    }
    Ok((response, counted))
}

/// What the body of a request says.
pub(super) enum Read {
    Json(Value),
    Form(Vec<(String, String)>),
    Nothing,
}

/// Reads the body whatever its content type says: clients of KernelCI mean JSON where JSON is expected. With a large
/// body comes its turn, which ends when it is dropped.
async fn read_body(
    app: &App,
    sender: Holder,
    (route, most, shape): (&Route, usize, Shape),
    headers: &HeaderMap,
    body: HttpBody,
) -> Result<(Read, Option<Turn>)> {
    if route.body == Body::None {
        return Ok((Read::Nothing, None));
    }
    let bytes = body::whole(body, most).await?;
    if route.body == Body::Form {
        return Ok((Read::Form(form::read(headers, bytes).await?), None));
    }
    if matches!(route.body, Body::Text(_)) && (!says_json(headers) || is_bare(&bytes)) {
        return Ok((Read::Json(utf8(&bytes)?.into()), None));
    }
    let turn = body::turn(app, sender, quota::json::weight(&bytes)).await?;
    let Some(turn) = turn else { return Ok((parse(&bytes, shape)?, None)) };
    // The turn goes with the work: whoever asked for it may be gone before it is done.
    let work = move || (parse(&bytes, shape), turn);
    let (read, turn) = tokio::task::spawn_blocking(work).await.map_err(Error::internal)?;
    Ok((read?, Some(turn)))
}

fn says_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || kind.ends_with("+json")
}

/// Text without quotes that is no JSON: kernelci-core sends values like that and calls them JSON (contract 7.1).
pub(super) fn is_bare(body: &[u8]) -> bool {
    let word = body.trim_ascii();
    !word.is_empty()
        && !word.starts_with(b"\"")
        && !word.starts_with(b"{")
        && !word.starts_with(b"[")
        && serde_json::from_slice::<serde::de::IgnoredAny>(word).is_err()
}

fn utf8(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes)
        .map_err(|_| Error::bad_request("There was an error parsing the body: it is not UTF-8"))
}

pub(super) fn parse(bytes: &[u8], shape: Shape) -> Result<Read> {
    let text = utf8(bytes)?;
    if text.is_empty() {
        return Ok(Read::Json(Value::Null));
    }
    if let Err(excess) = shape.check(text) {
        return Err(validation::bad_body(&excess.to_string()));
    }
    serde_json::from_str(text).map(Read::Json).map_err(|error| validation::not_json(text, &error))
}

/// The parameters that the body gives, where names that are none are passed over; and what it says.
fn parameters(route: &Route, operation: &Operation, body: Read) -> Result<(Map<String, Value>, Sent)> {
    let known = |name: &String| operation.has_param(route.param(name));
    let named = |(name, value): (String, Value)| (route.param(&name).to_owned(), value);
    match (route.body, body) {
        (_, Read::Nothing) => Ok(Default::default()),
        (_, Read::Form(fields)) => {
            let fields: Map<String, Value> =
                fields.into_iter().map(|(name, text)| (name, text.into())).collect();
            let sent = Sent::members(&fields);
            Ok((fields.into_iter().filter(|(name, _)| known(name)).map(named).collect(), sent))
        }
        (Body::Text(_), Read::Json(Value::Null)) => Ok(Default::default()),
        (Body::Under(name) | Body::Text(name), Read::Json(value)) => {
            let sent = Sent::whole(name, &value);
            Ok((Map::from_iter([(name.to_owned(), value)]), sent))
        }
        (_, Read::Json(Value::Object(params))) => {
            let sent = Sent::members(&params);
            Ok((params.into_iter().filter(|(name, _)| known(name)).map(named).collect(), sent))
        }
        (_, Read::Json(other)) => Err(validation::not_a_body(&other)),
    }
}
