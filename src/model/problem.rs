//! What is wrong with a request, collected field by field and told in the two ways that KernelCI clients see
//! (contract 1.5), in pydantic's words: a list of items (422), and text (400) for what depends on a node's kind.
//! Neither repeats more than a little of what the client sent.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::lax;
use crate::error::{Error, Kind};

/// So many problems of one request are told, the rest is counted: nobody reads more, and an answer must not be longer than
/// what was sent.
const MOST: usize = 20;
/// A value whose JSON is at most this long (bytes) is repeated whole in a 422 item, longer ones as cut text.
const WHOLE: usize = 512;
/// Characters of a longer value that are repeated.
const CUT: usize = 100;
/// Characters of a value that a 400 text repeats.
const SHOWN: usize = 50;

/// A place in a request: a chain of steps that lives on the stack, so that walking a good body allocates nothing.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    up: Option<&'a At<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Key(&'a str),
    Index(usize),
}

impl<'a> At<'a> {
    /// The whole.
    pub(crate) const ROOT: At<'static> = At { up: None, step: Step::Root };

    /// The member `key` of what is here.
    pub(crate) fn key(&'a self, key: &'a str) -> At<'a> {
        At { up: Some(self), step: Step::Key(key) }
    }
    /// The element `index` of what is here.
    pub(crate) fn index(&'a self, index: usize) -> At<'a> {
        At { up: Some(self), step: Step::Index(index) }
    }
    /// What stands here in another value of the same shape.
    fn look_up<'v>(&self, whole: &'v Value) -> Option<&'v Value> {
        // Recursion: bodies are about a hundred levels deep at most.
        let above = self.up.map_or(Some(whole), |up| up.look_up(whole))?;
        match self.step {
            Step::Root => Some(above),
            Step::Key(key) => above.get(key),
            Step::Index(index) => above.get(index),
        }
    }
    fn path(&self) -> Vec<Value> {
        let mut path = Vec::new();
        let mut here = Some(self);
        let mut room = WHOLE;
        while let Some(at) = here {
            match at.step {
                Step::Root => {}
                Step::Key(key) => {
                    let key = if room > 0 { cut(key) } else { "…".to_owned() };
                    room = room.saturating_sub(key.len());
                    path.push(key.into());
                }
                Step::Index(index) => path.push(index.into()),
            }
            here = at.up;
        }
        path.reverse();
        path
    }
}

/// One thing that is wrong.
#[derive(Debug)]
struct Problem {
    kind: &'static str,
    loc: Vec<Value>,
    msg: String,
    input: Value,
    shown: String,
    python_type: &'static str,
    ctx: Option<Value>,
}

/// Everything that is wrong with one request: the first things, and how many more there are.
#[derive(Debug)]
pub(crate) struct Problems {
    /// What is stored: what a request leaves as it is there is no problem of the request.
    known: Option<Arc<Value>>,
    list: Vec<Problem>,
    /// So many may still be added to the list.
    room: usize,
    /// What had no room.
    more: usize,
}

impl Default for Problems {
    fn default() -> Self {
        Problems { known: None, list: Vec::new(), room: MOST, more: 0 }
    }
}

