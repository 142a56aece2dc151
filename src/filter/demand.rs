//! What a document must have to match a filter at all: strings at paths. An index of many filters is built on it.

use serde_json::Value;

use super::{Filter, Test};

/// More alternatives than this are not worth an index.
const MOST_STRINGS: usize = 16;

/// A condition that every matching document fulfils: the path reaches one of these strings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// A path of the filter.
    pub path: String,
    /// At least one.
    pub strings: Vec<String>,
}

impl Filter {
    /// The demands of this filter, each on its own a necessary condition; none if it has no such condition.
    pub fn demands(&self) -> Vec<Demand> {
        let mut demands = Vec::new();
        collect(self, &mut demands);
        demands
    }
}

fn collect(filter: &Filter, demands: &mut Vec<Demand>) {
    match filter {
        Filter::And(all) => all.iter().for_each(|part| collect(part, demands)),
        Filter::Field { path, test, .. } => {
            let strings = match test {
                Test::Eq(value) => strings(std::slice::from_ref(value)),
                Test::In(values) => strings(values),
                _ => None,
            };
            demands.extend(strings.map(|strings| Demand { path: path.clone(), strings }));
        }
        Filter::Or(_) | Filter::Not(_) => {}
    }
}

fn strings(values: &[Value]) -> Option<Vec<String>> {
    if values.is_empty() || values.len() > MOST_STRINGS {
        return None;
    }
    values.iter().map(|value| value.as_str().map(str::to_owned)).collect()
}

impl Demand {
    /// Whether a document fulfils it.
    pub fn is_met(&self, doc: &Value) -> bool {
        let mut met = false;
        super::matches::strings_at(doc, &self.path, &mut |found| {
            met |= self.strings.iter().any(|string| string == found);
        });
        met
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::EVENT;
    use super::*;

    fn demands(filter: Value) -> Vec<Demand> {
        Filter::from_json(&filter, &EVENT).unwrap().demands()
    }

    #[test]
    fn what_a_filter_demands() {
        let demand = |path: &str, strings: &[&str]| Demand {
            path: path.into(),
            strings: strings.iter().map(|string| (*string).to_owned()).collect(),
        };
        assert_eq!(
            demands(json!({"data.kind": "job", "data.result__in": ["fail", "skip"], "data.n": 1})),
            [demand("data.kind", &["job"]), demand("data.result", &["fail", "skip"])]
        );
        assert_eq!(demands(json!({"data.result__in": ["fail", null]})), [], "missing ones match, too");
        assert_eq!(demands(json!({"data.kind__ne": "job", "not": {"type": "x"}})), []);
        assert_eq!(demands(json!({"any": [{"type": "x"}, {"type": "y"}]})), []);
        assert_eq!(demands(json!({"all": [{"type": "x"}]})), [demand("type", &["x"])]);
    }
}
