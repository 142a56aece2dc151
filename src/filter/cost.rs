//! What it costs to try a filter on a document, roughly.

use super::{Filter, Test, path};

/// What a regular expression costs.
pub const PATTERN: usize = 1000;

/// A simple comparison is 1.
pub(super) fn cost(filter: &Filter) -> usize {
    match filter {
        Filter::And(parts) | Filter::Or(parts) => parts.iter().map(cost).sum(),
        Filter::Not(part) => cost(part),
        Filter::Field { path, test, .. } => {
            // A number may be an index or a key: each doubles the ways to walk.
            let indexes = path.split('.').filter(|name| path::is_index(name)).count();
            let each = match test {
                Test::Re(_) => PATTERN,
                Test::In(values) | Test::Nin(values) => values.len().max(1),
                _ => 1,
            };
            each << indexes.min(16)
        }
    }
}

/// About how many bytes its regular expressions and lists hold.
pub(super) fn weight(filter: &Filter) -> usize {
    match filter {
        Filter::And(parts) | Filter::Or(parts) => parts.iter().map(weight).sum(),
        Filter::Not(part) => weight(part),
        Filter::Field { test: Test::Re(pattern), .. } => pattern.weight(),
        Filter::Field { test: Test::In(values) | Test::Nin(values), .. } => {
            values.iter().map(|value| size_of_val(value) + value.as_str().map_or(0, str::len)).sum()
        }
        Filter::Field { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::EVENT;
    use super::*;

    #[test]
    fn what_takes_long_costs_much() {
        let of = |filter| cost(&Filter::from_json(&filter, &EVENT).unwrap());
        assert_eq!(of(json!({})), 0);
        assert_eq!(of(json!({"data.kind": "job", "any": [{"owner": "a"}, {"not": {"owner": "b"}}]})), 3);
        assert_eq!(of(json!({"owner__in": ["a", "b", "c"], "data.0.1": 5})), 3 + 4);
        assert_eq!(of(json!({"owner__re": "^a"})), PATTERN);
    }
}
