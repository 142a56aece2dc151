//! Where a route takes the parameters of its operation from: the path, headers, the query, the body.

use serde_json::{Map, Value, json};

use crate::ops::{Body, Operation, Route};

/// Parameters outside the body. `params` is the object schema of the operation's parameters.
pub(super) fn of(operation: &Operation, route: &Route, params: &Value) -> Vec<Value> {
    let in_path = path_names(route.path);
    let mut all: Vec<Value> = in_path
        .iter()
        .map(|name| {
            let schema = params["properties"].get(*name).map_or_else(|| json!({"type": "string"}), plain);
            parameter(name, "path", true, schema)
        })
        .collect();
    if operation.has_param("if_revision") {
        all.push(json!({
            "name": "If-Match", "in": "header", "schema": {"type": "string", "pattern": "^\"?[0-9]+\"?$"},
            "description": "The `ETag` that the node was read with: 409 if it has changed since.",
        }));
    }
    if operation.has_param("idempotency_key") {
        all.push(json!({
            "name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "minLength": 1, "maxLength": 128},
            "description": "Repeated with the same key within a day, the first answer is given again.",
        }));
    }
    for (name, schema) in properties(params) {
        if in_query(route, name) && !in_path.contains(&name) {
            all.push(query(route.alias(name), required(params, name), plain(schema)));
        }
    }
    if route.filter_beside.is_some() {
        all.push(conditions("what is looked for, e.g. `kind=job&data.arch=arm64&created__gt=2026-01-01`"));
    }
    all
}

/// Query parameters of any name that are conditions on something.
pub(super) fn conditions(on: &str) -> Value {
    let about = format!(
        "All other names are conditions on {on}: dotted paths, operators behind `__` (`ne lt lte gt gte in nin re int \
         exists`), lists with commas. All have to hold."
    );
    json!({
        "name": "conditions", "in": "query", "style": "form", "explode": true, "description": about,
        "schema": {"type": "object", "additionalProperties": {"type": "string"}},
    })
}

/// The body, if the route has one.
pub(super) fn body(route: &Route, params: &Value) -> Option<Value> {
    let (kind, schema, must) = match route.body {
        Body::None => return None,
        Body::Under(name) => ("application/json", params["properties"][name].clone(), required(params, name)),
        // Besides JSON any other type: the body as it stands.
        Body::Text(name) => {
            let (schema, must) = (params["properties"][name].clone(), required(params, name));
            let content = json!({
                "application/json": {"schema": schema},
                "text/plain": {"schema": {"type": "string"}},
            });
            return Some(json!({"required": must, "content": content}));
        }
        Body::Params | Body::Form => {
            let in_path = path_names(route.path);
            let fields: Map<String, Value> = properties(params)
                .filter(|(name, _)| !in_path.contains(name) && !is_fixed(route, name))
                .map(|(name, schema)| (route.alias(name).to_owned(), field(route, name, schema)))
                .collect();
            let needed: Vec<&str> = fields
                .keys()
                .map(String::as_str)
                .filter(|name| required(params, route.param(name)))
                .collect();
            let kind = match route.body {
                Body::Form => "application/x-www-form-urlencoded",
                _ => "application/json",
            };
            let must = !needed.is_empty();
            let mut schema = json!({"type": "object", "properties": fields});
            if must {
                schema["required"] = needed.into();
            }
            (kind, schema, must)
        }
    };
    Some(json!({"required": must, "content": {kind: {"schema": schema}}}))
}

/// The schema of a field of the body; text where the route takes nothing else.
fn field(route: &Route, name: &str, schema: &Value) -> Value {
    let mut schema = schema.clone();
    if route.texts.contains(&name) {
        schema["type"] = "string".into();
    }
    schema
}

/// Names of the parameters in a path such as `/node/{id}`.
fn path_names(path: &str) -> Vec<&str> {
    let names = path.split('{').skip(1).filter_map(|part| part.split('}').next());
    names.map(|name| name.trim_start_matches('*')).collect()
}

fn in_query(route: &Route, name: &str) -> bool {
    let own = match route.body {
        Body::Params | Body::Form => false,
        Body::Under(body) | Body::Text(body) => name != body,
        Body::None => route.filter_beside.is_none_or(|own| own.contains(&name)),
    };
    own && !["if_revision", "idempotency_key"].contains(&name) && !is_fixed(route, name)
}

fn is_fixed(route: &Route, name: &str) -> bool {
    route.fixed.iter().any(|(fixed, _)| *fixed == name)
}

fn properties(params: &Value) -> impl Iterator<Item = (&str, &Value)> {
    params["properties"].as_object().into_iter().flatten().map(|(name, schema)| (name.as_str(), schema))
}

fn required(params: &Value, name: &str) -> bool {
    params["required"].as_array().is_some_and(|names| names.iter().any(|needed| needed == name))
}

fn parameter(name: &str, place: &str, required: bool, mut schema: Value) -> Value {
    let mut parameter = json!({"name": name, "in": place, "required": required});
    if let Some(about) = schema.as_object_mut().and_then(|members| members.shift_remove("description")) {
        parameter["description"] = about;
    }
    parameter["schema"] = schema;
    parameter
}

/// Lists are written with commas; objects as JSON; what may be anything as text.
fn query(name: &str, required: bool, schema: Value) -> Value {
    match schema["type"].as_str() {
        Some("array") => {
            let mut list = parameter(name, "query", required, schema);
            list["style"] = "form".into();
            list["explode"] = false.into();
            list
        }
        Some("object") => {
            let mut object = parameter(name, "query", required, schema);
            let schema = object["schema"].take();
            object["content"] = json!({"application/json": {"schema": schema}});
            if let Some(members) = object.as_object_mut() {
                members.shift_remove("schema");
            }
            object
        }
        _ => parameter(name, "query", required, schema),
    }
}

/// A schema without null, which text cannot say; text where it is no simple type.
fn plain(schema: &Value) -> Value {
    let mut plain = schema.clone();
    if let Some(members) = plain.as_object_mut() {
        if members.get("default").is_some_and(Value::is_null) {
            members.shift_remove("default");
        }
        let choices = members.get("anyOf").and_then(Value::as_array).cloned();
        if let Some(Value::Array(types)) = members.get_mut("type") {
            types.retain(|kind| kind != "null");
            if let [only] = &types[..] {
                let only = only.clone();
                members.insert("type".into(), only);
            }
        } else if let Some(choices) = choices {
            members.shift_remove("anyOf");
            let mut choices = choices.into_iter().filter(|choice| choice["type"] != "null");
            match (choices.next(), choices.next()) {
                (Some(Value::Object(only)), None) => members.extend(only),
                _ => drop(members.insert("type".into(), "string".into())),
            }
        } else if members.is_empty() || members.keys().all(|key| key == "description" || key == "default") {
            members.insert("type".into(), "string".into());
        }
        if let Some(words) = members.get_mut("enum").and_then(Value::as_array_mut) {
            words.retain(|word| !word.is_null());
        }
    }
    plain
}
