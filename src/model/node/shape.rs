//! The types that fields of bodies have, as tables, and one reader for all of them (contract 2.1, 2.4).

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::urls;
use crate::model::problem::{At, Problems, cut};
use crate::model::{ObjectId, Timestamp, lax};

/// The type of a field. Reading normalises: dates to the wire form, ids to lower case, flags to JSON booleans.
#[derive(Debug)]
pub(super) enum Type {
    /// Text of any length (the node's size bounds it).
    Text,
    /// A JSON integer, nothing else.
    Int,
    /// A boolean, or 0, 1, `"yes"`, `"off"` and the like.
    Flag,
    /// See [`Timestamp::parse_body`].
    Date,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A node's id.
    Id,
    /// An absolute URL of any scheme.
    Url,
    /// An http or https URL.
    HttpUrl,
    /// Any JSON object.
    Object,
    /// A list of any length.
    List(&'static Type),
    /// A list of at most so many different names.
    Groups(usize),
    /// An object with any keys.
    Dict(&'static Type),
    /// An object with these fields, and any others.
    Model(&'static Model),
}

/// An object with known fields.
#[derive(Debug)]
pub(super) struct Model {
    /// Its name in errors.
    pub(super) name: &'static str,
    /// In the order in which errors are told.
    pub(super) fields: &'static [Field],
}

/// A field of a [`Model`].
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) ty: Type,
    pub(super) need: Need,
    /// What it is where a model is filled in and it is absent.
    default: Filled,
}

/// What an absent field of a filled model is.
#[derive(Clone, Copy, Debug)]
enum Filled {
    Null,
    List,
    Object,
}

impl Filled {
    fn json(self) -> Value {
        match self {
            Filled::Null => Value::Null,
            Filled::List => Value::Array(Vec::new()),
            Filled::Object => Value::Object(Map::new()),
        }
    }
}

/// Whether a field must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// It must.
    Required,
    /// It may be absent but not null.
    Default,
    /// It may be absent or null.
    Nullable,
}

/// A field that must be there.
pub(super) const fn required(name: &'static str, ty: Type) -> Field {
    Field { name, ty, need: Need::Required, default: Filled::Null }
}
/// A field that may be absent but not null.
pub(super) const fn default(name: &'static str, ty: Type) -> Field {
    Field { name, ty, need: Need::Default, default: Filled::Null }
}
/// A field that may be absent or null.
pub(super) const fn nullable(name: &'static str, ty: Type) -> Field {
    Field { name, ty, need: Need::Nullable, default: Filled::Null }
}

impl Field {
    /// It is an empty list in models where it is absent.
    pub(super) const fn or_list(self) -> Field {
        let Field { name, ty, need, .. } = self;
        Field { name, ty, need, default: Filled::List }
    }
    /// It is an empty object in models where it is absent.
    pub(super) const fn or_object(self) -> Field {
        let Field { name, ty, need, .. } = self;
        Field { name, ty, need, default: Filled::Object }
    }
    /// Reads the field's value, which is there.
    pub(super) fn read<'v>(&self, value: &'v Value, at: &At<'_>, problems: &mut Problems) -> Cow<'v, Value> {
        match value {
            Value::Null if self.need == Need::Nullable => Cow::Borrowed(value),
            _ => self.ty.read(value, at, problems),
        }
    }
}

impl Model {
    /// Checks all known fields of `body`.
    pub(super) fn check(&self, body: &Map<String, Value>, at: &At<'_>, problems: &mut Problems) {
        for field in self.fields {
            let at = at.key(field.name);
            match body.get(field.name) {
                Some(value) => drop(field.read(value, &at, problems)),
                None if field.need == Need::Required => {
                    problems.missing(&at, &Value::Object(body.clone()));
                }
                None => {}
            }
        }
    }
    /// `body`, which has been [checked](Model::check), as KernelCI's models hold it: the known fields first, in
    /// normalised form, null (or the default) where they are absent; then all others as they are.
    pub(super) fn fill(&self, mut body: Map<String, Value>) -> Map<String, Value> {
        let mut filled = Map::with_capacity(self.fields.len());
        for field in self.fields {
            let value = body.get_mut(field.name).map(Value::take);
            filled.insert(
                field.name.to_owned(),
                value.map_or_else(|| field.default.json(), |v| field.ty.fill(v)),
            );
        }
        for (name, value) in body {
            filled.entry(name).or_insert(value);
        }
        filled
    }
    /// Notes that `input` is no object.
    pub(super) fn not_an_object(&self, input: &Value, at: &At<'_>, problems: &mut Problems) {
        let msg = format!("Input should be a valid dictionary or instance of {}", self.name);
        problems.add(at, "model_type", msg, input, Some(json!({"class_name": self.name})));
    }
}

