//! What an event on the channel `node` says of its node. Its readers depend on these members and on their types (contract 5.3,
//! 9.3): one that is wrong ends daemons and stops pages.

use serde_json::Value;

use super::fields::BASE;
use super::shape::{Field, Type, default, nullable};
use super::{Outcome, State};
use crate::error::{Error, Result};
use crate::model::problem::{At, Problems};

/// Members that every reader counts on.
const NEEDED: [&str; 7] = ["op", "id", "kind", "name", "state", "result", "data"];

/// Members that no node has.
static MORE: [Field; 3] = [
    default("op", Type::Text),
    nullable("previous_state", Type::Choice(&State::NAMES)),
    nullable("previous_result", Type::Choice(&Outcome::NAMES)),
];

/// 422 naming what is wrong, unless `data` can be the payload of an event about a node: the members that must be there are,
/// and those that a node has are as nodes have them.
pub fn check_event(data: &Value) -> Result<()> {
    for field in NEEDED {
        if data.get(field).is_none() {
            let why = "expected this field in an event on the channel node: its readers depend on it";
            return Err(Error::invalid(format!("data.{field}"), why));
        }
    }
    let (at, mut problems) = (At::ROOT.key("data"), Problems::default());
    for field in MORE.iter().chain(&BASE) {
        if let Some(value) = data.get(field.name) {
            field.read(value, &at.key(field.name), &mut problems);
        }
    }
    if let Some(value) = data.get("is_hierarchy").filter(|value| !value.is_boolean()) {
        problems.add(&at.key("is_hierarchy"), "bool_type", "Input should be a valid boolean", value, None);
    }
    let revision = data.pointer("/data/kernel_revision");
    if let Some(value) = revision.filter(|value| !value.is_object() && !value.is_null()) {
        let at = at.key("data");
        problems.add(
            &at.key("kernel_revision"),
            "dict_type",
            "Input should be a valid dictionary",
            value,
            None,
        );
    }
    problems.into_items()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event() -> Value {
        json!({"op": "updated", "id": "0123456789abcdef01234567", "kind": "job", "name": "j", "state": "done",
            "result": null, "data": null})
    }

    #[test]
    fn what_readers_count_on_is_there_and_of_its_type() {
        check_event(&event()).unwrap();
        let mut all = event();
        for (name, good) in [
            ("path", json!(["checkout", "j"])),
            ("group", json!(null)),
            ("owner", json!("ann")),
            ("is_hierarchy", json!(true)),
            ("previous_state", json!("running")),
            ("previous_result", json!(null)),
            ("data", json!({"kernel_revision": {"tree": "mainline"}, "x": 1})),
            ("created", json!("2026-01-01T00:00:00")),
            ("something else", json!({"a": 1})),
        ] {
            all[name] = good;
        }
        check_event(&all).unwrap();
        for field in NEEDED {
            let mut lacking = all.clone();
            lacking.as_object_mut().unwrap().remove(field);
            let error = check_event(&lacking).unwrap_err();
            assert!(error.detail().as_str().unwrap().starts_with(&format!("data.{field}: ")), "{error}");
        }
    }

    #[test]
    fn a_member_of_another_type_is_named() {
        for (name, wrong) in [
            ("op", json!(1)),
            ("id", json!("x")),
            ("kind", json!({"toString": 1})),
            ("name", json!(["j"])),
            ("state", json!("finished")),
            ("result", json!(false)),
            ("data", json!("text")),
            ("path", json!("j")),
            ("path", json!([1])),
            ("group", json!({})),
            ("parent", json!(7)),
            ("treeid", json!([])),
            ("owner", json!(1)),
            ("artifacts", json!([])),
            ("created", json!({})),
            ("is_hierarchy", json!("yes")),
            ("previous_state", json!(3)),
        ] {
            let mut event = event();
            event[name] = wrong.clone();
            let error = check_event(&event).unwrap_err();
            assert_eq!(error.status(), 422);
            let loc = &error.detail()[0]["loc"];
            assert_eq!(
                (&loc[0], &loc[1], &loc[2]),
                (&json!("body"), &json!("data"), &json!(name)),
                "{wrong}"
            );
        }
        let mut event = event();
        event["data"] = json!({"kernel_revision": "v6.1"});
        assert_eq!(check_event(&event).unwrap_err().detail()[0]["loc"][3], "kernel_revision");
    }
}
