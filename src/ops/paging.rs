//! Pages of a sorted result: sort keys as clients write them, and the opaque cursor to what follows.
//!
//! A cursor holds the sort values of the last item, so a page is found by index and is not moved by writes before
//! it. The condition "behind this item" is an ordinary [`Filter`], the same for every store.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::filter::{Filter, NODE, Test};
use crate::store::{SORTABLE, SortKey, Wire};

const MOST_KEYS: usize = 4;

/// The number of items to answer: 1 to `most`, default 50.
pub(super) fn limit(wanted: Option<u64>, most: u64) -> Result<u64> {
    match wanted {
        None => Ok(50),
        Some(limit) if (1..=most).contains(&limit) => Ok(limit),
        Some(_) => Err(Error::invalid("limit", format!("expected 1 to {most}"))),
    }
}

/// Reads `["-created", "name"]`; `id` is added as the last key, in the direction of the first.
pub(super) fn sort_keys(sort: &[String]) -> Result<Vec<SortKey>> {
    if sort.len() > MOST_KEYS {
        return Err(Error::invalid("sort", format!("expected at most {MOST_KEYS} keys")));
    }
    let mut keys: Vec<SortKey> = Vec::new();
    for name in sort {
        let (descending, name) = name.strip_prefix('-').map_or((false, name.as_str()), |name| (true, name));
        let known = SORTABLE.iter().find(|known| **known == name);
        let field = known.ok_or_else(|| {
            let shown: String = name.chars().take(64).collect();
            let keys = SORTABLE.join(", ");
            Error::invalid("sort", format!("{shown:?} is not one of {keys} (with - before for descending)"))
        })?;
        if keys.iter().any(|key| key.field == *field) {
            return Err(Error::invalid("sort", format!("{field} is there twice")));
        }
        keys.push(SortKey { field, descending });
    }
    if keys.iter().all(|key| key.field != "id") {
        let descending = keys.first().is_some_and(|key| key.descending);
        keys.push(SortKey { field: "id", descending });
    }
    Ok(keys)
}

/// The cursor behind `last`.
pub(super) fn cursor(keys: &[SortKey], last: &Wire) -> String {
    let values: Vec<Value> =
        keys.iter().map(|key| last.get(key.field).cloned().unwrap_or(Value::Null)).collect();
    BASE64_URL_SAFE_NO_PAD.encode(json!([describe(keys), values]).to_string())
}

/// The condition "behind the item of this cursor".
pub(super) fn behind(keys: &[SortKey], cursor: &str) -> Result<Filter> {
    let bad = || Error::invalid("after", "expected `next` of the page before, with the same sort");
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).map_err(|_| bad())?;
    let (sort, values): (String, Vec<Value>) = serde_json::from_slice(&bytes).map_err(|_| bad())?;
    let plain = values.iter().all(|value| !value.is_object() && !value.is_array());
    if sort != describe(keys) || values.len() != keys.len() || !plain {
        return Err(bad());
    }
    let mut either = Vec::new();
    for (index, (key, value)) in keys.iter().zip(&values).enumerate() {
        let mut all: Vec<Filter> = keys
            .iter()
            .zip(&values)
            .take(index)
            .map(|(key, value)| test(key, Test::Eq(value.clone())))
            .collect();
        all.push(beyond(key, value));
        either.push(Filter::And(all));
    }
    Ok(Filter::Or(either))
}

/// Null sorts before everything.
fn beyond(key: &SortKey, value: &Value) -> Filter {
    match (key.descending, value.is_null()) {
        (false, true) => test(key, Test::Ne(Value::Null)),
        (false, false) => test(key, Test::Gt(value.clone())),
        (true, true) => Filter::Or(Vec::new()),
        (true, false) => {
            Filter::Or(vec![test(key, Test::Lt(value.clone())), test(key, Test::Eq(Value::Null))])
        }
    }
}

fn test(key: &SortKey, test: Test) -> Filter {
    Filter::Field { path: key.field.to_owned(), kind: NODE.type_of(key.field), test }
}

pub(super) fn describe(keys: &[SortKey]) -> String {
    let names: Vec<String> =
        keys.iter().map(|key| format!("{}{}", if key.descending { "-" } else { "" }, key.field)).collect();
    names.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_cover_a_sorted_list_with_nulls_and_ties_once() {
        let nodes: Vec<Wire> = (0..40)
            .map(|i| {
                let group = match i % 4 {
                    0 => Value::Null,
                    n => json!(format!("g{n}")),
                };
                let node = json!({"id": format!("{i:024x}"), "group": group, "retry_counter": i % 3});
                node.as_object().cloned().unwrap_or_default()
            })
            .collect();
        for sort in [vec!["group"], vec!["-group"], vec!["retry_counter", "-group"], vec!["-id"], vec![]] {
            let sort: Vec<String> = sort.into_iter().map(str::to_owned).collect();
            let keys = sort_keys(&sort).unwrap();
            let rank = |node: &Wire, field: &str| {
                let value = node.get(field).unwrap();
                (!value.is_null(), value.as_i64(), value.as_str().map(str::to_owned))
            };
            let mut sorted = nodes.clone();
            sorted.sort_by(|a, b| {
                keys.iter().fold(std::cmp::Ordering::Equal, |order, key| {
                    let by_key = rank(a, key.field).cmp(&rank(b, key.field));
                    order.then(if key.descending { by_key.reverse() } else { by_key })
                })
            });
            for (index, node) in sorted.iter().enumerate() {
                let behind = behind(&keys, &cursor(&keys, node)).unwrap();
                let rest: Vec<&Wire> =
                    sorted.iter().filter(|node| behind.matches(&Value::Object((*node).clone()))).collect();
                assert_eq!(rest, sorted[index + 1..].iter().collect::<Vec<_>>(), "{sort:?} behind {index}");
            }
        }
    }

    #[test]
    fn bad_cursors_and_sorts_are_refused() {
        let keys = sort_keys(&["-created".into()]).unwrap();
        assert_eq!(describe(&keys), "-created,-id");
        assert!(behind(&keys, "x!").is_err());
        assert!(behind(&sort_keys(&[]).unwrap(), &cursor(&keys, &Wire::new())).is_err(), "another sort");
        for bad in [vec!["data.x"], vec!["name", "-name"], vec!["$where"]] {
            assert!(sort_keys(&bad.into_iter().map(str::to_owned).collect::<Vec<_>>()).is_err());
        }
    }
}
