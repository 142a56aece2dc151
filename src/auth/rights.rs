//! Who may do what to which node (contract 3.4).

use std::collections::HashMap;

use super::Caller;
use crate::error::{Error, Kind, Result};
use crate::model::{Node, ObjectId, Scope, User};

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

impl Caller {
    /// Whether the caller may change `node` as it stands: the user may, and the token covers it.
    pub fn may_edit(&self, node: &Node) -> bool {
        self.user.as_ref().is_some_and(|user| may_edit(user, node)) && self.scope.covers(node)
    }

    /// 403 unless the caller's token may write a node that becomes this one.
    pub fn check_covers(&self, node: &Node) -> Result<()> {
        match self.scope.covers(node) {
            true => Ok(()),
            false => Err(self.beyond_scope()),
        }
    }

    /// As [`Caller::check_covers`] for a tree: `root` and the nodes that are `there` below it, and all as they are
    /// `written`, the root too. What says no runtime of its own belongs to the root; but a node that is there already does
    /// so only if it stands below the root already, and one that has a runtime keeps one that is covered.
    pub fn check_covers_tree<'a>(
        &self,
        root: &Node,
        there: &HashMap<ObjectId, Node>,
        written: impl Iterator<Item = &'a Node>,
    ) -> Result<()> {
        if self.scope == Scope::Full {
            return Ok(());
        }
        self.check_covers(root)?;
        let covers = |node: &Node| node.runtime().is_none() || self.scope.covers(node);
        let has_runtime =
            |id: &ObjectId| *id == root.id || there.get(id).is_some_and(|node| node.runtime().is_some());
        let mut written = written.map(|node| match has_runtime(&node.id) {
            true => self.scope.covers(node),
            false => covers(node),
        });
        let is_below = |node: &Node| {
            node.runtime().is_some()
                || node.parent.is_some_and(|parent| parent == root.id || there.contains_key(&parent))
        };
        match there.values().all(|node| covers(node) && is_below(node))
            && written.all(|is_covered| is_covered)
        {
            true => Ok(()),
            false => Err(self.beyond_scope()),
        }
    }

    fn beyond_scope(&self) -> Error {
        let scopes = self.scope.names().join(", ");
        Error::new(Kind::Forbidden, format!("this token has the scope {scopes}, which the node is not in"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::{Timestamp, user::Group};

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
