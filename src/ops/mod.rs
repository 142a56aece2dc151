//! The operations: everything that can be asked of the server, defined once for both transports.
//!
//! [`table`] is the whole API on one screen. An operation is a typed parameter struct, a typed reply, an access rule
//! and an async function; the WebSocket dispatches it by name, REST maps a method and a path onto it
//! ([`Route`]). Validation, access and documentation hang on the operation, never on a transport.

pub mod acks;
mod attributes;
pub mod channels;
mod conditions;
pub mod consumers;
mod context;
pub mod events;
mod fingerprint;
#[cfg(test)]
mod fuzz;
pub mod groups;
mod handover;
pub mod history;
pub mod kv;
pub mod limits;
mod lists;
mod long_page;
mod loose;
pub mod nodes;
mod opening;
mod operation;
mod paging;
pub mod patterns;
pub mod polling;
pub mod queues;
pub mod route;
pub mod schema;
pub mod session;
pub mod stats;
pub mod subscriptions;
pub mod telemetry;
pub mod tokens;
pub mod users;

pub use context::{Context, Peer};
pub use handover::{Handover, HandoverSlot};
pub use lists::Lists;
pub use operation::{Object, Operation, Params, Reply, RestBody, RestReply, Table, rpc_text};
pub use route::{Answer, Body, Route};

use crate::auth::Access::{Active, Open, Read, Superuser, Verified};
use crate::health::Part;
use crate::model::Node;
use route::{delete, get, patch, post, put};

