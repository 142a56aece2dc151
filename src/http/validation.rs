//! Parameters of REST requests, read as the schema of the operation says, in the way that FastAPI reads them and with
//! its words where they are wrong (contract 1.5): 422 and a list of items.
//!
//! What passes here is read once more by the operation itself, which has the last word; [`listed`] puts that into the
//! same shape.

mod reader;

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use self::reader::{Reader, is_required};
use crate::error::{Error, Kind, Result};
use crate::model::problem::{At, Problems, short};
use crate::ops::{Body, Operation, Route};

/// Where a parameter came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Body,
    Query,
    Path,
}

impl Origin {
    fn name(self) -> &'static str {
        match self {
            Origin::Body => "body",
            Origin::Query => "query",
            Origin::Path => "path",
        }
    }
}

/// The parameters of a request before they are checked.
#[derive(Debug)]
pub(super) struct Given<'r> {
    pub(super) route: &'r Route,
    pub(super) params: Map<String, Value>,
    /// Of those that do not stand in the body.
    pub(super) origins: HashMap<String, Origin>,
    /// What errors show.
    pub(super) sent: Sent,
}

/// What the client has sent, as it stood there: what errors may show of it, which is what is small and no secret. (What
/// the route adds or renames, and what is read of a text, the client has never seen.)
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// Members of the body by its own names, known ones and others; or the whole body, by the name of the parameter.
    body: Map<String, Value>,
    /// Parameters of the query and the path by ours.
    around: HashMap<String, Value>,
}

/// Members of a body that are kept: those of one that has more are cut off anyway.
const MOST_SHOWN: usize = 64;

impl Sent {
    /// The members of a body.
    pub(super) fn members<'b>(body: impl IntoIterator<Item = (&'b String, &'b Value)>) -> Sent {
        let shown = body.into_iter().take(MOST_SHOWN).filter(|(name, _)| !is_secret(name));
        Sent { body: shown.map(|(name, value)| (name.clone(), short(value))).collect(), ..Sent::default() }
    }

    /// A whole body that is the parameter `name`.
    pub(super) fn whole(name: &str, body: &Value) -> Sent {
        let is_plain = !body.is_object() && !body.is_array();
        Sent {
            body: is_plain.then(|| (name.to_owned(), short(body))).into_iter().collect(),
            ..Sent::default()
        }
    }

    /// Notes a parameter of the query or the path.
    pub(super) fn note(&mut self, name: &str, text: &str) {
        if !is_secret(name) {
            self.around.insert(name.to_owned(), text.into());
        }
    }
}

