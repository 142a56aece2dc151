//! Filters as SQL over a column of JSONB documents, with the meaning of [`Filter::matches`].
//!
//! A path stands for one scalar in nearly every document, so its value is one SQL expression ([`expression`]) which
//! indexes can hold. SQLite orders null, numbers, text, blobs, in this order, and JSON has no blobs; so the expression
//! is a blob for what is none of the first three: true, false, an object, or an *array* at the end of the path or on
//! the way. Comparisons are then bracketed by type by ranges of one index, and `IN (…, ARRAY)` finds the documents
//! with arrays in the same index. About those [`register`]ed functions decide: `filter_matches(condition, part of the
//! document)` runs [`Filter::matches`].
//!
//! Fields with a declared type and no dot in their name are taken to be scalars, because that is how nodes and
//! events are always written (`Node::to_wire`): their expression is a plain `->>`, equality is a plain `=`, and an index
//! gives its order too. [`scalars`] is the constraint with which a table makes sure of it.

use std::rc::Rc;

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{ToSql, ToSqlOutput, Value as Sqlite, ValueRef};
use rusqlite::vtab::array::{self, Array};
use rusqlite::{Connection, Error, Result};
use serde_json::{Map, Number, Value};

use crate::filter::{FieldType, Filter, NODE, Pattern, Schema, Test, path, term};

/// A condition in SQL.
#[derive(Clone, Debug)]
pub struct Sql {
    /// An expression, in parentheses where needed, that is 0, 1 or null (which is no match), with a `?` for each
    /// parameter in order.
    pub text: String,
    /// What the `?` stand for.
    pub params: Vec<Param>,
    /// Whether it finds exactly what the filter matches; else at least that.
    pub exact: bool,
}

/// What a `?` stands for. A list is one, however long: the text of a statement does not depend on how much is asked.
#[derive(Clone, Debug)]
pub enum Param {
    /// A value.
    One(Sqlite),
    /// The rows of `rarray(?)`.
    Many(Array),
}

impl Param {
    /// The rows of `rarray(?)`.
    pub fn many(values: impl IntoIterator<Item = Sqlite>) -> Param {
        Param::Many(Rc::new(values.into_iter().collect()))
    }
}

impl<T: Into<Sqlite>> From<T> for Param {
    fn from(value: T) -> Param {
        Param::One(value.into())
    }
}

impl ToSql for Param {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        match self {
            Param::One(value) => value.to_sql(),
            Param::Many(values) => values.to_sql(),
        }
    }
}

const ARRAY: &str = "x'5b'";
const OBJECT: &str = "x'7b'";
const ARRAY_BYTE: u8 = 0x5b;
const TRUE: &str = "x'01'";
const FALSE: &str = "x'00'";

/// Translates a filter over the JSONB documents in `column` (the name of a column, perhaps with its table's).
pub fn to_sql(filter: &Filter, column: &str) -> Sql {
    let mut writer = Writer { column, text: String::new(), params: Vec::new() };
    writer.filter(filter);
    // Everything is: what SQL cannot say is said by `filter_matches`.
    Sql { text: writer.text, params: writer.params, exact: true }
}

/// The value at `path` of the node in `column`: the text that indexes and [`to_sql`] share.
pub fn expression(path: &str, column: &str) -> String {
    expression_of(path, NODE.type_of(path), column)
}

/// A condition that holds for every document that [`to_sql`] may be used on, for a `CHECK` constraint.
pub fn scalars(schema: &Schema, column: &str) -> String {
    let fields = schema.fields.iter().filter(|(path, kind)| is_scalar(path, *kind));
    let checks = fields.map(|(path, _)| {
        format!("coalesce(json_type({column}, {}), 'null') NOT IN ('array', 'object')", json_path(path))
    });
    checks.collect::<Vec<_>>().join(" AND ")
}

/// Adds what [`to_sql`] uses to a connection: the functions `filter_matches` and `regexp`, and `rarray`.
pub fn register(connection: &Connection) -> Result<()> {
    let flags =
        FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_DIRECTONLY;
    connection.create_scalar_function("filter_matches", 2, flags, filter_matches)?;
    connection.create_scalar_function("regexp", 2, flags, regexp)?;
    array::load_module(connection)
}

