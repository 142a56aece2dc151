//! Conditions of lists that know equality only (contract 6.5): users and groups.

use serde_json::{Map, Value};

use crate::error::{Error, Kind, Result};
use crate::model::ObjectId;
use crate::ops::nodes::node_id;

/// Field names and what they must be equal to.
pub(super) struct Conditions(Map<String, Value>);

impl Conditions {
    /// Reads an object, or the text of a query string, in which the last of several values wins. 400 for any other
    /// field than these.
    pub(super) fn read(filter: Option<&Value>, fields: &[&str]) -> Result<Conditions> {
        let conditions = match filter {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(conditions)) => conditions.clone(),
            Some(Value::String(text)) => {
                let pairs = url::form_urlencoded::parse(text.as_bytes()).into_owned();
                pairs.map(|(name, value)| (name, value.into())).collect()
            }
            Some(_) => return Err(Error::invalid("filter", "expected an object of conditions")),
        };
        if let Some(name) = conditions.keys().find(|name| !fields.contains(&name.as_str())) {
            let shown: String = name.chars().take(64).collect();
            let known = fields.join(", ");
            return Err(Error::new(Kind::BadRequest, format!("{shown}: expected one of {known}")));
        }
        Ok(Conditions(conditions))
    }

    /// The text that the field must be.
    pub(super) fn text(&mut self, field: &str) -> Result<Option<String>> {
        match self.0.remove(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Error::invalid(field, "expected a string")),
        }
    }

    /// The flag that the field must be.
    pub(super) fn flag(&mut self, field: &str) -> Result<Option<bool>> {
        match self.0.remove(field) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(Some(true)),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(Some(false)),
            Some(_) => Err(Error::new(Kind::BadRequest, format!("{field}: expected true or false"))),
        }
    }

    /// The id that the field must be.
    pub(super) fn id(&mut self, field: &str) -> Result<Option<ObjectId>> {
        self.text(field)?.map(|text| node_id(&text)).transpose()
    }
}