impl Type {
    /// A good value in normalised form, what is absent in models filled in.
    fn fill(&self, value: Value) -> Value {
        match (self, value) {
            (Type::Model(model), Value::Object(body)) => Value::Object(model.fill(body)),
            (_, Value::Null) => Value::Null,
            (ty, value) => ty.read(&value, &At::ROOT, &mut Problems::default()).into_owned(),
        }
    }
    /// The value in normalised form; what is wrong with it goes to `problems` and the value then means nothing.
    pub(super) fn read<'v>(&self, value: &'v Value, at: &At<'_>, problems: &mut Problems) -> Cow<'v, Value> {
        let same = Cow::Borrowed(value);
        let mut wrong = |kind, msg: &str| problems.add(at, kind, msg, value, None);
        match (self, value) {
            (Type::Text, Value::String(_)) => return same,
            (Type::Text, _) => wrong("string_type", "Input should be a valid string"),
            (Type::Int, Value::Number(number)) if number.is_i64() => return same,
            (Type::Int, _) => wrong("int_type", "Input should be a valid integer"),
            (Type::Flag, _) => match lax::flag(value) {
                Ok(flag) => return Cow::Owned(flag.into()),
                Err(bad) => problems.not_a_flag(at, bad, value),
            },
            (Type::Date, _) => match Timestamp::parse_body(value) {
                Ok(date) => return Cow::Owned(date.to_wire().into()),
                Err(bad) => {
                    let ctx = bad.reason.map(|reason| json!({"error": reason}));
                    problems.add(at, bad.kind, bad.message(), value, ctx);
                }
            },
            (Type::Choice(words), _) => match value.as_str() {
                Some(word) if words.contains(&word) => return same,
                _ => problems.not_one_of(at, words, value),
            },
            (Type::Id, _) => match id(value) {
                Some(id) => return Cow::Owned(id.to_hex().into()),
                None => bad_id(value, at, problems),
            },
            (Type::Url | Type::HttpUrl, Value::String(text)) => {
                let read = if matches!(self, Type::Url) { urls::any(text) } else { urls::http(text) };
                match read {
                    Ok(url) => return Cow::Owned(url.into()),
                    Err(bad) => bad_url(&bad, value, at, problems),
                }
            }
            (Type::Url | Type::HttpUrl, _) => wrong("url_type", "URL input should be a string or URL"),
            (Type::Object, Value::Object(_)) => return same,
            (Type::Groups(most), Value::Array(list)) if list.len() > *most => {
                problems.too_many(at, "List", *most, list.len(), value);
            }
            (Type::List(ty), Value::Array(list)) => {
                return collect(list.iter().enumerate().map(|(i, v)| ty.read(v, &at.index(i), problems)))
                    .map_or(same, |list| Cow::Owned(Value::Array(list)));
            }
            (Type::Groups(_), Value::Array(list)) => groups(list, value, at, problems),
            (Type::List(..) | Type::Groups(_), _) => wrong("list_type", "Input should be a valid list"),
            (Type::Dict(ty), Value::Object(map)) => {
                return collect(map.iter().map(|(key, v)| ty.read(v, &at.key(key), problems)))
                    .map_or(same, |values| {
                        Cow::Owned(Value::Object(map.keys().cloned().zip(values).collect()))
                    });
            }
            (Type::Object | Type::Dict(..), _) => wrong("dict_type", "Input should be a valid dictionary"),
            (Type::Model(model), Value::Object(map)) => model.check(map, at, problems),
            (Type::Model(model), _) => model.not_an_object(value, at, problems),
        }
        same
    }
}