/// `filter_matches(condition, part)`: whether a document whose member at the first name of the path is `part`, as
/// JSON text, matches. Null is a member that is not there.
fn filter_matches(context: &mut Context<'_>) -> Result<bool> {
    let filter = context.get_or_create_aux(0, |text| -> std::result::Result<Filter, BoxError> {
        term::read(text.as_str()?).ok_or_else(|| "not a condition".into())
    })?;
    let Filter::Field { path, .. } = filter.as_ref() else {
        return Ok(false);
    };
    let mut doc = Map::new();
    if let Some(part) = context.get_raw(1).as_str_or_null()? {
        let part = serde_json::from_str(part).map_err(|error| Error::UserFunctionError(error.into()))?;
        doc.insert(path::split(path).0.to_owned(), part);
    }
    Ok(filter.matches(&Value::Object(doc)))
}

/// `regexp(pattern, value)`: whether the value is a string in which the pattern is found.
fn regexp(context: &mut Context<'_>) -> Result<bool> {
    let pattern = context.get_or_create_aux(0, |text| -> std::result::Result<_, BoxError> {
        Ok(Pattern::of_ascii(text.as_str()?)?)
    })?;
    match context.get_raw(1) {
        ValueRef::Text(text) => Ok(pattern.is_match(std::str::from_utf8(text)?)),
        _ => Ok(false),
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn is_scalar(path: &str, kind: FieldType) -> bool {
    !path.contains('.') && !matches!(kind, FieldType::Json | FieldType::LooseId)
}

/// A path as an SQL literal. Names have no quotes and no backslashes (`filter::path`).
fn json_path(path: &str) -> String {
    let mut text = String::from("'$");
    for name in path.split('.') {
        text.extend([".\"", name, "\""]);
    }
    text.push('\'');
    text
}

fn expression_of(path: &str, kind: FieldType, column: &str) -> String {
    let here = json_path(path);
    if is_scalar(path, kind) {
        return format!("{column} ->> {here}");
    }
    let mut value = format!("{column} ->> {here}");
    let on_the_way: Vec<String> = path
        .match_indices('.')
        .filter_map(|(dot, _)| path.get(..dot))
        .map(|above| format!(" WHEN json_type({column}, {}) THEN {ARRAY}", json_path(above)))
        .collect();
    if !on_the_way.is_empty() {
        value = format!("coalesce({value}, CASE 'array'{} END)", on_the_way.concat());
    }
    format!(
        "CASE json_type({column}, {here}) WHEN 'array' THEN {ARRAY} WHEN 'object' THEN {OBJECT} \
         WHEN 'true' THEN {TRUE} WHEN 'false' THEN {FALSE} ELSE {value} END"
    )
}

struct Writer<'c> {
    column: &'c str,
    text: String,
    params: Vec<Param>,
}

/// One field's condition, while it is written.
struct Field<'f> {
    path: &'f str,
    test: &'f Test,
    scalar: bool,
    value: String,
}

