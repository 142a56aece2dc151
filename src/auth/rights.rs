//! Who may do what to which node (contract 3.4).

use crate::model::{Node, User};

/// Members may edit every node.
pub const EDIT_ANY: &str = "node:edit:any";

/// Whether `user` may change `node`: superusers, its owner (under any name that they
/// had), members of [`EDIT_ANY`] or of one of the node's groups, and
/// members of `runtime:R:node-editor` or `runtime:R:node-admin` where R is the runtime that the node ran on.
pub fn may_edit(user: &User, node: &Node) -> bool {
    user.is_superuser
        || node.owner.as_deref().is_some_and(|owner| user.is_called(owner))
        || user.in_group(EDIT_ANY)
        || node.user_groups.iter().any(|name| user.in_group(name))
        || node.runtime().is_some_and(|runtime| {
            user.in_group(&format!("runtime:{runtime}:node-editor"))
                || user.in_group(&format!("runtime:{runtime}:node-admin"))
        })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::{ObjectId, Timestamp, user::Group};

    fn user(name: &str, groups: &[&str]) -> User {
        User {
            id: ObjectId::new(),
            username: name.into(),
            email: String::new(),
            hashed_password: String::new(),
            is_active: true,
            is_superuser: false,
            is_verified: true,
            groups: groups.iter().map(|name| Group { id: None, name: (*name).into() }).collect(),
            ..User::default()
        }
    }

    fn node(runtime: Value) -> Node {
        let body = json!({"kind": "process", "name": "n", "path": [], "user_groups": ["lab-friends"],
            "data": {"runtime": runtime}});
        let mut node = Node::create(&body, Timestamp::from_millis(0)).unwrap();
        node.owner = Some("ann".into());
        node
    }

    #[test]
    fn each_reason_to_edit_is_enough_alone() {
        let node = node(json!("lava-x"));
        assert!(may_edit(&user("ann", &[]), &node));
        for group in
            ["node:edit:any", "lab-friends", "runtime:lava-x:node-editor", "runtime:lava-x:node-admin"]
        {
            assert!(may_edit(&user("bob", &[group]), &node), "{group}");
        }
        assert!(may_edit(&User { is_superuser: true, ..user("bob", &[]) }, &node));
    }

    #[test]
    fn nothing_else_is() {
        let strangers =
            ["", "lab", "runtime:lava-y:node-editor", "runtime:lava-x:other", "runtime::node-editor"];
        assert!(!may_edit(&user("bob", &strangers), &node(json!("lava-x"))));
        for odd in [json!(null), json!(5), json!(["lava-x"]), json!("")] {
            assert!(!may_edit(&user("bob", &["runtime::node-editor"]), &node(odd)));
        }
        let mut nobodys = node(json!(null));
        nobodys.owner = None;
        assert!(!may_edit(&user("", &[]), &nobodys));
    }
}
