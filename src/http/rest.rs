//! From a REST request to an operation and back. Nothing here knows any operation in particular.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::{Body as HttpBody, to_bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use serde_json::{Map, Value};

use super::BODY;
use super::answer::{failed, json};
use super::validation::{self, Origin};
use crate::app::App;
use crate::error::{Error, Kind, Result};
use crate::ops::{Body, Context, Operation, Route};
use crate::rpc::{MOST_DEPTH, depth_exceeds};
use crate::session::credentials;

/// The handler of a route.
pub(super) fn handler(operation: &'static str, route: Route) -> MethodRouter<Arc<App>> {
    let filter = MethodFilter::try_from(route.method.clone()).unwrap_or(MethodFilter::GET);
    on(
        filter,
        async move |State(app): State<Arc<App>>,
                    Path(path): Path<Vec<(String, String)>>,
                    Query(query): Query<Vec<(String, String)>>,
                    request: Request| {
            answer(app, operation, &route, path, query, request)
                .await
                .unwrap_or_else(|error| failed(operation, &error))
        },
    )
}

async fn answer(
    app: Arc<App>,
    operation: &'static str,
    route: &Route,
    path: Vec<(String, String)>,
    query: Vec<(String, String)>,
    request: Request,
) -> Result<Response> {
    let operation = app.table.get(operation)?;
    let (parts, body) = request.into_parts();
    // The order of checks is KernelCI's (contract 1.5): the syntax of the body, then who asks, then the rest.
    let mut params = read_body(route, body).await?;
    let caller = credentials(&app, &parts.headers).await?.caller.unwrap_or_default();
    let mut with_revision = false;
    let mut origins: HashMap<String, Origin> = HashMap::new();
    let path = path.into_iter().map(|parameter| (parameter, Origin::Path));
    for ((name, text), origin) in path.chain(query.into_iter().map(|parameter| (parameter, Origin::Query))) {
        if name == "revision" && operation.param_type("revision").is_none() {
            with_revision = text == "true";
            continue;
        }
        let value = coerce(operation, &name, &text).map_err(|error| {
            let given = Map::from_iter([(name.clone(), text.into())]);
            validation::listed(error, &given, |_| origin)
        })?;
        params.insert(name.clone(), value);
        origins.insert(name, origin);
    }
    if let Some(revision) = if_match(operation, &parts.headers)? {
        params.insert("if_revision".into(), revision.into());
    }
    let context = Context::new(app.clone(), caller, None);
    let params = Value::Object(params);
    match operation.call(context, &params.to_string()).await {
        Ok(reply) => {
            let reply = reply.rest(with_revision)?;
            let mut response = json(StatusCode::OK, reply.body);
            if let Some(revision) = reply.revision {
                let etag = HeaderValue::try_from(format!("\"{revision}\"")).map_err(Error::internal)?;
                response.headers_mut().insert(header::ETAG, etag);
            }
            Ok(response.into_response())
        }
        Err(error) if route.missing_is_null && error.kind() == Kind::NotFound => {
            Ok(json(StatusCode::OK, "null".into()))
        }
        Err(error) => {
            let empty = Map::new();
            let origin = |name: &str| origins.get(name).copied().unwrap_or(Origin::Body);
            Err(validation::listed(error, params.as_object().unwrap_or(&empty), origin))
        }
    }
}

async fn read_body(route: &Route, body: HttpBody) -> Result<Map<String, Value>> {
    if route.body == Body::None {
        return Ok(Map::new());
    }
    let too_large = |_| Error::new(Kind::TooLarge, format!("a request body has at most {BODY} bytes"));
    let bytes = to_bytes(body, BODY).await.map_err(too_large)?;
    if route.body == Body::Form {
        let fields = url::form_urlencoded::parse(&bytes);
        return Ok(fields.map(|(name, value)| (name.into_owned(), value.into_owned().into())).collect());
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| Error::invalid("body", "expected UTF-8"))?;
    if depth_exceeds(text, MOST_DEPTH) {
        return Err(Error::invalid("body", format!("nested deeper than {MOST_DEPTH} levels")));
    }
    let value: Value = serde_json::from_str(text).map_err(|error| validation::not_json(&error))?;
    match (route.body, value) {
        (Body::Under(name), value) => Ok(Map::from_iter([(name.to_owned(), value)])),
        (_, Value::Object(params)) => Ok(params),
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
