//! What is said about the operations, made from their table: one file a document.
//!
//! * [`openapi`] describes the REST routes, [`asyncapi`] the WebSocket, [`catalogue`] both, for the docs page.
//! * `components` collects the schemas of parameters and results that a document shares.
//! * `types` are the schemas of what is free JSON in the code: filters, CloudEvents.
//! * `notifications` is the table of what the server says unasked.

mod asyncapi;
mod catalogue;
mod components;
mod notifications;
mod openapi;
pub mod types;

pub use asyncapi::asyncapi;
pub use catalogue::catalogue;
pub use components::Described;
pub use openapi::openapi;

/// The name of the API in its documents.
const TITLE: &str = "KernelCI API";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::ops::table;

    /// Targets of all references that lead nowhere.
    fn dangling(document: &Value) -> Vec<String> {
        fn walk(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(members) => {
                    found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
                    members.values().for_each(|value| walk(value, found));
                }
                Value::Array(items) => items.iter().for_each(|item| walk(item, found)),
                _ => {}
            }
        }
        let mut targets = Vec::new();
        walk(document, &mut targets);
        targets.retain(|target| {
            target.strip_prefix('#').is_none_or(|pointer| document.pointer(pointer).is_none())
        });
        targets
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let table = table();
        for document in [openapi(&table), asyncapi(&table), catalogue(&table)] {
            assert_eq!(dangling(&document), Vec::<String>::new());
        }
    }

    #[test]
    fn every_route_is_in_openapi_and_has_an_id_of_its_own() {
        let (table, mut ids) = (table(), BTreeSet::new());
        let document = openapi(&table);
        for operation in table.iter() {
            for route in &operation.routes {
                let path = route.path.replace("{*", "{");
                let described = &document["paths"][path][route.method.as_str().to_lowercase()];
                let id = described["operationId"].as_str().unwrap_or_else(|| panic!("{route:?} is missing"));
                assert!(id.starts_with(operation.name), "{id} is {}", operation.name);
                assert!(described["responses"].get(route.status.to_string()).is_some(), "{route:?}");
                for name in route.path.split('{').skip(1).filter_map(|part| part.split('}').next()) {
                    let name = name.trim_start_matches('*');
                    let is = |parameter: &Value| parameter["name"] == name && parameter["in"] == "path";
                    assert!(described["parameters"].as_array().unwrap().iter().any(is), "{route:?}: {name}");
                    assert!(
                        operation.has_param(name),
                        "{route:?}: {} has no parameter {name}",
                        operation.name
                    );
                }
            }
        }
        for described in document["paths"]
            .as_object()
            .unwrap()
            .values()
            .flat_map(|item| item.as_object().unwrap().values())
        {
            assert!(ids.insert(described["operationId"].to_string()), "{}", described["operationId"]);
        }
    }

    #[test]
    fn every_operation_is_in_asyncapi_and_in_the_catalogue() {
        let table = table();
        let (document, catalogue) = (asyncapi(&table), catalogue(&table));
        let listed: Vec<&Value> =
            catalogue["methods"].as_array().unwrap().iter().map(|row| &row["name"]).collect();
        for operation in table.iter() {
            let name = operation.name;
            assert_eq!(document["operations"][name]["action"], "receive", "{name}");
            for message in [format!("{name}.request"), format!("{name}.result")] {
                assert!(document["components"]["messages"].get(&message).is_some(), "{message}");
                assert!(document["channels"]["session"]["messages"].get(&message).is_some(), "{message}");
            }
            assert!(listed.contains(&&Value::from(name)), "{name}");
        }
    }
}