impl Given<'_> {
    /// Where the parameter stands, and its name there; none if it is the whole body.
    fn place<'n>(&self, name: &'n str) -> (Origin, Option<&'n str>) {
        match self.origins.get(name) {
            Some(Origin::Path) => (Origin::Path, Some(name)),
            Some(origin) => (*origin, Some(self.route.alias(name))),
            None if matches!(self.route.body, Body::Under(under) | Body::Text(under) if under == name) => {
                (Origin::Body, None)
            }
            None if matches!(self.route.body, Body::Params | Body::Form) => {
                (Origin::Body, Some(self.route.alias(name)))
            }
            None => (Origin::Query, Some(self.route.alias(name))),
        }
    }

    /// Reads the parameters as the operation's schema says: text of queries, paths and forms becomes what it stands
    /// for. 422 with an item for everything that is wrong.
    pub(super) fn read(&mut self, operation: &Operation) -> Result<()> {
        let root = operation.schema();
        let mut reader = Reader::new(root);
        let members = |key: &str| root.get(key).and_then(Value::as_object);
        let mut params = std::mem::take(&mut self.params);
        for (name, schema) in members("properties").into_iter().flatten() {
            let (origin, alias) = self.place(name);
            let first = At::ROOT.key(origin.name());
            let below = alias.map(|alias| first.key(alias));
            let at = below.as_ref().unwrap_or(&first);
            match params.get_mut(name) {
                Some(Value::String(_)) if self.route.texts.iter().any(|text| text == name) => {}
                Some(value) if self.route.texts.iter().any(|text| text == name) => {
                    reader.wrong(at, "string_type", "Input should be a valid string", name, value);
                }
                // What the whole body is, and what is left of the query, the operation reads by itself.
                Some(value) if alias.is_none() => match value {
                    Value::Null => reader.problems.missing(at, value),
                    value if reader.is_object(schema) && !value.is_object() => {
                        not_an_object(&mut reader.problems, at, value);
                    }
                    _ => {}
                },
                Some(_) if self.route.filter_beside.is_some() && name == "filter" => {}
                Some(value) => {
                    if origin != Origin::Body {
                        reader.unfold(schema, value);
                    }
                    reader.value(schema, value, at, name);
                }
                None if is_required(root, name) => {
                    reader.problems.missing(at, &self.enclosing(origin));
                }
                None => {}
            }
        }
        self.params = params;
        reader.problems.into_placed_items()
    }

    /// The parameters for the operation.
    pub(super) fn take(&mut self) -> Map<String, Value> {
        std::mem::take(&mut self.params)
    }

    /// What a parameter that is missing is missing in.
    fn enclosing(&self, origin: Origin) -> Value {
        match origin {
            Origin::Body => self.sent.body.clone().into(),
            Origin::Query | Origin::Path => Value::Null,
        }
    }

    /// What was sent at `ids[3].x`; null if it is not shown.
    fn sent_at(&self, path: &str) -> Value {
        let mut steps = steps(path);
        let name = steps.next().unwrap_or(path);
        let first = match self.place(name) {
            (Origin::Body, alias) => self.sent.body.get(alias.unwrap_or(name)),
            _ => self.sent.around.get(name),
        };
        let at = |value: &'_ Value, step: &str| match value {
            Value::Array(items) => step.parse::<usize>().ok().and_then(|index| items.get(index)).cloned(),
            value => value.get(step).cloned(),
        };
        let sent = first.cloned().and_then(|first| steps.try_fold(first, |value, step| at(&value, step)));
        sent.unwrap_or_default()
    }

    /// An operation's word about its parameters (`field: what was expected`) as a list of one item; other errors, and
    /// those that are a list already, stay as they are.
    pub(super) fn listed(&self, error: Error) -> Error {
        let (Kind::InvalidParams, Value::String(text)) = (error.kind(), error.detail()) else { return error };
        let (field, expected) = text.split_once(": ").unwrap_or(("params", text));
        let missing = expected.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
        let item = match missing {
            Some(name) => {
                // Missing further down: the path to the object that it is missing in comes first.
                let path = if field == "params" { name.to_owned() } else { format!("{field}.{name}") };
                let input = match field {
                    "params" => self.enclosing(self.place(name).0),
                    field => self.sent_at(field),
                };
                json!({"type": "missing", "loc": self.loc(&path), "msg": "Field required", "input": short(&input)})
            }
            None => {
                let input = short(&self.sent_at(field));
                let msg = format!("Value error, {expected}");
                json!({"type": "value_error", "loc": self.loc(field), "msg": msg, "input": input, "ctx": {"error": {}}})
            }
        };
        Error::new(Kind::InvalidParams, vec![item])
    }

    /// `ids[3].x` as `["body", "ids", 3, "x"]`.
    fn loc(&self, path: &str) -> Value {
        if path == "params" || path == "body" {
            return json!(["body"]);
        }
        let mut steps = steps(path);
        let (origin, alias) = self.place(steps.next().unwrap_or(path));
        let mut loc = vec![Value::from(origin.name())];
        loc.extend(alias.map(Value::from));
        loc.extend(steps.map(|step| step.parse::<usize>().map_or_else(|_| step.into(), Value::from)));
        loc.into()
    }
}

/// The steps of `ids[3].x`.
fn steps(path: &str) -> impl Iterator<Item = &str> {
    path.split(['.', '[']).map(|step| step.trim_end_matches(']'))
}

fn not_an_object(problems: &mut Problems, at: &At<'_>, value: &Value) {
    let msg = "Input should be a valid dictionary or object to extract fields from";
    problems.add(at, "model_attributes_type", msg, value, None);
}

/// The body is not what it must be at all: none, or no object.
pub(super) fn not_a_body(value: &Value) -> Error {
    let (at, mut problems) = (At::ROOT, Problems::default());
    match value.is_null() {
        true => problems.missing(&at, value),
        false => not_an_object(&mut problems, &at, value),
    }
    problems.into_items().err().unwrap_or_else(|| Error::invalid("body", "expected a JSON object"))
}

/// The body is JSON that no operation reads.
pub(super) fn bad_body(expected: &str) -> Error {
    let mut problems = Problems::default();
    problems.value_error(&At::ROOT, expected, &Value::Null);
    problems.into_items().err().unwrap_or_else(|| Error::invalid("body", expected))
}