/// The values, if reading changed any of them.
fn collect<'v>(values: impl Iterator<Item = Cow<'v, Value>>) -> Option<Vec<Value>> {
    let values: Vec<_> = values.collect();
    let changed = values.iter().any(|value| matches!(value, Cow::Owned(_)));
    changed.then(|| values.into_iter().map(Cow::into_owned).collect())
}

/// The id that a value means: 24 hex digits.
pub(super) fn id(value: &Value) -> Option<ObjectId> {
    value.as_str().and_then(|text| ObjectId::parse_str(text).ok())
}

fn groups(list: &[Value], value: &Value, at: &At<'_>, problems: &mut Problems) {
    let mut seen = HashSet::new();
    let mut twice = false;
    for (i, name) in list.iter().enumerate() {
        drop(Type::Text.read(name, &at.index(i), problems));
        twice |= !seen.insert(name.as_str());
    }
    if twice && list.iter().all(Value::is_string) {
        problems.value_error(at, "Groups must have unique names.", value);
    }
}

/// Two problems, as pydantic tells them about a union of an ObjectId and its text.
fn bad_id(value: &Value, at: &At<'_>, problems: &mut Problems) {
    if problems.knows(at, value) {
        return;
    }
    let instance = at.key("is-instance[ObjectId]");
    let msg = "Input should be an instance of ObjectId";
    problems.add(&instance, "is_instance_of", msg, value, Some(json!({"class": "ObjectId"})));
    let chain = at.key("chain[str,function-plain[validate()]]");
    match value {
        Value::String(text) => {
            problems.value_error(&chain, &format!("Invalid ObjectId: {}", cut(text)), value);
        }
        _ => problems.add(&chain, "string_type", "Input should be a valid string", value, None),
    }
}

