//! JSON as a stranger may write it: odd numbers, escapes that need not be, members twice, blanks.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

const NUMBERS: &[&str] = &[
    "0",
    "-0",
    "1",
    "-1",
    "1.0",
    "0.5",
    "1e2",
    "1E-7",
    "1e308",
    "1e999",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775809",
    "18446744073709551615",
    "18446744073709551616",
    "1700000000000",
    "253402300800",
    "0.30000000000000004",
];
const STRINGS: &[&str] = &[
    "",
    "a",
    "é",
    "\\u0000",
    "\\ud800",
    "\\ud83d\\ude00",
    "\\n",
    "\\/",
    "\\\"",
    "\\u0061",
    "$where",
    "2026-01-01",
    "2026-01-01T00:00:00.001000",
    "68f0aa11bb22cc33dd44ee55",
    "true",
    "null",
    "123",
    "now",
    " ",
];

/// A string with its quotes: one of `words`, or anything.
pub(crate) fn string(words: &'static [&'static str]) -> BoxedStrategy<String> {
    let quoted = |text: &str| format!("\"{text}\"");
    prop_oneof![
        6 => select(words).prop_map(quoted),
        3 => select(STRINGS).prop_map(quoted),
        1 => vec(any::<char>(), 0..6)
            .prop_map(|chars| serde_json::Value::from(chars.into_iter().collect::<String>()).to_string()),
    ]
    .boxed()
}

/// A value that is no list and no object; of strings `words` are the most.
pub(crate) fn scalar(words: &'static [&'static str]) -> BoxedStrategy<String> {
    prop_oneof![
        5 => string(words),
        2 => select(NUMBERS).prop_map(str::to_owned),
        1 => any::<i64>().prop_map(|number| number.to_string()),
        2 => select(vec!["null", "true", "false"]).prop_map(str::to_owned),
    ]
    .boxed()
}

/// An object of these members, as they are written.
pub(crate) fn object(members: Vec<(String, String)>) -> String {
    let members: Vec<String> = members.into_iter().map(|(name, value)| format!("{name}:{value}")).collect();
    format!("{{{}}}", members.join(","))
}

/// Any JSON whose objects have members of these names and whose strings are most often these words.
pub(crate) fn any_json(
    names: &'static [&'static str],
    words: &'static [&'static str],
) -> BoxedStrategy<String> {
    let list = |items: Vec<String>| format!("[{}]", items.join(", "));
    scalar(words)
        .prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                1 => vec(inner.clone(), 0..4).prop_map(list),
                3 => vec((string(names), inner), 0..5).prop_map(object),
            ]
        })
        .boxed()
}