impl Problems {
    /// For a part of the request, to be [`absorb`](Problems::absorb)ed: it has the room that is left here.
    pub(crate) fn of_part(&self) -> Problems {
        Problems { known: self.known.clone(), list: Vec::new(), room: self.room, more: 0 }
    }
    /// From now on nothing is wrong with what stands in `known` at the same place: it was taken once.
    pub(crate) fn besides(self, known: Option<&Arc<Value>>) -> Problems {
        Problems { known: known.cloned(), ..self }
    }
    /// What is stored, if something is; until it is put back, everything is a problem.
    pub(crate) fn take_known(&mut self) -> Option<Arc<Value>> {
        self.known.take()
    }
    /// Puts back what was taken out.
    pub(crate) fn put_known(&mut self, known: Option<Arc<Value>>) {
        self.known = known;
    }
    /// Whether this is what is stored at this place.
    pub(crate) fn knows(&self, at: &At<'_>, value: &Value) -> bool {
        self.known.as_deref().is_some_and(|known| at.look_up(known) == Some(value))
    }
    /// Notes that `input`, which stands `at`, is wrong: pydantic's error type `kind`, its message and its context.
    pub(crate) fn add(
        &mut self,
        at: &At<'_>,
        kind: &'static str,
        msg: impl Into<String>,
        input: &Value,
        ctx: Option<Value>,
    ) {
        if self.knows(at, input) {
            return;
        }
        if self.room == 0 {
            self.more += 1;
            return;
        }
        self.room -= 1;
        self.list.push(Problem {
            kind,
            loc: at.path(),
            msg: msg.into(),
            input: short(input),
            shown: python_repr(input),
            python_type: python_type(input),
            ctx,
        });
    }
    /// Notes that a required member of `parent` is absent.
    pub(crate) fn missing(&mut self, at: &At<'_>, parent: &Value) {
        let is_missed = |known: &Value| {
            at.up.is_some_and(|up| up.look_up(known).is_some_and(Value::is_object))
                && at.look_up(known).is_none()
        };
        if self.known.as_deref().is_some_and(is_missed) {
            return;
        }
        self.add(at, "missing", "Field required", parent, None);
    }
    /// Notes something that no type of pydantic's says; `msg` says what was expected.
    pub(crate) fn value_error(&mut self, at: &At<'_>, msg: &str, input: &Value) {
        self.add(at, "value_error", format!("Value error, {msg}"), input, Some(json!({"error": {}})));
    }
    /// Notes that `input` is none of these words.
    pub(crate) fn not_one_of(&mut self, at: &At<'_>, words: &[&str], input: &Value) {
        let mut expected = String::new();
        for (i, word) in words.iter().enumerate() {
            expected += match i {
                0 => "'",
                _ if i + 1 == words.len() => " or '",
                _ => ", '",
            };
            expected += word;
            expected += "'";
        }
        let msg = format!("Input should be {expected}");
        self.add(at, "enum", msg, input, Some(json!({"expected": expected})));
    }
    /// Notes that `input` is no boolean, however loosely read.
    pub(crate) fn not_a_flag(&mut self, at: &At<'_>, bad: lax::Bad, input: &Value) {
        match bad {
            lax::Bad::Content => {
                let msg = "Input should be a valid boolean, unable to interpret input";
                self.add(at, "bool_parsing", msg, input, None);
            }
            lax::Bad::Type => self.add(at, "bool_type", "Input should be a valid boolean", input, None),
        }
    }
    /// Notes that a text has more than `most` characters.
    pub(crate) fn too_long(&mut self, at: &At<'_>, most: usize, input: &Value) {
        let msg = format!("String should have at most {most} characters");
        self.add(at, "string_too_long", msg, input, Some(json!({"max_length": most})));
    }
    /// Notes that a list or dictionary (`what`) has more than `most` items.
    pub(crate) fn too_many(&mut self, at: &At<'_>, what: &str, most: usize, actual: usize, input: &Value) {
        let msg = format!("{what} should have at most {most} items after validation, not {actual}");
        let ctx = json!({"field_type": what, "max_length": most, "actual_length": actual});
        self.add(at, "too_long", msg, input, Some(ctx));
    }
    /// Whether nothing is wrong.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty() && self.more == 0
    }
    /// Moves everything from `other` here, its places taken to be below `prefix`.
    pub(crate) fn absorb(&mut self, other: Problems, prefix: &[Value]) {
        let (room, found) = (self.room, other.list.len());
        for mut problem in other.list.into_iter().take(room) {
            problem.loc.splice(0..0, prefix.iter().cloned());
            self.list.push(problem);
        }
        self.room = room.saturating_sub(found);
        self.more += other.more + found.saturating_sub(room);
    }
    /// 422 with a list of items below `["body"]`; nothing if nothing is wrong.
    pub(crate) fn into_items(mut self) -> Result<(), Error> {
        for problem in &mut self.list {
            problem.loc.insert(0, "body".into());
        }
        self.into_placed_items()
    }
    /// As [`Problems::into_items`], where the places begin with where a parameter came from.
    pub(crate) fn into_placed_items(self) -> Result<(), Error> {
        if self.is_empty() {
            return Ok(());
        }
        let last = self.more();
        let items: Vec<Value> = self.list.into_iter().map(Problem::into_item).chain(last).collect();
        Err(Error::new(Kind::InvalidParams, items))
    }
    /// An item like the others that says how many there are besides, if there are.
    fn more(&self) -> Option<Value> {
        let origin = self.list.first().and_then(|problem| problem.loc.first());
        let more = self.more;
        let item = || {
            json!({"type": "more_errors", "loc": origin.as_slice(), "msg": format!("{more} more errors"), "input": null,
                "ctx": {"count": more}})
        };
        (more > 0).then(item)
    }
    /// 400 with a text that names the fields; nothing if nothing is wrong.
    pub(crate) fn into_text(self, title: &str) -> Result<(), Error> {
        let count = self.list.len() + self.more;
        if count == 0 {
            return Ok(());
        }
        let errors = if count == 1 { "error" } else { "errors" };
        let mut text = format!("{count} validation {errors} for {title}");
        for problem in &self.list {
            text.push('\n');
            for (i, step) in problem.loc.iter().enumerate() {
                let dot = if i == 0 { "" } else { "." };
                // Writing to a String cannot fail.
                let _ = match step {
                    Value::String(key) => write!(text, "{dot}{key}"),
                    other => write!(text, "{dot}{other}"),
                };
            }
            let Problem { kind, msg, shown, python_type, .. } = problem;
            let _ = write!(text, "\n  {msg} [type={kind}, input_value={shown}, input_type={python_type}]");
        }
        if self.more > 0 {
            let _ = write!(text, "\n{} more errors", self.more);
        }
        Err(Error::bad_request(text))
    }
}

