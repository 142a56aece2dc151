//! The operations: everything that can be asked of the server, defined once for both transports.
//!
//! [`table`] is the whole API on one screen. An operation is a typed parameter struct, a typed reply, an access rule
//! and an async function; the WebSocket dispatches it by name, REST maps a method and a path onto it
//! ([`Route`]). Validation, access and documentation hang on the operation, never on a transport.

pub mod consumers;
mod context;
pub mod events;
mod handover;
pub mod history;
pub mod kv;
mod loose;
pub mod nodes;
mod operation;
mod paging;
pub mod polling;
pub mod queues;
pub mod route;
pub mod schema;
pub mod session;
pub mod stats;
pub mod subscriptions;
pub mod telemetry;
pub mod users;

pub use context::{Context, Peer};
pub use handover::{Handover, HandoverSlot};
pub use operation::{Object, Operation, Params, Reply, RestBody, RestReply, Table};
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
        .op("user.login", Open, "A token for a name and a password.", users::login)
        .route(post("/user/login").form())
        .op("user.whoami", Verified, "The user whose token this is.", users::whoami)
        .route(get("/whoami"))
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
        .route(post("/node").under("node"))
        .op("node.replace", Active, "Replaces a node; what is left out takes its default.", nodes::replace)
        .gives::<Node>()
        .route(put("/node/{id}").under("node"))
        .op("node.update", Active, "Sets some fields of a node.", nodes::update)
        .gives::<Node>()
        .route(patch("/node/{id}").under("set").with("ignore_others", true))
        .op(
            "node.submit",
            Active,
            "Writes a node and a tree of nodes below it, all or nothing.",
            nodes::submit,
        )
        .large()
        .route(put("/nodes/{id}").under("tree").member("nodes"))
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
        .op("event.subscribe", Read, "Follows a channel from a position.", subscriptions::subscribe)
        .needs(&[Part::Log])
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
        .route(post("/telemetry").under("events"))
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
        .route(get("/kv/{namespace}/{key}").member("value"))
        .op("kv.set", Active, "Sets the value of a key; no value removes it.", kv::set)
        .route(post("/kv/{namespace}/{key}").raw("value").member("status"))
        .op("kv.delete", Active, "Removes the value of a key.", kv::delete)
        .route(delete("/kv/{namespace}/{key}").member("status"))
        .op("consumer.open", Active, "Subscribes to a channel for long polls.", polling::open)
        .route(post("/subscribe/{channel}").bare())
        .op("consumer.next", Active, "Waits for the next event of such a subscription.", polling::next)
        .route(get("/listen/{sub_id}"))
        .op(
            "consumer.close",
            Active,
            "Ends such a subscription; a named consumer keeps its place.",
            polling::close,
        )
        .route(post("/unsubscribe/{sub_id}").bare().null())
        .op("consumer.list", Active, "The named consumers of the caller.", consumers::list)
        .op("consumer.get", Active, "One named consumer.", consumers::get)
        .op("consumer.seek", Active, "Puts a named consumer to another place.", consumers::seek)
        .op("consumer.delete", Active, "Removes a named consumer.", consumers::delete)
        .op("queue.push", Active, "Appends an item to a queue.", queues::push)
        .route(post("/push/{list}").under("event").null())
        .op("queue.pop", Active, "Waits for the next item of a queue.", queues::pop)
        .route(get("/pop/{list}").member("event"))
        .op("queue.ack", Active, "Removes an item that was popped with a lease.", queues::ack)
        .op(
            "stats.subscriptions",
            Superuser,
            "Every subscription, and how far behind it is.",
            stats::subscriptions,
        )
        .route(get("/stats/subscriptions").member("items"))
}
