//! What the `data` of each kind of node must look like (contract 2.3, 2.4). Single writes check it and change nothing,
//! hierarchies fill in what is absent; keys that are not named here are kept as they are.

use std::sync::Arc;

use serde_json::{Map, Number, Value};

use super::shape::{Model, Type, default, nullable, required};
use crate::error::{Error, Result};
use crate::model::lax;
use crate::model::problem::{At, Problems, cut, python_repr};

/// A kind of node.
#[derive(Debug)]
pub(super) struct Kind {
    /// As nodes name it.
    name: &'static str,
    /// Its name in errors.
    pub(super) title: &'static str,
    /// What `data` must look like; `None`: any object or null.
    data: Option<&'static Model>,
}

static KINDS: [Kind; 6] = [
    Kind { name: "checkout", title: "Checkout", data: Some(&CHECKOUT) },
    Kind { name: "kbuild", title: "Kbuild", data: Some(&KBUILD) },
    Kind { name: "job", title: "Job", data: Some(&JOB) },
    Kind { name: "test", title: "Test", data: Some(&TEST) },
    Kind { name: "process", title: "Process", data: None },
    Kind { name: "regression", title: "Regression", data: Some(&REGRESSION) },
];

const TEXTS: Type = Type::List(&Type::Text);

/// Why a kbuild, a job or a test is incomplete.
const ERROR_CODES: Type = Type::Choice(&[
    "invalid_job_params",
    "submit_error",
    "node_timeout",
    "Infrastructure",
    "Canceled",
    "Job",
    "Bug",
    "Test",
    "Configuration",
    "LAVATimeout",
    "MultinodeTimeout",
    "ObjectNotPersisted",
    // The full stop belongs to it.
    "Unexisting permission codename.",
    "job_generation_error",
    "kbuild_internal_error",
]);

static VERSION: Model = Model {
    name: "KernelVersion",
    fields: &[
        required("version", Type::Int),
        required("patchlevel", Type::Int),
        nullable("sublevel", Type::Int),
        nullable("extra", Type::Text),
        nullable("name", Type::Text),
    ],
};

static REVISION: Model = Model {
    name: "Revision",
    fields: &[
        required("tree", Type::Text),
        required("url", Type::Url),
        required("branch", Type::Text),
        required("commit", Type::Text),
        nullable("describe", Type::Text),
        nullable("version", Type::Model(&VERSION)),
        nullable("patchset", Type::Text),
        default("commit_tags", TEXTS).or_list(),
        nullable("commit_message", Type::Text),
        nullable("tip_of_branch", Type::Flag),
    ],
};

static CHECKOUT: Model = Model {
    name: "CheckoutData",
    fields: &[
        nullable("kernel_revision", Type::Model(&REVISION)),
        nullable("error_code", Type::Choice(&["node_timeout", "git_checkout_failure"])),
        nullable("error_msg", Type::Text),
        nullable("architecture_filter", TEXTS),
    ],
};

static KBUILD: Model = Model {
    name: "KbuildData",
    fields: &[
        nullable("kernel_revision", Type::Model(&REVISION)),
        nullable("arch", Type::Text),
        nullable("defconfig", Type::Text),
        nullable("compiler", Type::Text),
        nullable("config_full", Type::Text),
        nullable("platform", Type::Text),
        nullable("runtime", Type::Text),
        nullable("job_id", Type::Text),
        nullable("job_context", Type::Text),
        nullable("kernel_type", Type::Text),
        nullable("error_code", ERROR_CODES),
        nullable("error_msg", Type::Text),
        nullable("fragments", TEXTS),
        nullable("regression", Type::Id),
    ],
};

static JOB: Model = Model { name: "JobData", fields: TEST.fields };

static TEST: Model = Model {
    name: "TestData",
    fields: &[
        nullable("error_code", ERROR_CODES),
        nullable("error_msg", Type::Text),
        nullable("test_source", Type::Url),
        nullable("test_revision", Type::Model(&REVISION)),
        nullable("platform", Type::Text),
        nullable("device", Type::Text),
        nullable("runtime", Type::Text),
        nullable("job_id", Type::Text),
        nullable("job_context", Type::Text),
        nullable("regression", Type::Id),
        nullable("kernel_revision", Type::Model(&REVISION)),
        nullable("arch", Type::Text),
        nullable("defconfig", Type::Text),
        nullable("config_full", Type::Text),
        nullable("compiler", Type::Text),
        nullable("kernel_type", Type::Text),
        nullable("misc", Type::Object).or_object(),
    ],
};