impl Problem {
    fn into_item(self) -> Value {
        let mut item = Map::new();
        item.insert("type".into(), self.kind.into());
        item.insert("loc".into(), self.loc.into());
        item.insert("msg".into(), self.msg.into());
        item.insert("input".into(), self.input);
        if let Some(ctx) = self.ctx {
            item.insert("ctx".into(), ctx);
        }
        item.into()
    }
}

/// At most the first [`CUT`] characters of what a client sent, for an error that repeats it.
pub(crate) fn cut(text: &str) -> String {
    match text.char_indices().nth(CUT) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// `value` itself while it is small, else the beginning of its text.
pub(crate) fn short(value: &Value) -> Value {
    if let Value::String(text) = value {
        return cut(text).into();
    }
    let mut text = Bounded { bytes: Vec::new(), limit: WHOLE };
    match serde_json::to_writer(&mut text, value) {
        Ok(()) => value.clone(),
        Err(_) => cut(&String::from_utf8_lossy(&text.bytes)).into(),
    }
}

/// Takes so many bytes and then fails, so that a large value is not written out for nothing.
struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
}

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let room = self.limit.saturating_sub(self.bytes.len());
        self.bytes.extend(bytes.iter().take(room));
        match bytes.len() <= room {
            true => Ok(bytes.len()),
            false => Err(std::io::ErrorKind::WriteZero.into()),
        }
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn python_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "NoneType",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float",
        Value::Number(_) => "int",
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Object(_) => "dict",
    }
}

/// The value as Python would show it, cut to [`SHOWN`] characters.
pub(crate) fn python_repr(value: &Value) -> String {
    let mut out = Shown { text: String::new(), room: SHOWN };
    if write_repr(&mut out, value).is_err() {
        out.text.push_str("...");
    }
    out.text
}

/// Takes so many characters and then fails, which ends the walk through the value.
struct Shown {
    text: String,
    room: usize,
}

impl std::fmt::Write for Shown {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for c in text.chars() {
            self.room = self.room.checked_sub(1).ok_or(std::fmt::Error)?;
            self.text.push(c);
        }
        Ok(())
    }
}

// Recursion: ends after SHOWN characters, and every level writes at least one.
fn write_repr(out: &mut Shown, value: &Value) -> std::fmt::Result {
    match value {
        Value::Null => out.write_str("None"),
        Value::Bool(true) => out.write_str("True"),
        Value::Bool(false) => out.write_str("False"),
        Value::Number(number) => write!(out, "{number}"),
        Value::String(text) => write_str_repr(out, text),
        Value::Array(list) => {
            out.write_char('[')?;
            for (i, element) in list.iter().enumerate() {
                out.write_str(if i == 0 { "" } else { ", " })?;
                write_repr(out, element)?;
            }
            out.write_char(']')
        }
        Value::Object(map) => {
            out.write_char('{')?;
            for (i, (key, member)) in map.iter().enumerate() {
                out.write_str(if i == 0 { "" } else { ", " })?;
                write_str_repr(out, key)?;
                out.write_str(": ")?;
                write_repr(out, member)?;
            }
            out.write_char('}')
        }
    }
}