/// Every operation: name, access, what it does, its function, and the REST routes that map onto it.
pub fn table() -> Table {
    Table::new()
        .op(
            "session.hello",
            Open,
            "Says who is speaking, and learns the session's facts and limits.",
            session::hello,
        )
        .needs(&[])
        .op("session.refresh", Open, "Renews the token of the session in place.", session::refresh)
        .needs(&[])
        .op("user.login", Open, "A token for a name and a password.", users::login::login)
        .secret()
        .route(post("/user/login").form())
        .op("user.logout", Verified, "Ends the token that the request came with.", users::login::logout)
        .reads()
        .route(post("/user/logout").bare().empty())
        .op("user.whoami", Verified, "The user whose token this is.", users::whoami)
        .reads()
        .route(get("/whoami"))
        .op("user.limits", Active, "How much the caller has, and may have.", limits::limits)
        .reads()
        .route(get("/user/limits"))
        .op("user.get", Active, "One user; of others only superusers see more than the name.", users::get)
        .reads()
        .route(get("/user/{id}"))
        .route(get("/user/me").with("id", "me"))
        .op("user.find", Active, "Users that match a filter, a page at a time.", users::find)
        .reads()
        .route(get("/users").filtered(&["limit", "offset"]))
        .op(
            "user.update_me",
            Active,
            "Changes one's own name, address or password.",
            users::change::update_me,
        )
        .secret()
        .route(patch("/user/me"))
        .op("user.update", Superuser, "Changes a user.", users::change::update)
        .secret()
        .route(patch("/user/{id}"))
        .op(
            "user.delete",
            Superuser,
            "Removes a user and what is theirs; nodes and events stay.",
            users::change::delete,
        )
        .route(delete("/user/{id}").null())
        .route(delete("/user/me").with("id", "me").null())
        .op("user.register", Superuser, "Is refused: users are invited.", users::change::register)
        .secret()
        .route(post("/user/register"))
        .op("user.invite", Superuser, "Adds a user and mails them a link.", users::invite::invite)
        .secret()
        .route(post("/user/invite"))
        .op("user.invite_url", Superuser, "Where the links of invitations lead.", users::invite::invite_url)
        .reads()
        .route(get("/user/invite/url"))
        .op("user.accept_invite", Open, "Sets the password of an invited user.", users::invite::accept)
        .secret()
        .route(post("/user/accept-invite"))
        .op(
            "user.update_password",
            Open,
            "Changes the password of whoever knows it; older tokens end.",
            users::password::update_password,
        )
        .secret()
        .route(post("/user/update-password").form().null())
        .op("user.forgot_password", Open, "Mails a token for a new password.", users::password::forgot)
        .route(post("/user/forgot-password").null().status(202))
        .op("user.reset_password", Open, "Sets a new password with a mailed token.", users::password::reset)
        .secret()
        .route(post("/user/reset-password").null())
        .op("user.request_verify", Open, "Mails a token that confirms the address.", users::verify::request)
        .route(post("/user/request-verify-token").null().status(202))
        .op("user.verify", Open, "Confirms the address that a token was mailed to.", users::verify::verify)
        .secret()
        .route(post("/user/verify"))
        .op("group.find", Superuser, "Groups of users, a page at a time.", groups::find)
        .reads()
        .route(get("/user-groups").filtered(&["limit", "offset"]))
        .route(get("/groups").filtered(&["limit", "offset"]))
        .op("group.get", Superuser, "One group of users.", groups::get)
        .reads()
        .route(get("/user-groups/{id}"))
        .route(get("/group/{id}"))
        .op("group.create", Superuser, "Adds a group of users.", groups::create)
        .route(post("/user-groups"))
        .route(post("/group"))
        .op("group.delete", Superuser, "Removes a group that nobody is in.", groups::delete)
        .route(delete("/user-groups/{id}").empty())
        .route(delete("/group/{id}").empty())
        .op("token.create", Active, "Makes a named token; the token is answered this once.", tokens::create)
        .secret()
        .route(post("/user/tokens"))
        .op("token.list", Active, "One's own named tokens: scopes, last use, expiry.", tokens::list)
        .reads()
        .route(get("/user/tokens"))
        .op("token.revoke", Active, "Ends a named token of one's own.", tokens::revoke)
        .route(delete("/user/tokens/{id}").empty())
        .op("node.get", Read, "One node.", nodes::get)
        .gives::<Node>()
        .route(get("/node/{id}").or_null())
        .op("node.find", Read, "Nodes that match a filter, sorted, a page at a time.", nodes::find)
        .large()
        .op(
            "node.page",
            Read,
            "Nodes that match a filter, oldest first, by offset, and how many there are.",
            nodes::page,
        )
        .large()
        .route(get("/nodes").filtered(&["limit", "offset"]))
        .op("node.list", Read, "Nodes that match a filter, oldest first, without a count.", nodes::list)
        .large()
        .route(get("/nodes/fast").filtered(&["limit", "offset"]).member("items"))
        .op("node.count", Read, "How many nodes match a filter.", nodes::count)
        .route(get("/count").filtered(&["limit", "offset"]).member("count"))
        .op("node.create", Active, "Adds a node.", nodes::create)
        .gives::<Node>()
        .writes_nodes()
        .route(post("/node").under("node").takes_much())
        .op("node.replace", Active, "Replaces a node; what is left out takes its default.", nodes::replace)
        .writes_nodes()
        .of_a_node(nodes::may_edit)
        .gives::<Node>()
        .route(put("/node/{id}").under("node").takes_much())
        .op("node.update", Active, "Sets some fields of a node.", nodes::update)
        .gives::<Node>()
        .route(patch("/node/{id}").under("set").with("ignore_others", true).takes_much())
        .writes_nodes()
        .of_a_node(nodes::may_edit)
        .op(
            "node.submit",
            Active,
            "Writes a node and a tree of nodes below it, all or nothing.",
            nodes::submit,
        )
        .large()
        .takes_much()
        .route(put("/nodes/{id}").under("tree").member("nodes"))
        .writes_nodes()
        .of_a_node(nodes::may_edit)
        .op(
            "node.mark",
            Active,
            "Sets one flag of many nodes; nodes that the user may not edit are skipped.",
            nodes::mark,
        )
        .route(
            put("/batch/nodeset")
                .renamed("nodes", "ids")
                .text("value")
                .with("noevent", true)
                .member("updated"),
        )
        .writes_nodes()
        .op("event.subscribe", Read, "Follows a channel from a position.", subscriptions::subscribe)
        .needs(&[Part::Log])
        .op("event.ack", Active, "Acknowledges events of a durable subscription.", acks::ack)
        .needs(&[])
        .quick()
        .op("event.nack", Active, "Gives an event of a group back.", acks::nack)
        .needs(&[])
        .quick()
        .op("event.extend", Active, "Asks for more time for an event of a group.", acks::extend)
        .needs(&[])
        .quick()
        .op("event.unsubscribe", Read, "Ends a subscription.", subscriptions::unsubscribe)
        .needs(&[])
        .op("event.publish", Active, "Puts an event of one's own on a channel.", events::publish)
        .route(post("/publish/{channel}").with("refuse_empty", true).null())
        .op("event.find", Read, "The history of a channel, or of all.", history::find)
        .large()
        .route(
            get("/events")
                .filtered(history::REST)
                .default("limit", 0)
                .default("event", false)
                .member("items"),
        )
        .op("telemetry.add", Active, "Adds records of what happened to jobs.", telemetry::add)
        .route(post("/telemetry").under("events").takes_much())
        .op("telemetry.find", Read, "Records that match, in the order in which they came.", telemetry::find)
        .route(get("/telemetry").filtered(telemetry::REST))
        .op("telemetry.stats", Read, "How records went, grouped by labels.", telemetry::stats)
        .route(get("/telemetry/stats").member("items"))
        .op(
            "telemetry.anomalies",
            Read,
            "Devices that fail too often, errors that repeat.",
            telemetry::anomalies,
        )
        .route(get("/telemetry/anomalies"))
        .op("kv.get", Active, "The value of a key.", kv::get)
        .reads()
        .route(get("/kv/{namespace}/{key}").member("value"))
        .op("kv.set", Active, "Sets the value of a key; no value removes it.", kv::set)
        .route(post("/kv/{namespace}/{key}").raw("value").member("status"))
        .op("kv.delete", Active, "Removes the value of a key.", kv::delete)
        .route(delete("/kv/{namespace}/{key}").member("status"))
        .op("consumer.open", Active, "Subscribes to a channel for long polls.", polling::open)
        .route(post("/subscribe/{channel}").bare())
        .op("consumer.next", Active, "Waits for the next event of such a subscription.", polling::next)
        .waits()
        .route(get("/listen/{sub_id}"))
        .op(
            "consumer.close",
            Active,
            "Ends such a subscription; a named consumer keeps its place.",
            polling::close,
        )
        .route(post("/unsubscribe/{sub_id}").bare().null())
        .op("consumer.list", Active, "The named consumers of the caller.", consumers::list)
        .reads()
        .op("consumer.get", Active, "One named consumer.", consumers::get)
        .reads()
        .op("consumer.seek", Active, "Puts a named consumer to another place.", consumers::seek)
        .op("consumer.delete", Active, "Removes a named consumer.", consumers::delete)
        .op(
            "consumer.reserve",
            Superuser,
            "Keeps the name of a consumer for a user, or gives it up.",
            consumers::reserve,
        )
        .op(
            "consumer.reserved",
            Superuser,
            "The names of consumers that are kept for users.",
            consumers::reserved,
        )
        .reads()
        .op("queue.push", Active, "Appends an item to a queue.", queues::push)
        .route(post("/push/{list}").under("event").null())
        .op("queue.pop", Active, "Waits for the next item of a queue.", queues::pop)
        .waits()
        .route(get("/pop/{list}").member("event"))
        .op("queue.ack", Active, "Removes an item that was popped with a lease.", queues::ack)
        .op(
            "queue.extend",
            Active,
            "Asks for more time for an item that was popped with a lease.",
            queues::extend,
        )
        .op(
            "stats.subscriptions",
            Superuser,
            "Every subscription, and how far behind it is.",
            stats::subscriptions,
        )
        .reads()
        .route(get("/stats/subscriptions").member("items"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_route_leads_to_one_operation() {
        let mut seen = HashSet::new();
        for operation in table().iter() {
            for route in &operation.routes {
                assert!(seen.insert((route.method.clone(), route.path)), "{} {}", route.method, route.path);
            }
        }
    }
}