/// The body is not JSON: where and why, in the words of Python's parser.
pub(super) fn not_json(text: &str, error: &serde_json::Error) -> Error {
    let before: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let reason = error.to_string();
    let reason = reason.split(" at line ").next().unwrap_or(&reason);
    let at = match error.is_eof() {
        true => text.len(),
        // The column counts the byte that was not understood.
        false => (before + error.column().saturating_sub(1)).min(text.len()),
    };
    let at = match reason {
        // A word that is none of JSON's is told from its beginning.
        "expected ident" => {
            let head = text.as_bytes().get(..at).unwrap_or_default();
            at - head.iter().rev().take_while(|byte| byte.is_ascii_alphabetic()).count()
        }
        _ => at,
    };
    let chars = text.bytes().take(at).filter(|byte| (*byte as i8) >= -0x40).count();
    let python = match reason {
        "expected value" | "expected ident" | "EOF while parsing a value" => "Expecting value",
        "key must be a string" | "EOF while parsing an object" => {
            "Expecting property name enclosed in double quotes"
        }
        "expected `,` or `}`" | "expected `,` or `]`" | "EOF while parsing a list" => {
            "Expecting ',' delimiter"
        }
        "expected `:`" => "Expecting ':' delimiter",
        "trailing characters" => "Extra data",
        "EOF while parsing a string" => "Unterminated string starting at",
        "invalid escape" => "Invalid \\escape",
        other => other,
    };
    let item = json!({
        "type": "json_invalid", "loc": ["body", chars], "msg": "JSON decode error", "input": {},
        "ctx": {"error": python},
    });
    Error::new(Kind::InvalidParams, vec![item])
}

