//! From a REST request to an operation and back. Nothing here knows any operation in particular.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::{Body as HttpBody, to_bytes};
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use serde_json::{Map, Value};

use super::answer::{failed, json};
use super::body::{BODY, incomplete};
use super::peer;
use super::validation::{self, Origin};
use crate::app::App;
use crate::error::{Error, Kind, Result};
use crate::metrics;
use crate::ops::{Answer, Body, Context, Operation, Peer, Reply, Route};
use crate::rpc::{MOST_DEPTH, depth_exceeds};
use crate::session::credentials;

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
            let answer = answer(app, operation, &route, asked, request);
            metrics::timed(metrics::Transport::Rest, operation, route.status, answer)
                .await
                .unwrap_or_else(|error| failed(operation, &error))
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
    let params = read_body(route, operation, body).await?;
    let caller = credentials(&app, &parts.headers).await?.caller.unwrap_or_default();
    let mut read = Parameters { params, origins: HashMap::new(), with_revision: false };
    read.add(route, operation, &asked)?;
    let Parameters { mut params, origins, with_revision } = read;
    if let Some(revision) = if_match(operation, &parts.headers)? {
        params.insert("if_revision".into(), revision.into());
    }
    let context = Context::new(app.clone(), caller, asked.peer, None);
    let params = Value::Object(params);
    match operation.call(context, &params.to_string()).await {
        Ok(reply) => succeeded(route, &*reply, with_revision),
        Err(error) if route.answer == Answer::OrNull && error.kind() == Kind::NotFound => {
            Ok(json(StatusCode::OK, "null".into()))
        }
        Err(error) => {
            let empty = Map::new();
            let origin = |name: &str| origins.get(name).copied().unwrap_or(Origin::Body);
            Err(validation::listed(error, params.as_object().unwrap_or(&empty), origin))
        }
    }
}

/// The parameters of a request, and where each came from.
struct Parameters {
    params: Map<String, Value>,
    origins: HashMap<String, Origin>,
    with_revision: bool,
}

impl Parameters {
    /// Adds those of the query, the path and the route to those of the body.
    fn add(&mut self, route: &Route, operation: &Operation, asked: &Asked) -> Result<()> {
        let query = url::form_urlencoded::parse(asked.query.as_bytes());
        let query = query.map(|pair| (pair, Origin::Query)).collect::<Vec<_>>();
        let path = asked.path.iter().map(|(name, text)| ((name.into(), text.into()), Origin::Path));
        let mut conditions = url::form_urlencoded::Serializer::new(String::new());
        for ((name, text), origin) in query.into_iter().chain(path) {
            if name == "revision" && !operation.has_param("revision") {
                self.with_revision = text == "true";
                continue;
            }
            if let (Some(own), Origin::Query) = (route.filter_beside, origin)
                && !own.contains(&&*name)
            {
                conditions.append_pair(&name, &text);
                continue;
            }
            let in_body = self.params.contains_key(&*name) && !self.origins.contains_key(&*name);
            if !operation.has_param(&name) || (in_body && matches!(origin, Origin::Query)) {
                continue;
            }
            let value = coerce(operation, &name, &text).map_err(|error| {
                let given = Map::from_iter([(name.to_string(), (*text).into())]);
                validation::listed(error, &given, |_| origin)
            })?;
            self.params.insert(name.to_string(), value);
            self.origins.insert(name.into_owned(), origin);
        }
        if route.filter_beside.is_some() {
            self.params.insert("filter".into(), conditions.finish().into());
            self.origins.insert("filter".into(), Origin::Query);
        }
        for (name, value) in &route.fixed {
            self.params.insert((*name).to_owned(), value.clone());
        }
        for (name, value) in &route.defaults {
            self.params.entry(*name).or_insert_with(|| value.clone());
        }
        Ok(())
    }
}

fn succeeded(route: &Route, reply: &dyn Reply, with_revision: bool) -> Result<Response> {
    let status = StatusCode::from_u16(route.status).unwrap_or(StatusCode::OK);
    let member = match route.answer {
        Answer::Empty => return Ok(status.into_response()),
        Answer::Null => return Ok(json(status, "null".into())),
        Answer::Member(name) => Some(name),
        Answer::Whole | Answer::OrNull => None,
    };
    let reply = reply.rest(member, with_revision)?;
    let mut response = json(status, reply.body);
    if let Some(revision) = reply.revision {
        let etag = HeaderValue::try_from(format!("\"{revision}\"")).map_err(Error::internal)?;
        response.headers_mut().insert(header::ETAG, etag);
    }
    Ok(response)
}

async fn read_body(route: &Route, operation: &Operation, body: HttpBody) -> Result<Map<String, Value>> {
    if route.body == Body::None {
        return Ok(Map::new());
    }
    let bytes = to_bytes(body, BODY).await.map_err(|_| incomplete())?;
    if route.body == Body::Form {
        let fields = url::form_urlencoded::parse(&bytes);
        let fields = fields.filter(|(name, _)| operation.has_param(name));
        return Ok(fields.map(|(name, value)| (name.into_owned(), value.into_owned().into())).collect());
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| Error::invalid("body", "expected UTF-8"))?;
    if depth_exceeds(text, MOST_DEPTH) {
        return Err(Error::invalid("body", format!("nested deeper than {MOST_DEPTH} levels")));
    }
    let value: Value = serde_json::from_str(text).map_err(|error| validation::not_json(&error))?;
    match (route.body, value) {
        (Body::Under(name), value) => Ok(Map::from_iter([(name.to_owned(), value)])),
        (_, Value::Object(mut params)) => {
            params.retain(|name, _| operation.has_param(name));
            Ok(params)
        }
        _ => Err(Error::invalid("body", "expected a JSON object")),
    }
}

/// Reads text as what the operation's schema says that the parameter is.
fn coerce(operation: &Operation, name: &str, text: &str) -> Result<Value> {
    match operation.param_type(name) {
        Some("integer") => {
            let number: i64 = text.parse().map_err(|_| Error::invalid(name, "expected an integer"))?;
            Ok(number.into())
        }
        Some("boolean") => match &*text.to_ascii_lowercase() {
            "true" | "t" | "yes" | "y" | "on" | "1" => Ok(true.into()),
            "false" | "f" | "no" | "n" | "off" | "0" => Ok(false.into()),
            _ => Err(Error::invalid(name, "expected true or false")),
        },
        Some("array") => Ok(text.split(',').collect()),
        Some("object") => {
            serde_json::from_str(text).map_err(|_| Error::invalid(name, "expected a JSON object"))
        }
        _ => Ok(text.into()),
    }
}

/// `If-Match` is `if_revision` where the operation has one.
fn if_match(operation: &Operation, headers: &HeaderMap) -> Result<Option<u64>> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    if operation.param_type("if_revision").is_none() {
        return Ok(None);
    }
    let revision = value.to_str().ok().and_then(|text| text.trim().trim_matches('"').parse().ok());
    revision.map(Some).ok_or_else(|| Error::bad_request("If-Match: expected the ETag of the node, as \"7\""))
}
