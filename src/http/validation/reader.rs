//! One value at a time, as its JSON Schema says: the part of it that the parameters of operations use.

use serde_json::{Value, json};

use super::is_secret;
use crate::model::lax;
use crate::model::problem::{At, Problems};

/// Schemas refer to each other at most so often in a row.
const MOST_REFERENCES: usize = 8;

/// Reads values as schemas say and collects what is wrong.
pub(super) struct Reader<'s> {
    root: &'s Value,
    pub(super) problems: Problems,
}

impl<'s> Reader<'s> {
    /// For the parameters of one operation.
    pub(super) fn new(root: &'s Value) -> Reader<'s> {
        Reader { root, problems: Problems::default() }
    }

    /// Whether the schema asks for an object.
    pub(super) fn is_object(&self, schema: &'s Value) -> bool {
        types(self.resolve(schema)).contains(&"object")
    }

    /// Notes a problem; what must not come back is not shown.
    pub(super) fn wrong(
        &mut self,
        at: &At<'_>,
        kind: &'static str,
        msg: impl Into<String>,
        name: &str,
        value: &Value,
    ) {
        self.say(at, kind, msg, name, value, None);
    }

    fn say(
        &mut self,
        at: &At<'_>,
        kind: &'static str,
        msg: impl Into<String>,
        name: &str,
        value: &Value,
        ctx: Option<Value>,
    ) {
        let input = if is_secret(name) { &Value::Null } else { value };
        self.problems.add(at, kind, msg, input, ctx);
    }

    /// Follows references, and `null` or something to the something.
    fn resolve(&self, schema: &'s Value) -> &'s Value {
        let mut schema = schema;
        for _ in 0..MOST_REFERENCES {
            let target = schema.get("$ref").and_then(Value::as_str).and_then(|to| to.strip_prefix('#'));
            let either = schema.get("anyOf").and_then(Value::as_array).map(Vec::as_slice);
            schema = match (target.and_then(|to| self.root.pointer(to)), either) {
                (Some(target), _) => target,
                (None, Some([one, null] | [null, one])) if is_null(null) => one,
                _ => break,
            };
        }
        schema
    }

    /// Text that stands for a list or an object: `a,b`, JSON.
    pub(super) fn unfold(&self, schema: &'s Value, value: &mut Value) {
        let types = types(self.resolve(schema));
        let Value::String(text) = &*value else { return };
        let whole = match types.as_slice() {
            ["array"] => Some(text.split(',').collect()),
            ["object"] => serde_json::from_str(text).ok(),
            _ => None,
        };
        if let Some(whole) = whole {
            *value = whole;
        }
    }

    /// Reads one value in place. `name` is the parameter that it is a part of.
    // Recursion: as deep as the schemas of parameters, which do not nest in themselves.
    pub(super) fn value(&mut self, schema: &'s Value, value: &mut Value, at: &At<'_>, name: &str) {
        if value.is_null() && may_be_null(schema) {
            return;
        }
        let schema = self.resolve(schema);
        if let Some(words) = words(schema) {
            if !value.as_str().is_some_and(|word| words.contains(&word)) {
                self.problems.not_one_of(at, &words, value);
            }
            return;
        }
        // Of several types, or of none in particular: the operation knows.
        let [kind] = types(schema)[..] else { return };
        match kind {
            "integer" => self.integer(schema, value, at, name),
            "number" => self.number(schema, value, at, name),
            "boolean" => match lax::flag(value) {
                Ok(flag) => *value = flag.into(),
                Err(bad) => self.problems.not_a_flag(at, bad, value),
            },
            "string" => self.text(schema, value, at, name),
            "array" => self.list(schema, value, at, name),
            "object" => self.object(schema, value, at, name),
            _ => {}
        }
    }

    fn integer(&mut self, schema: &Value, value: &mut Value, at: &At<'_>, name: &str) {
        let read = match &*value {
            Value::Number(number) if number.is_i64() || number.is_u64() => None,
            Value::Number(number) => match number.as_f64() {
                Some(float) if float.fract() == 0.0 && float.abs() < 9.0e15 => Some(float as i64),
                _ => {
                    let msg = "Input should be a valid integer, got a number with a fractional part";
                    return self.wrong(at, "int_from_float", msg, name, value);
                }
            },
            Value::Bool(flag) => Some(i64::from(*flag)),
            Value::String(text) => match lax::python_int(text) {
                Some(number) => Some(number),
                None if text.trim().trim_start_matches(['+', '-']).bytes().all(|b| b.is_ascii_digit())
                    && !text.trim().is_empty() =>
                {
                    let msg = "Unable to parse input string as an integer, exceeded maximum size";
                    return self.wrong(at, "int_parsing_size", msg, name, value);
                }
                None => {
                    let msg = "Input should be a valid integer, unable to parse string as an integer";
                    return self.wrong(at, "int_parsing", msg, name, value);
                }
            },
            _ => return self.wrong(at, "int_type", "Input should be a valid integer", name, value),
        };
        let given = value.clone();
        if let Some(number) = read {
            *value = number.into();
        }
        self.bounds(schema, value, &given, at, name);
    }

    fn number(&mut self, schema: &Value, value: &mut Value, at: &At<'_>, name: &str) {
        let given = value.clone();
        match &*value {
            Value::Number(_) => {}
            Value::String(text) => match text.trim().parse::<f64>().ok().filter(|float| float.is_finite()) {
                Some(float) => *value = float.into(),
                None => {
                    let msg = "Input should be a valid number, unable to parse string as a number";
                    return self.wrong(at, "float_parsing", msg, name, value);
                }
            },
            _ => return self.wrong(at, "float_type", "Input should be a valid number", name, value),
        }
        self.bounds(schema, value, &given, at, name);
    }

    /// Notes a number that is less or more than the schema lets it be; `given`: as it was sent.
    fn bounds(&mut self, schema: &Value, value: &Value, given: &Value, at: &At<'_>, name: &str) {
        let bound = |key: &str| schema.get(key).filter(|bound| bound.is_number());
        // Bounds of integers are written with a point in some schemas.
        let written = |bound: &Value| match types(schema)[..] {
            ["integer"] => bound.as_f64().map_or(Value::Null, |bound| (bound as i64).into()),
            _ => bound.clone(),
        };
        let number = value.as_f64().unwrap_or_default();
        if let Some(least) =
            bound("minimum").filter(|least| least.as_f64().is_some_and(|least| number < least))
        {
            let msg =
                format!("Input should be greater than or equal to {}", least.as_f64().unwrap_or_default());
            let ctx = json!({"ge": written(least)});
            self.say(at, "greater_than_equal", msg, name, given, Some(ctx));
        } else if let Some(most) =
            bound("maximum").filter(|most| most.as_f64().is_some_and(|most| number > most))
        {
            let msg = format!("Input should be less than or equal to {}", most.as_f64().unwrap_or_default());
            let ctx = json!({"le": written(most)});
            self.say(at, "less_than_equal", msg, name, given, Some(ctx));
        }
    }

    fn text(&mut self, schema: &Value, value: &Value, at: &At<'_>, name: &str) {
        let Some(text) = value.as_str() else {
            return self.wrong(at, "string_type", "Input should be a valid string", name, value);
        };
        let bound = |key: &str| schema.get(key).and_then(Value::as_u64).map(|bound| bound as usize);
        if let Some(most) = bound("maxLength").filter(|most| text.chars().nth(*most).is_some()) {
            self.problems.too_long(at, most, if is_secret(name) { &Value::Null } else { value });
        } else if let Some(least) = bound("minLength").filter(|least| text.chars().count() < *least) {
            let s = if least == 1 { "" } else { "s" };
            let msg = format!("String should have at least {least} character{s}");
            let ctx = json!({"min_length": least});
            self.say(at, "string_too_short", msg, name, value, Some(ctx));
        }
    }

    fn list(&mut self, schema: &'s Value, value: &mut Value, at: &At<'_>, name: &str) {
        let Value::Array(list) = &mut *value else {
            return self.wrong(at, "list_type", "Input should be a valid list", name, value);
        };
        let most = schema.get("maxItems").and_then(Value::as_u64).map_or(usize::MAX, |most| most as usize);
        if list.len() > most {
            return self.problems.too_many(at, "List", most, list.len(), value);
        }
        let Some(items) = schema.get("items") else { return };
        for (index, item) in list.iter_mut().enumerate() {
            self.value(items, item, &at.index(index), name);
        }
    }

    fn object(&mut self, schema: &'s Value, value: &mut Value, at: &At<'_>, name: &str) {
        if !value.is_object() {
            return self.wrong(at, "dict_type", "Input should be a valid dictionary", name, value);
        }
        let properties = schema.get("properties").and_then(Value::as_object);
        for (key, schema) in properties.into_iter().flatten() {
            let at = at.key(key);
            if let Some(member) = value.get_mut(key) {
                self.value(schema, member, &at, name);
            }
        }
        for key in properties.into_iter().flatten().map(|(key, _)| key) {
            if value.get(key).is_none() && is_required(schema, key) {
                self.problems.missing(&at.key(key), value);
            }
        }
    }
}

/// Whether an object of this schema must have the member.
pub(super) fn is_required(schema: &Value, name: &str) -> bool {
    let required = schema.get("required").and_then(Value::as_array);
    required.is_some_and(|names| names.iter().any(|required| required == name))
}

/// The types of a schema besides null.
fn types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(kind)) => vec![kind],
        Some(Value::Array(kinds)) => {
            kinds.iter().filter_map(Value::as_str).filter(|k| *k != "null").collect()
        }
        _ => Vec::new(),
    }
}

fn is_null(schema: &Value) -> bool {
    schema.get("type").is_some_and(|kind| kind == "null")
}

fn may_be_null(schema: &Value) -> bool {
    let among = |key: &str, null: &dyn Fn(&Value) -> bool| {
        schema.get(key).and_then(Value::as_array).is_some_and(|all| all.iter().any(null))
    };
    is_null(schema) || among("type", &|kind| kind == "null") || among("anyOf", &is_null)
}

/// The words that a value may be one of, if the schema is such a list.
fn words(schema: &Value) -> Option<Vec<&str>> {
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        return words.iter().map(Value::as_str).collect();
    }
    let options = schema.get("oneOf").and_then(Value::as_array)?;
    options.iter().map(|option| option.get("const").and_then(Value::as_str)).collect()
}