/// What must not stand in an address, nor come back in an answer.
pub(super) fn is_secret(name: &str) -> bool {
    name.contains("password") || name.contains("secret") || name.ends_with("token")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{self, Table};

    /// The 422 items of a request to the operation's first route: parameters in the query, in the body.
    fn items(table: &Table, operation: &str, query: Value, body: Value) -> Vec<Value> {
        match read(table, operation, query, body) {
            Ok(params) => panic!("{params:?} is good"),
            Err(error) => {
                assert_eq!(error.status(), 422);
                error.detail().as_array().unwrap().clone()
            }
        }
    }

    fn read(table: &Table, operation: &str, query: Value, body: Value) -> Result<Map<String, Value>> {
        let operation = table.get(operation)?;
        let mut params = body.as_object().cloned().unwrap_or_default();
        let mut sent = Sent::members(&params);
        let mut origins = HashMap::new();
        for (name, value) in query.as_object().unwrap() {
            params.insert(name.clone(), value.clone());
            origins.insert(name.clone(), Origin::Query);
            sent.note(name, value.as_str().unwrap_or_default());
        }
        let mut given = Given { route: &operation.routes[0], params, origins, sent };
        given.read(operation)?;
        Ok(given.take())
    }

    #[test]
    fn text_of_queries_becomes_what_it_stands_for() {
        let table = ops::table();
        let query = json!({"limit": "+1_0", "offset": "0"});
        assert_eq!(
            json!(read(&table, "node.page", query, json!({})).unwrap()),
            json!({"limit": 10, "offset": 0})
        );
        let query = json!({"id": "x", "noevent": "True", "if_revision": "7"});
        let read = read(&table, "node.replace", query, json!({"node": {}})).unwrap();
        assert_eq!((&read["noevent"], &read["if_revision"]), (&json!(true), &json!(7)));
    }

    /// Rows of the table in contract 1.5.
    #[test]
    fn what_is_wrong_is_told_in_pydantics_words() {
        let table = ops::table();
        let page = |query: Value| items(&table, "node.page", query, json!({}));
        assert_eq!(
            page(json!({"limit": "0", "offset": "-1"})),
            [
                json!({"type": "greater_than_equal", "loc": ["query", "limit"],
                    "msg": "Input should be greater than or equal to 1", "input": "0", "ctx": {"ge": 1}}),
                json!({"type": "greater_than_equal", "loc": ["query", "offset"],
                    "msg": "Input should be greater than or equal to 0", "input": "-1", "ctx": {"ge": 0}}),
            ]
        );
        for (limit, kind) in [
            (json!("abc"), "int_parsing"),
            (json!(""), "int_parsing"),
            (json!("1.5"), "int_parsing"),
            (json!("9".repeat(30)), "int_parsing_size"),
            (json!([]), "int_type"),
            (json!(1.5), "int_from_float"),
            (json!(1e300), "int_from_float"),
        ] {
            assert_eq!(page(json!({"limit": limit}))[0]["type"], kind, "{limit}");
        }
        let submit = |query: Value| items(&table, "node.submit", query, json!({"id": "x", "tree": {}}));
        assert_eq!(
            submit(json!({"events": "some"})),
            [json!({"type": "enum", "loc": ["query", "events"], "msg": "Input should be 'root' or 'each'",
                "input": "some", "ctx": {"expected": "'root' or 'each'"}})]
        );
        let replace = |query: Value| items(&table, "node.replace", query, json!({"id": "x", "node": {}}));
        assert_eq!(
            replace(json!({"noevent": "maybe"})),
            [json!({"type": "bool_parsing", "loc": ["query", "noevent"],
                "msg": "Input should be a valid boolean, unable to interpret input", "input": "maybe"})]
        );
    }

    #[test]
    fn bodies_are_read_by_the_names_of_the_route() {
        let table = ops::table();
        let mark = |body: Value| items(&table, "node.mark", json!({}), body);
        let types = |items: &[Value]| -> Vec<(String, Value)> {
            items
                .iter()
                .map(|item| (item["type"].as_str().unwrap().to_owned(), item["loc"].clone()))
                .collect()
        };
        assert_eq!(
            types(&mark(json!({}))),
            [
                ("missing".into(), json!(["body", "nodes"])),
                ("missing".into(), json!(["body", "field"])),
                ("missing".into(), json!(["body", "value"])),
            ]
        );
        assert_eq!(
            types(&mark(json!({"ids": [1, "x"], "field": 5, "value": true}))),
            [
                ("string_type".into(), json!(["body", "nodes", 0])),
                ("string_type".into(), json!(["body", "field"])),
                ("string_type".into(), json!(["body", "value"])),
            ]
        );
        assert_eq!(
            types(&mark(json!({"ids": "x", "field": "", "value": ""}))),
            [("list_type".into(), json!(["body", "nodes"]))]
        );
        let update = |set: Value| items(&table, "node.update", json!({"id": "x"}), json!({"set": set}));
        assert_eq!(types(&mark(json!({"ids": [], "field": "x", "value": true}))).len(), 1);
        assert_eq!(types(&update(json!([]))), [("model_attributes_type".into(), json!(["body"]))]);
        assert_eq!(types(&update(json!(null))), [("missing".into(), json!(["body"]))]);
    }

    #[test]
    fn what_the_operation_says_has_the_same_shape_and_no_secrets() {
        let table = ops::table();
        let login = table.get("user.login").unwrap();
        let params = json!({"password": "x", "scope": ""}).as_object().cloned().unwrap();
        let sent = Sent::members(&params);
        let mut given = Given { route: &login.routes[0], params, origins: HashMap::new(), sent };
        let wanted = json!({"type": "missing", "loc": ["body", "username"], "msg": "Field required", "input": {"scope": ""}});
        assert_eq!(given.read(login).unwrap_err().detail()[0], wanted);
        assert_eq!(given.listed(Error::invalid("params", "missing field `username`")).detail()[0], wanted);
        let item = given.listed(Error::invalid("scope[3].x", "expected more")).detail()[0].clone();
        assert_eq!(item["loc"], json!(["body", "scope", 3, "x"]));
        assert_eq!(item["msg"], "Value error, expected more");
        assert_eq!(given.listed(Error::invalid("password", "too short")).detail()[0]["input"], Value::Null);
        assert_eq!(given.listed(Error::forbidden()).detail(), "Forbidden");
    }

    /// As Python's parser says it.
    #[test]
    fn broken_json_is_told_with_its_place() {
        for (text, at, reason) in [
            ("{", 1, "Expecting property name enclosed in double quotes"),
            ("x", 0, "Expecting value"),
            ("[nope]", 1, "Expecting value"),
            ("{\"a\":}", 5, "Expecting value"),
            ("{\"a\" 1}", 5, "Expecting ':' delimiter"),
            ("{\"a\": 1 2}", 8, "Expecting ',' delimiter"),
            ("[1,\n 2 3]", 7, "Expecting ',' delimiter"),
            ("\"é\" x", 4, "Extra data"),
        ] {
            let error = serde_json::from_str::<Value>(text).unwrap_err();
            let item = not_json(text, &error).detail()[0].clone();
            assert_eq!(
                (&item["loc"], &item["ctx"]["error"]),
                (&json!(["body", at]), &json!(reason)),
                "{text}"
            );
        }
    }
}