fn bad_url(bad: &urls::Bad, value: &Value, at: &At<'_>, problems: &mut Problems) {
    match bad {
        urls::Bad::Long => problems.too_long(at, urls::MAX_CHARS, value),
        urls::Bad::Scheme => {
            let ctx = json!({"expected_schemes": "'http' or 'https'"});
            problems.add(at, "url_scheme", "URL scheme should be 'http' or 'https'", value, Some(ctx));
        }
        urls::Bad::Parse(reason) => {
            let msg = format!("Input should be a valid URL, {reason}");
            problems.add(at, "url_parsing", msg, value, Some(json!({"error": reason})));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(ty: &Type, value: &Value) -> Result<Value, Vec<Value>> {
        let mut problems = Problems::default();
        let read = ty.read(value, &At::ROOT, &mut problems).into_owned();
        match problems.into_items() {
            Ok(()) => Ok(read),
            Err(error) => Err(error.detail().as_array().unwrap().clone()),
        }
    }

    #[test]
    fn each_type_takes_what_the_contract_says() {
        let id = "68f0aa11bb22cc33dd44ee55";
        let cases = [
            (Type::Text, json!(""), json!("")),
            (Type::Int, json!(-3), json!(-3)),
            (Type::Flag, json!("YES"), json!(true)),
            (Type::Flag, json!("Off"), json!(false)),
            (Type::Flag, json!(1), json!(true)),
            (Type::Flag, json!(0.0), json!(false)),
            (Type::Date, json!("2026-01-01T00:00Z"), json!("2026-01-01T00:00:00")),
            (Type::Choice(&["a", "b"]), json!("b"), json!("b")),
            (Type::Id, json!(id.to_uppercase()), json!(id)),
            (Type::Url, json!("git://x/y"), json!("git://x/y")),
            (Type::HttpUrl, json!("http://X"), json!("http://x/")),
            (Type::List(&Type::Id), json!([id.to_uppercase(), id]), json!([id, id])),
            (Type::Dict(&Type::HttpUrl), json!({"a": "http:h"}), json!({"a": "http://h/"})),
        ];
        for (ty, given, stored) in cases {
            assert_eq!(read(&ty, &given), Ok(stored), "{ty:?}");
        }
    }

    /// Type and message of each row of the table in contract 1.5.
    #[test]
    fn each_type_refuses_in_pydantics_words() {
        let reason = "unable to interpret input";
        let cases: Vec<(Type, Value, &str, String)> = vec![
            (Type::Text, json!(5), "string_type", "Input should be a valid string".into()),
            (Type::List(&Type::Text), json!("x"), "list_type", "Input should be a valid list".into()),
            (Type::Object, json!([]), "dict_type", "Input should be a valid dictionary".into()),
            (Type::Int, json!("1"), "int_type", "Input should be a valid integer".into()),
            (Type::Int, json!(1.0), "int_type", "Input should be a valid integer".into()),
            (Type::Int, json!(true), "int_type", "Input should be a valid integer".into()),
            (Type::Flag, json!("ja"), "bool_parsing", format!("Input should be a valid boolean, {reason}")),
            (Type::Flag, json!(2), "bool_parsing", format!("Input should be a valid boolean, {reason}")),
            (Type::Flag, json!(null), "bool_type", "Input should be a valid boolean".into()),
            (Type::Flag, json!(1.5), "bool_type", "Input should be a valid boolean".into()),
            (Type::Choice(&["a", "b", "c"]), json!("x"), "enum", "Input should be 'a', 'b' or 'c'".into()),
            (Type::Choice(&["a", "b"]), json!(null), "enum", "Input should be 'a' or 'b'".into()),
            (
                Type::Date,
                json!("x"),
                "datetime_from_date_parsing",
                "Input should be a valid datetime or date, input is too short".into(),
            ),
            (Type::Date, json!(null), "datetime_type", "Input should be a valid datetime".into()),
            (Type::HttpUrl, json!("ftp://x"), "url_scheme", "URL scheme should be 'http' or 'https'".into()),
            (
                Type::HttpUrl,
                json!("nope"),
                "url_parsing",
                "Input should be a valid URL, relative URL without a base".into(),
            ),
            (Type::HttpUrl, json!(5), "url_type", "URL input should be a string or URL".into()),
            (
                Type::Groups(9),
                json!(["a", "a"]),
                "value_error",
                "Value error, Groups must have unique names.".into(),
            ),
        ];
        for (ty, given, kind, msg) in cases {
            let items = read(&ty, &given).unwrap_err();
            assert_eq!((&items[0]["type"], &items[0]["msg"]), (&json!(kind), &json!(msg)), "{ty:?} {given}");
            assert_eq!(items.len(), 1);
        }
        assert_eq!(read(&Type::Groups(1), &json!(["a", "b"])).unwrap_err()[0]["type"], "too_long");
        let long = json!(vec!["é".repeat(2000); 300]);
        assert_eq!(
            read(&Type::List(&Type::Text), &long),
            Ok(long),
            "texts and lists are as long as they are"
        );
    }

    #[test]
    fn a_bad_id_is_told_twice() {
        let items = read(&Type::Id, &json!("zz")).unwrap_err();
        assert_eq!(
            items,
            [
                json!({"type":"is_instance_of","loc":["body","is-instance[ObjectId]"],
                    "msg":"Input should be an instance of ObjectId","input":"zz","ctx":{"class":"ObjectId"}}),
                json!({"type":"value_error","loc":["body","chain[str,function-plain[validate()]]"],
                    "msg":"Value error, Invalid ObjectId: zz","input":"zz","ctx":{"error":{}}}),
            ]
        );
        assert_eq!(read(&Type::Id, &json!(5)).unwrap_err()[1]["type"], "string_type");
    }

    #[test]
    fn elements_are_named_by_their_place() {
        let items = read(&Type::List(&Type::Text), &json!(["a", 1, null])).unwrap_err();
        assert_eq!(items[0]["loc"], json!(["body", 1]));
        assert_eq!(items[1]["loc"], json!(["body", 2]));
    }
}