static REGRESSION: Model = Model {
    name: "RegressionData",
    fields: &[
        nullable("fail_node", Type::Id),
        nullable("pass_node", Type::Id),
        nullable("node_sequence", Type::List(&Type::Id)).or_list(),
        nullable("error_code", ERROR_CODES),
        nullable("error_msg", Type::Text),
        nullable("failed_kernel_revision", Type::Model(&REVISION)),
        nullable("arch", Type::Text),
        nullable("defconfig", Type::Text),
        nullable("config_full", Type::Text),
        nullable("compiler", Type::Text),
        nullable("platform", Type::Text),
        nullable("device", Type::Text),
    ],
};

/// The kinds, each with what its `data` must look like.
pub(super) fn all() -> impl Iterator<Item = (&'static str, Option<&'static Model>)> {
    KINDS.iter().map(|kind| (kind.name, kind.data))
}

/// The kind of this name; 400 if there is none.
pub(super) fn of(name: &str) -> Result<&'static Kind> {
    KINDS
        .iter()
        .find(|kind| kind.name == name)
        .ok_or_else(|| Error::bad_request(format!("Unsupported node kind: {}", cut(name))))
}

impl Kind {
    /// Notes what is wrong with `data`.
    pub(super) fn check(&self, data: Option<&Map<String, Value>>, problems: &mut Problems) {
        let at = At::ROOT.key("data");
        match (self.data, data) {
            (None, _) => {}
            (Some(model), Some(data)) => model.check(data, &at, problems),
            (Some(model), None) => model.not_an_object(&Value::Null, &at, problems),
        }
    }

    /// Good `data` as KernelCI stores it in a hierarchy: whole, and normalised.
    pub(super) fn fill(&self, data: Map<String, Value>) -> Map<String, Value> {
        match self.data {
            Some(model) => model.fill(data),
            None => data,
        }
    }
}

/// The kind of this name. If it is none, `None` where the stored node has it already, else 400.
pub(super) fn of_stored(name: &str, known: Option<&Value>) -> Result<Option<&'static Kind>> {
    match of(name) {
        Err(_) if known.is_some_and(|known| known["kind"] == name) => Ok(None),
        kind => kind.map(Some),
    }
}

/// 400 unless `kind` exists and `data` is what it asks for, as far as they are not what is stored.
pub(super) fn check(kind: &str, data: Option<&Map<String, Value>>, known: Option<&Arc<Value>>) -> Result<()> {
    let Some(kind) = of_stored(kind, known.map(|known| &**known))? else { return Ok(()) };
    let mut problems = Problems::default().besides(known);
    kind.check(data, &mut problems);
    problems.into_text(kind.title)
}

