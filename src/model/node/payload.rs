//! What an event on channel `node` tells (contract 5.3).

use serde_json::{Map, Value};

use super::{Node, Outcome, State};

/// The payload of the event about a write of `node`, which stands as written.
///
/// `op` is `created` or `updated`; `previous` are state and result before an update, which the scheduler needs to see
/// what changed, and is `None` for a new node.
pub fn event_data(
    node: &Node,
    op: &str,
    previous: Option<(State, Option<Outcome>)>,
    is_hierarchy: bool,
) -> Map<String, Value> {
    let mut data = Map::with_capacity(13);
    let mut put = |key: &str, value: Value| {
        data.insert(key.to_owned(), value);
    };
    put("op", op.into());
    put("id", node.id.to_hex().into());
    put("kind", node.kind.as_str().into());
    put("name", node.name.as_str().into());
    put("path", node.path.clone().into());
    put("group", node.group.clone().into());
    put("state", node.state.as_str().into());
    put("result", Outcome::to_wire(node.result));
    put("owner", node.owner.clone().into());
    put("data", node.data.clone().into());
    put("is_hierarchy", is_hierarchy.into());
    if let Some((state, result)) = previous {
        put("previous_state", state.as_str().into());
        put("previous_result", Outcome::to_wire(result));
    }
    data
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn the_payload_has_its_keys_in_order() {
        let body = json!({"kind": "kbuild", "name": "n", "path": ["c", "n"], "group": "g",
            "result": "fail", "data": {"arch": "arm64"}});
        let mut node = Node::create(&body, Timestamp::from_millis(0)).unwrap();
        node.owner = Some("bob".into());
        let id = node.id.to_hex();
        let created = format!(
            r#"{{"op":"created","id":"{id}","kind":"kbuild","name":"n","path":["c","n"],"group":"g","state":"running","result":"fail","owner":"bob","data":{{"arch":"arm64"}},"is_hierarchy":false}}"#
        );
        let text = |data: &Map<String, Value>| serde_json::to_string(data).unwrap();
        assert_eq!(text(&event_data(&node, "created", None, false)), created);

        node.state = State::Done;
        let updated = event_data(&node, "updated", Some((State::Running, None)), true);
        assert!(
            text(&updated)
                .ends_with(r#""is_hierarchy":true,"previous_state":"running","previous_result":null}"#)
        );
        assert_eq!(updated["state"], "done");
    }
}
