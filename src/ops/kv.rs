//! Keys and values (contract 7.1).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Context;
use crate::error::{Error, Result};
use crate::kv::NewValue;

/// Characters of a namespace.
const LONGEST_NAMESPACE: usize = 128;
/// Characters of a key.
const LONGEST_KEY: usize = 512;
/// Bytes of a value.
const LARGEST_VALUE: usize = 1 << 20;

/// Which value.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Name {
    /// 1 to 128 characters.
    namespace: String,
    /// 1 to 512 characters.
    key: String,
}

/// A value to set.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Set {
    /// 1 to 128 characters.
    namespace: String,
    /// 1 to 512 characters.
    key: String,
    /// Up to 1 MiB; null and the empty text remove the value.
    #[serde(default)]
    value: Option<String>,
}

/// A value.
#[derive(Serialize, JsonSchema)]
pub struct Got {
    /// Null if there is none.
    value: Option<String>,
}

/// It is done.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "KeyDone")]
pub struct Done {
    /// One word or sentence.
    status: &'static str,
}

/// The value of a key.
pub async fn get(context: Context, params: Name) -> Result<Got> {
    check(&params.namespace, &params.key)?;
    Ok(Got { value: context.app.kv.get(&params.namespace, &params.key).await? })
}

/// Sets the value of a key.
pub async fn set(context: Context, params: Set) -> Result<Done> {
    let (namespace, key) = (&params.namespace, &params.key);
    check(namespace, key)?;
    match params.value.filter(|value| !value.is_empty()) {
        None => context.app.kv.remove(namespace, key).await?,
        Some(value) if value.len() > LARGEST_VALUE => {
            return Err(Error::invalid("value", format!("expected at most {LARGEST_VALUE} bytes")));
        }
        Some(value) => {
            let value = NewValue { namespace, key, value: &value };
            context.app.kv.set(&value, Some(&context.share()?)).await??;
        }
    }
    Ok(Done { status: "OK" })
}

/// Removes the value of a key; also if there is none.
pub async fn delete(context: Context, params: Name) -> Result<Done> {
    check(&params.namespace, &params.key)?;
    context.app.kv.remove(&params.namespace, &params.key).await?;
    Ok(Done { status: "Key-value pair deleted successfully" })
}

fn check(namespace: &str, key: &str) -> Result<()> {
    for (field, name, longest) in [("namespace", namespace, LONGEST_NAMESPACE), ("key", key, LONGEST_KEY)] {
        if name.is_empty() || name.chars().count() > longest || name.contains('\0') {
            return Err(Error::invalid(
                field,
                format!("expected 1 to {longest} characters, none of them NUL"),
            ));
        }
    }
    Ok(())
}