/// Turns the numbers of `data.kernel_revision.version` that clients send as text into integers, as Python's `int()`
/// does; 400 if they are none. What is in `stored` as it is stays so.
pub(super) fn translate_version(
    data: Option<&mut Map<String, Value>>,
    stored: Option<&Map<String, Value>>,
) -> Result<()> {
    let before = stored.and_then(|data| data.get("kernel_revision")?.get("version"));
    let Some(version) = data
        .and_then(|data| data.get_mut("kernel_revision"))
        .and_then(|revision| revision.get_mut("version"))
        .filter(|version| Some(&**version) != before)
        .and_then(Value::as_object_mut)
    else {
        return Ok(());
    };
    const TOO_LARGE: f64 = 9_223_372_036_854_775_808.0;
    for key in ["version", "patchlevel", "sublevel"] {
        let Some(value) = version.get_mut(key) else { continue };
        let number = match &*value {
            Value::String(text) if text.is_empty() => continue,
            Value::String(text) => lax::python_int(text),
            Value::Bool(true) => Some(1),
            // Python cuts the fraction off too.
            Value::Number(n) if n.is_f64() && n.as_f64() != Some(0.0) => {
                n.as_f64().filter(|float| float.abs() < TOO_LARGE).map(|float| float as i64)
            }
            // Falsy, or the submodel says what is wrong with it.
            _ => continue,
        };
        let number = number.ok_or_else(|| {
            let shown = python_repr(value);
            Error::bad_request(format!("invalid literal for int() with base 10: {shown}"))
                .with("field", format!("data.kernel_revision.version.{key}"))
        })?;
        *value = Value::Number(Number::from(number));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "68f0aa11bb22cc33dd44ee55";

    fn detail(kind: &str, data: Value) -> Result<(), String> {
        match check(kind, data.as_object(), None) {
            Ok(()) => Ok(()),
            Err(error) => {
                assert_eq!(error.status(), 400);
                Err(error.detail().as_str().unwrap().to_owned())
            }
        }
    }

    fn revision() -> Value {
        json!({"tree": "mainline", "url": "git://x/y", "branch": "master", "commit": "abc"})
    }

    #[test]
    fn unknown_kinds_are_refused_also_the_default_one() {
        for kind in ["node", "", "Checkout", "revision"] {
            assert_eq!(detail(kind, json!({})), Err(format!("Unsupported node kind: {kind}")));
        }
        let long = detail(&"k".repeat(1000), json!({})).unwrap_err();
        assert!(long.len() < 150, "{long}");
    }

    #[test]
    fn data_may_be_empty_but_null_only_for_a_process() {
        for (kind, title) in [
            ("checkout", "Checkout"),
            ("kbuild", "Kbuild"),
            ("job", "Job"),
            ("test", "Test"),
            ("regression", "Regression"),
        ] {
            assert_eq!(detail(kind, json!({})), Ok(()));
            assert_eq!(detail(kind, json!({"anything": {"else": [1]}})), Ok(()));
            assert_eq!(
                detail(kind, json!(null)).unwrap_err(),
                format!(
                    "1 validation error for {title}\ndata\n  Input should be a valid dictionary or instance \
                     of {title}Data [type=model_type, input_value=None, input_type=NoneType]"
                )
            );
        }
        assert_eq!(detail("process", json!({})), Ok(()));
        assert_eq!(detail("process", json!(null)), Ok(()));
        assert_eq!(detail("process", json!({"error_code": 5})), Ok(()));
    }

    /// Every row of contract 2.4: a good value, null, and a bad value whose error names the field.
    #[test]
    fn each_field_of_each_kind_has_its_type() {
        let text = (json!("x"), json!(5));
        let code = (json!("LAVATimeout"), json!("RequestBodyTooLarge"));
        let texts = (json!(["x"]), json!("x"));
        let id = (json!(ID), json!("zz"));
        let rev = (revision(), json!("x"));
        let rows = [
            ("checkout", "kernel_revision", rev.clone()),
            ("checkout", "error_code", (json!("git_checkout_failure"), json!("git_commit_error"))),
            ("checkout", "error_msg", text.clone()),
            ("checkout", "architecture_filter", texts.clone()),
            ("kbuild", "kernel_revision", rev.clone()),
            ("kbuild", "error_code", code.clone()),
            ("kbuild", "fragments", texts),
            ("kbuild", "regression", id.clone()),
            ("regression", "fail_node", id.clone()),
            ("regression", "pass_node", id.clone()),
            ("regression", "node_sequence", (json!([ID]), json!([ID, 5]))),
            ("regression", "error_code", code.clone()),
            ("regression", "failed_kernel_revision", rev.clone()),
        ];
        let kbuild_texts =
            "arch defconfig compiler config_full platform runtime job_id job_context kernel_type error_msg";
        let test_texts = "error_msg platform device runtime job_id job_context arch defconfig config_full compiler kernel_type";
        let regression_texts = "error_msg arch defconfig config_full compiler platform device";
        let mut all = Vec::from(rows);
        for (kind, fields) in [
            ("kbuild", kbuild_texts),
            ("job", test_texts),
            ("test", test_texts),
            ("regression", regression_texts),
        ] {
            all.extend(fields.split(' ').map(|field| (kind, field, text.clone())));
        }
        for kind in ["job", "test"] {
            all.push((kind, "error_code", code.clone()));
            all.push((kind, "test_source", (json!("git://x/y"), json!("git@host:x"))));
            all.push((kind, "test_revision", rev.clone()));
            all.push((kind, "kernel_revision", rev.clone()));
            all.push((kind, "regression", id.clone()));
            all.push((kind, "misc", (json!({"a": 1}), json!([]))));
        }
        for (kind, field, (good, bad)) in all {
            assert_eq!(detail(kind, json!({ field: good })), Ok(()), "{kind} {field}");
            assert_eq!(detail(kind, json!({ field: null })), Ok(()), "{kind} {field}: null");
            let error = detail(kind, json!({ field: bad })).unwrap_err();
            assert!(error.contains(&format!("\ndata.{field}")), "{kind} {field}: {error}");
            assert!(error.len() < 1000 && !error.contains("http"), "{error}");
        }
    }

    #[test]
    fn each_field_of_a_revision_has_its_type() {
        let rows = [
            ("tree", json!("x"), json!(null)),
            ("branch", json!("x"), json!(null)),
            ("commit", json!("x"), json!(5)),
            ("url", json!("ssh://x/y"), json!("git@host:x")),
            ("describe", json!(null), json!(5)),
            ("patchset", json!(null), json!(5)),
            ("commit_message", json!("x"), json!([])),
            ("version", json!(null), json!("6.1")),
            ("commit_tags", json!(["v6.1"]), json!(null)),
            ("tip_of_branch", json!("yes"), json!("maybe")),
        ];
        for (field, good, bad) in rows {
            let with = |value: Value| {
                let mut revision = revision();
                revision[field] = value;
                detail("checkout", json!({"kernel_revision": revision}))
            };
            assert_eq!(with(good), Ok(()), "{field}");
            let error = with(bad).unwrap_err();
            assert!(error.contains(&format!("\ndata.kernel_revision.{field}\n")), "{error}");
        }
        let error = detail("checkout", json!({"kernel_revision": {}})).unwrap_err();
        assert!(
            error.starts_with(
                "4 validation errors for Checkout\ndata.kernel_revision.tree\n  Field required ["
            )
        );
    }

    #[test]
    fn versions_are_strict_integers() {
        let with = |version: Value| {
            let mut revision = revision();
            revision["version"] = version;
            detail("job", json!({"kernel_revision": revision}))
        };
        assert_eq!(
            with(json!({"version": 6, "patchlevel": 1, "sublevel": null, "extra": "-rc1", "name": null})),
            Ok(())
        );
        assert!(with(json!({"version": "6", "patchlevel": 1})).unwrap_err().contains("version.version\n"));
        assert!(with(json!({"version": 6})).unwrap_err().contains("version.patchlevel\n  Field required"));
        assert!(with(json!({"version": 6, "patchlevel": true})).unwrap_err().contains("type=int_type"));
    }

    #[test]
    fn versions_in_text_are_translated_as_python_does() {
        let translate = |version: Value| {
            let mut data = json!({"kernel_revision": {"version": version}}).as_object().unwrap().clone();
            translate_version(Some(&mut data), None).map(|()| data["kernel_revision"]["version"].clone())
        };
        assert_eq!(
            translate(json!({"version": "6", "patchlevel": " +1_0\n", "sublevel": "-3", "extra": "7"}))
                .unwrap(),
            json!({"version": 6, "patchlevel": 10, "sublevel": -3, "extra": "7"})
        );
        let falsy = json!({"version": 0, "patchlevel": "", "sublevel": null});
        assert_eq!(translate(falsy.clone()).unwrap(), falsy);
        assert_eq!(
            translate(json!({"version": 6.9, "patchlevel": true})).unwrap(),
            json!({"version": 6, "patchlevel": 1})
        );
        for text in ["x", "6.1", "1__0", "_1", "+", "99999999999999999999"] {
            let error = translate(json!({"version": text})).unwrap_err();
            assert_eq!(error.status(), 400);
            assert_eq!(error.detail(), &json!(format!("invalid literal for int() with base 10: '{text}'")));
        }
    }

    /// Contract D-15: these crashed the reference.
    #[test]
    fn a_revision_that_is_no_object_does_no_harm() {
        for revision in
            [json!(null), json!("x"), json!([]), json!({"version": null}), json!({"version": "6"})]
        {
            let mut data = json!({"kernel_revision": revision}).as_object().unwrap().clone();
            translate_version(Some(&mut data), None).unwrap();
            assert_eq!(data["kernel_revision"], revision);
        }
        translate_version(None, None).unwrap();
    }
}