/// Python quotes with `'` unless only that occurs in the text.
fn write_str_repr(out: &mut Shown, text: &str) -> std::fmt::Result {
    let head: String = text.chars().take(SHOWN).collect();
    let quote = if head.contains('\'') && !head.contains('"') { '"' } else { '\'' };
    out.write_char(quote)?;
    for c in text.chars() {
        match c {
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            '\\' => out.write_str("\\\\")?,
            c if c == quote => write!(out, "\\{c}")?,
            c if c.is_control() => write!(out, "\\x{:02x}", u32::from(c))?,
            c => out.write_char(c)?,
        }
    }
    out.write_char(quote)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_as_python_shows_them_and_cut() {
        let cases = [
            (json!(null), "None"),
            (json!(true), "True"),
            (json!(1.5), "1.5"),
            (json!("it's"), "\"it's\""),
            (json!("it's \"x\"\n\u{0}"), "'it\\'s \"x\"\\n\\x00'"),
            (json!([1, "a", {"k": false}]), "[1, 'a', {'k': False}]"),
        ];
        for (value, shown) in cases {
            assert_eq!(python_repr(&value), shown);
        }
        let long = python_repr(&json!({"k": "x".repeat(100_000)}));
        assert_eq!(long.chars().count(), SHOWN + 3);
        assert!(long.starts_with("{'k': 'xxx") && long.ends_with("x..."));
    }

    #[test]
    fn items_have_the_shape_of_fastapi_and_repeat_little() {
        let mut problems = Problems::default();
        let at = At::ROOT.key("path");
        problems.add(&at.index(3), "string_type", "Input should be a valid string", &json!(5), None);
        problems.value_error(&At::ROOT.key("name"), "too odd", &json!("y".repeat(1000)));
        problems.missing(&At::ROOT.key("name"), &json!({"big": "z".repeat(1000)}));
        let error = problems.into_items().unwrap_err();
        assert_eq!(error.status(), 422);
        let items = error.detail().as_array().unwrap();
        assert_eq!(
            items[0],
            json!({"type":"string_type","loc":["body","path",3],"msg":"Input should be a valid string","input":5})
        );
        assert_eq!(items[1]["ctx"], json!({"error": {}}));
        assert_eq!(items[1]["input"].as_str().unwrap().chars().count(), CUT + 1);
        assert_eq!(items[2]["input"].as_str().unwrap().chars().count(), CUT + 1);
    }

    #[test]
    fn the_text_names_each_field_and_has_no_links() {
        let mut problems = Problems::default();
        let data = At::ROOT.key("data");
        problems.add(&data.key("x"), "int_type", "Input should be a valid integer", &json!("6"), None);
        let detail = problems.into_text("Checkout").unwrap_err().detail().clone();
        assert_eq!(
            detail,
            "1 validation error for Checkout\ndata.x\n  Input should be a valid integer \
             [type=int_type, input_value='6', input_type=str]"
        );
    }

    #[test]
    fn a_body_full_of_mistakes_is_told_a_bounded_number_of_times() {
        let filled = || {
            let mut problems = Problems::default();
            for i in 0..10_000 {
                problems.value_error(&At::ROOT.index(i), "no", &json!(i));
            }
            problems
        };
        let error = filled().into_items().unwrap_err();
        let items = error.detail().as_array().unwrap();
        assert_eq!(items.len(), MOST + 1);
        assert_eq!(
            items[MOST],
            json!({"type": "more_errors", "loc": ["body"], "msg": "9980 more errors", "input": null, "ctx": {"count": 9980}})
        );
        let text = filled().into_text("Checkout").unwrap_err().detail().as_str().unwrap().to_owned();
        assert!(text.starts_with("10000 validation errors for Checkout\n0\n"), "{text}");
        assert!(text.ends_with("\n9980 more errors") && text.len() < 2_000, "{text}");
    }

    #[test]
    fn problems_of_parts_are_counted_together() {
        let mut all = Problems::default();
        for part in 0..1_000 {
            let mut own = all.of_part();
            for i in 0..3 {
                own.value_error(&At::ROOT.index(i), "no", &json!(i));
            }
            assert!(!own.is_empty());
            all.absorb(own, &[part.into()]);
            assert!(all.list.len() <= MOST);
        }
        let error = all.into_placed_items().unwrap_err();
        let items = error.detail().as_array().unwrap();
        assert_eq!((items.len(), &items[MOST]["ctx"]), (MOST + 1, &json!({"count": 2980})));
        assert_eq!(items[MOST - 1]["loc"], json!([6, 1]));
    }

    #[test]
    fn a_long_way_to_a_mistake_is_told_in_short() {
        fn walk(at: &At<'_>, left: usize, problems: &mut Problems) {
            let key = format!("{left}{}", "é".repeat(200));
            match left {
                0 => problems.value_error(at, "no", &Value::Null),
                _ => walk(&at.key(&key), left - 1, problems),
            }
        }
        let mut problems = Problems::default();
        walk(&At::ROOT, 64, &mut problems);
        let loc = problems.into_placed_items().unwrap_err().detail()[0]["loc"].clone();
        assert_eq!((loc.as_array().unwrap().len(), &loc[0]), (64, &json!("…")));
        assert!(loc[63].as_str().unwrap().starts_with("1é"), "{loc}");
        assert!(loc.to_string().len() < 1_500, "{loc}");
    }
}