impl Writer<'_> {
    fn filter(&mut self, filter: &Filter) {
        match filter {
            Filter::And(parts) => self.join(parts, " AND ", "1"),
            Filter::Or(parts) => self.join(parts, " OR ", "0"),
            Filter::Not(part) => self.negated(|writer| writer.filter(part)),
            Filter::Field { path, kind, test } => {
                let value = expression_of(path, *kind, self.column);
                self.field(&Field { path, test, scalar: is_scalar(path, *kind), value });
            }
        }
    }

    fn join(&mut self, parts: &[Filter], between: &str, none: &str) {
        self.text.push('(');
        for (index, part) in parts.iter().enumerate() {
            self.text.push_str(if index > 0 { between } else { "" });
            self.filter(part);
        }
        self.text.push_str(if parts.is_empty() { none } else { "" });
        self.text.push(')');
    }

    fn negated(&mut self, inner: impl FnOnce(&mut Self)) {
        self.text.push_str("((");
        inner(self);
        self.text.push_str(") IS NOT TRUE)");
    }

    fn param(&mut self, value: impl Into<Param>) {
        self.text.push('?');
        self.params.push(value.into());
    }

    fn push(&mut self, parts: &[&str]) {
        self.text.extend(parts.iter().copied());
    }

    fn field(&mut self, field: &Field<'_>) {
        match field.test {
            Test::Eq(value) => self.equal(field, std::slice::from_ref(value)),
            Test::In(values) => self.equal(field, values),
            Test::Ne(value) => {
                let test = Test::Eq(value.clone());
                self.negated(|writer| writer.field(&field.with(&test)));
            }
            Test::Nin(values) => {
                let test = Test::In(values.clone());
                self.negated(|writer| writer.field(&field.with(&test)));
            }
            Test::Exists(false) => self.negated(|writer| writer.field(&field.with(&Test::Exists(true)))),
            Test::Exists(true) => {
                let (column, here) = (self.column, json_path(field.path));
                self.push(&["(json_type(", column, ", ", &here, ") IS NOT NULL"]);
                self.or_array(field);
                self.text.push(')');
            }
            Test::Re(pattern) => {
                self.text.push_str("(regexp(");
                self.param(pattern.text().to_owned());
                self.push(&[", ", &field.value, ")"]);
                self.or_array(field);
                self.text.push(')');
            }
            Test::Lt(value) => self.range(field, value, "<"),
            Test::Lte(value) => self.range(field, value, "<="),
            Test::Gt(value) => self.range(field, value, ">"),
            Test::Gte(value) => self.range(field, value, ">="),
        }
    }

    /// ` OR` what the function says if there is an array.
    fn or_array(&mut self, field: &Field<'_>) {
        if !field.scalar {
            self.push(&[" OR (", &field.value, " = ", ARRAY, " AND "]);
            self.decide(field);
            self.text.push(')');
        }
    }

    /// Lets the function decide about this document.
    fn decide(&mut self, field: &Field<'_>) {
        self.text.push_str("filter_matches(");
        self.param(term::write(field.path, field.test));
        let member = json_path(path::split(field.path).0);
        let column = self.column;
        self.push(&[", ", column, " -> ", &member, ")"]);
    }

    /// Equal to one of the values.
    fn equal(&mut self, field: &Field<'_>, values: &[Value]) {
        self.text.push('(');
        let start = self.text.len();
        let mut listed: Vec<&Value> = values.iter().filter(|value| value.is_string()).collect();
        if field.scalar {
            self.list(field, &listed, false);
        } else if !values.is_empty() {
            // One list with the arrays, so that one search of an index finds both.
            listed.extend(values.iter().filter(|value| value.is_boolean()));
            self.text.push('(');
            self.list(field, &listed, true);
            self.push(&[" AND (", &field.value, " <> ", ARRAY, " OR "]);
            self.decide(field);
            self.text.push_str("))");
        }
        if values.iter().any(Value::is_null) {
            self.alternative(start);
            self.push(&[&field.value, " IS NULL"]);
        }
        for wanted in [true, false] {
            if field.scalar && values.contains(&Value::Bool(wanted)) {
                let (number, word) = if wanted { ("1", "'true'") } else { ("0", "'false'") };
                let (column, here) = (self.column, json_path(field.path));
                self.alternative(start);
                self.push(&["(", &field.value, " = ", number]);
                self.push(&[" AND json_type(", column, ", ", &here, ") = ", word, ")"]);
            }
        }
        let numbers: Vec<&Number> = values.iter().filter_map(Value::as_number).collect();
        if !numbers.is_empty() {
            self.alternative(start);
            self.numbers(field, &numbers);
        }
        if self.text.len() == start {
            self.text.push('0');
        }
        self.text.push(')');
    }

    /// ` OR`, unless nothing stands behind `start` yet.
    fn alternative(&mut self, start: usize) {
        if self.text.len() > start {
            self.text.push_str(" OR ");
        }
    }

    /// Equal to one of some strings and booleans, or perhaps an array.
    fn list(&mut self, field: &Field<'_>, values: &[&Value], arrays: bool) {
        match values {
            [] if !arrays => {}
            [] => self.push(&[&field.value, " = ", ARRAY]),
            [value] => {
                self.push(&[&field.value, if arrays { " IN (" } else { " = " }]);
                self.param(scalar(value));
                self.push(&if arrays { [", ", ARRAY, ")"] } else { ["", "", ""] });
            }
            _ => {
                self.push(&[&field.value, " IN rarray("]);
                let arrays = arrays.then(|| Sqlite::Blob(vec![ARRAY_BYTE]));
                self.param(Param::many(values.iter().map(|value| scalar(value)).chain(arrays)));
                self.text.push(')');
            }
        }
    }

    fn range(&mut self, field: &Field<'_>, operand: &Value, op: &str) {
        let up = op.starts_with('>');
        self.text.push('(');
        match operand {
            Value::String(text) => {
                self.push(&["(", &field.value, " ", op, " "]);
                self.param(text.clone());
                // The type's other end: text begins with '' and ends where blobs begin.
                self.push(&[" AND ", &field.value, if up { " < x'')" } else { " >= '')" }]);
            }
            Value::Number(number) => self.number(field, number, op),
            // Null equals null.
            Value::Null => match op {
                "<=" | ">=" => self.push(&[&field.value, " IS NULL"]),
                _ => self.text.push('0'),
            },
            Value::Bool(_) if field.scalar => self.decide(field),
            Value::Bool(wanted) => {
                let wanted = if *wanted { TRUE } else { FALSE };
                self.push(&["(", &field.value, " ", op, " ", wanted]);
                self.push(&[" AND ", &field.value, " IN (", TRUE, ", ", FALSE, "))"]);
            }
            Value::Array(_) | Value::Object(_) => self.text.push('0'),
        }
        self.or_array(field);
        self.text.push(')');
    }

    /// Is greater or less than a number.
    fn number(&mut self, field: &Field<'_>, number: &Number, op: &str) {
        self.push(&["(", &field.value]);
        let (low, high) = bounds(number);
        if op.starts_with('>') {
            self.text.push_str(" >= ");
            self.param(low);
            // Text begins where numbers end.
            self.push(&[" AND ", &field.value, " < ''"]);
        } else {
            self.text.push_str(" <= ");
            self.param(high);
        }
        self.push(&[" AND CASE typeof(", &field.value, ") WHEN 'integer' THEN ", &field.value, " ", op, " "]);
        self.param(native(number));
        self.no_boolean(field);
    }

    /// Equals one of some numbers.
    fn numbers(&mut self, field: &Field<'_>, numbers: &[&Number]) {
        self.text.push('(');
        if let [number] = numbers {
            let (low, high) = bounds(number);
            self.push(&[&field.value, " BETWEEN "]);
            self.param(low);
            self.text.push_str(" AND ");
            self.param(high);
            self.text.push_str(" AND ");
        }
        self.push(&["CASE typeof(", &field.value, ") WHEN 'integer' THEN ", &field.value]);
        if let [number] = numbers {
            self.text.push_str(" = ");
            self.param(native(number));
        } else {
            self.text.push_str(" IN rarray(");
            self.param(Param::many(numbers.iter().map(|number| native(number))));
            self.text.push(')');
        }
        self.no_boolean(field);
    }

    /// Ends the `CASE` of a comparison with numbers: a plain `->>` gives booleans as 0 and 1, and about floats the
    /// function decides, because SQLite may read them a digit in the last place off.
    fn no_boolean(&mut self, field: &Field<'_>) {
        if field.scalar {
            let (column, here) = (self.column, json_path(field.path));
            self.push(&[" AND json_type(", column, ", ", &here, ") = 'integer'"]);
        }
        self.text.push_str(" WHEN 'real' THEN ");
        self.decide(field);
        self.text.push_str(" ELSE 0 END)");
    }
}

/// A string or a boolean as it stands in an index.
fn scalar(value: &Value) -> Sqlite {
    match value {
        Value::String(text) => Sqlite::Text(text.clone()),
        value => Sqlite::Blob(vec![u8::from(value.as_bool().unwrap_or(false))]),
    }
}

fn native(number: &Number) -> Sqlite {
    number.as_i64().map_or_else(|| Sqlite::Real(number.as_f64().unwrap_or_default()), Sqlite::Integer)
}

/// What lies between these may be the number, with room for how SQLite reads floats.
fn bounds(number: &Number) -> (f64, f64) {
    let number = number.as_f64().unwrap_or_default();
    let slack = (number.abs() * 1e-12).max(f64::MIN_POSITIVE);
    ((number - slack).max(f64::MIN), (number + slack).min(f64::MAX))
}

impl<'f> Field<'f> {
    /// The same field with another test.
    fn with<'t>(&self, test: &'t Test) -> Field<'t>
    where
        'f: 't,
    {
        Field { path: self.path, test, scalar: self.scalar, value: self.value.clone() }
    }
}

#[cfg(test)]
mod tests;
