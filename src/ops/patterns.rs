//! The regular expressions of a request are compiled before its operation begins. That takes up to some milliseconds for
//! each, so it is done apart from the async threads, a few at a time, and holders take turns; those that are in use
//! already take none.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::task::spawn_blocking;

use super::Params;
use crate::app::App;
use crate::error::{Error, Result};
use crate::filter::{Pattern, Sources};
use crate::quota::Holder;

/// Where the parameters of an operation have regular expressions.
#[derive(Default, Deserialize)]
struct Given {
    #[serde(default)]
    filter: Value,
    /// Of `event.find`: itself one.
    #[serde(default)]
    path: Value,
}

/// Those in the parameters of an operation. 422 or 400 if they are more than a filter may have.
pub(super) fn in_params(params: &Params<'_>) -> Result<Sources> {
    match params {
        Params::Text(text) => in_text(text),
        Params::Owned(text) => in_text(text),
        Params::Value(params) => sources(&params["filter"], &params["path"]),
    }
}

fn in_text(text: &str) -> Result<Sources> {
    // A name may be written with escapes.
    if !text.contains("__re") && !text.contains("path") && !text.contains(['%', '\\']) {
        return Ok(Sources::default());
    }
    // What cannot be read has none: the operation says what is wrong with it.
    let given: Given = serde_json::from_str(text).unwrap_or_default();
    sources(&given.filter, &given.path)
}

fn sources(filter: &Value, path: &Value) -> Result<Sources> {
    let found = match filter {
        Value::String(text) => {
            let pairs: Vec<_> = url::form_urlencoded::parse(text.as_bytes()).collect();
            Sources::in_query(pairs.iter().map(|(key, text)| (&**key, &**text)))?
        }
        filter => Sources::in_json(filter)?,
    };
    Ok(match path {
        Value::String(path) if !path.is_empty() => found.and("path", path),
        _ => found,
    })
}

/// Compiles them when it is this holder's turn; what is returned has to live until the filter is read. 422 or 400 for one
/// that is none, 429 if too much is asked at once.
pub async fn compile(app: &App, holder: Holder, sources: Sources) -> Result<Vec<Pattern>> {
    if let Some(in_use) = sources.in_use()? {
        return Ok(in_use);
    }
    let patience = Duration::from_millis(app.config.query_timeout_ms);
    let turn = app.quotas.patterns.turn_within(patience, holder).await?;
    let work = move || {
        let _turn = turn;
        sources.compile()
    };
    spawn_blocking(work).await.map_err(Error::internal)?
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn they_are_found_however_they_are_written() {
        let count = |params: Params<'_>| in_params(&params).unwrap().compile().unwrap().len();
        let params = json!({"filter": {"a__re": "1", "any": [{"b__re": "2"}]}, "path": "3", "limit": 1});
        assert_eq!(count(Params::Text(&params.to_string())), 3);
        assert_eq!(count(Params::Owned(params.to_string())), 3);
        assert_eq!(count(Params::Value(params)), 3);
        assert_eq!(count(Params::Text(r#"{"filter":{"a\u005f_re":"1"}}"#)), 1);
        assert_eq!(count(Params::Text(r#"{"filter":"a=b&c__re=1&d__r%65=2"}"#)), 2);
        assert_eq!(count(Params::Text(r#"{"node":{"data":{"a__re":"1"}}}"#)), 0);
        assert_eq!(count(Params::Value(json!({}))), 0);
    }
}
