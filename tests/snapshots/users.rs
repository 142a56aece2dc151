//! `session.*`, `user.*`, `group.*`, `token.*`.

use macro_rules_attribute::apply;
use serde_json::json;

use super::book::{ABSENT, Book};
use crate::support::{Backend, MailServer, PASSWORD, Protection, Server, both_backends};

pub(super) const METHODS: &[&str] = &["session.", "user.", "group.", "token."];

#[apply(both_backends!)]
async fn methods_of_users(backend: Backend) {
    let mail = MailServer::start(Protection::None).await;
    let settings = mail.settings();
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let server = Server::start_with(backend, &settings).await;
    let (mut raw, mut nobody, mut book) = (server.admin().await, server.anonymous().await, Book::default());
    let (raw, nobody) = (&mut raw, &mut nobody);

    let mut new = server.connect().await;
    book.ask(&mut new, "anonymous", "session.hello", json!({"client": "snapshots/1"})).await;
    let mut new = server.connect().await;
    let token = server.token().await;
    book.ask(&mut new, "with a token", "session.hello", json!({"token": token})).await;
    book.ask(&mut new, "another token", "session.refresh", json!({"token": token})).await;
    book.refused(&mut new, "not a token", "session.refresh", json!({"token": "x"})).await;
    let mut new = server.connect().await;
    book.refused(&mut new, "not a token", "session.hello", json!({"token": "x"})).await;

    let login = json!({"username": "admin", "password": PASSWORD});
    book.ask(nobody, "a name and its password", "user.login", login).await;
    let wrong = json!({"username": "admin", "password": "x"});
    book.refused(nobody, "a wrong password", "user.login", wrong).await;
    book.ask(raw, "a superuser", "user.whoami", json!({})).await;
    book.refused(nobody, "nobody", "user.whoami", json!({})).await;

    book.ask(raw, "a superuser", "user.limits", json!({})).await;
    book.refused(nobody, "nobody", "user.limits", json!({})).await;

    let group = book.ask(raw, "a new one", "group.create", json!({"name": "lab"})).await;
    book.refused(raw, "the name is taken", "group.create", json!({"name": "lab"})).await;
    book.ask(raw, "all", "group.find", json!({})).await;
    book.ask(raw, "one", "group.get", json!({"id": group["id"]})).await;
    book.refused(raw, "there is none", "group.get", json!({"id": ABSENT})).await;

    let invite = json!({"username": "ann", "email": "ann@example.org", "groups": ["lab"], "send_email": false,
        "return_token": true});
    let invited = book.ask(raw, "with the link in the answer", "user.invite", invite.clone()).await;
    book.refused(raw, "who is there", "user.invite", invite).await;
    book.ask(raw, "where links lead", "user.invite_url", json!({})).await;
    book.refused(
        raw,
        "always refused",
        "user.register",
        json!({"username": "x", "email": "x@example.org", "password": "x"}),
    )
    .await;
    let accept = json!({"token": invited["token"], "password": "first"});
    book.ask(nobody, "with the token of the link", "user.accept_invite", accept.clone()).await;
    book.refused(nobody, "a second time", "user.accept_invite", accept).await;
    book.refused(raw, "somebody is in it", "group.delete", json!({"id": group["id"]})).await;

    let ann = server.login("ann", "first").await;
    let mut ann_raw = server.connect().await;
    ann_raw.call("session.hello", json!({"token": ann})).await;
    let ann = &mut ann_raw;
    let me = ann.call("user.whoami", json!({})).await;
    book.ask(ann, "oneself", "user.get", json!({"id": me["id"]})).await;
    let admin = raw.call("user.whoami", json!({})).await;
    book.ask(ann, "somebody else", "user.get", json!({"id": admin["id"]})).await;
    book.ask(raw, "for a superuser", "user.get", json!({"id": me["id"]})).await;
    book.refused(raw, "there is none", "user.get", json!({"id": ABSENT})).await;
    book.ask(raw, "by name", "user.find", json!({"filter": {"username": "ann"}})).await;
    book.ask(ann, "as others see them", "user.find", json!({"limit": 1})).await;
    book.refused(ann, "for superusers", "group.find", json!({})).await;

    let made = json!({"name": "ci", "scopes": ["write:lava-a"], "expires_in": 3600});
    let made = book.ask(ann, "told this once", "token.create", made).await;
    book.refused(ann, "the name is taken", "token.create", json!({"name": "ci", "scopes": ["read"]})).await;
    book.refused(ann, "not a scope", "token.create", json!({"name": "x", "scopes": ["x"]})).await;
    book.ask(ann, "without the token", "token.list", json!({})).await;
    book.ask(ann, "one", "token.revoke", json!({"id": made["id"]})).await;
    book.refused(ann, "it is gone", "token.revoke", json!({"id": made["id"]})).await;

    // A new address has to be confirmed again, by mail.
    book.ask(ann, "another address", "user.update_me", json!({"email": "ann@lab.example"})).await;
    book.refused(ann, "groups are others' affair", "user.update_me", json!({"groups": ["lab"]})).await;
    let letter = mail.next().await;
    book.ask(nobody, "whoever it is", "user.request_verify", json!({"email": "nobody@example.org"})).await;
    book.refused(nobody, "not a token", "user.verify", json!({"token": "x"})).await;
    book.ask(nobody, "with the mailed token", "user.verify", json!({"token": letter.token()})).await;
    let change = json!({"username": "ann", "password": "first", "new_password": "second"});
    book.ask(nobody, "who knows it", "user.update_password", change.clone()).await;
    book.refused(nobody, "who does not", "user.update_password", change).await;
    book.ask(nobody, "whoever it is", "user.forgot_password", json!({"email": "ann@lab.example"})).await;
    let letter = mail.next().await;
    let reset = json!({"token": letter.token(), "password": "third"});
    book.ask(nobody, "with the mailed token", "user.reset_password", reset.clone()).await;
    book.refused(nobody, "a second time", "user.reset_password", reset).await;

    let update = json!({"id": me["id"], "groups": [], "is_superuser": true});
    book.ask(raw, "rights", "user.update", update).await;
    book.refused(raw, "there is none", "user.update", json!({"id": ABSENT, "is_active": true})).await;
    book.ask(raw, "one", "user.delete", json!({"id": me["id"]})).await;
    book.refused(raw, "it is gone", "user.delete", json!({"id": me["id"]})).await;
    book.ask(raw, "nobody is in it", "group.delete", json!({"id": group["id"]})).await;
    let token = server.login("admin", PASSWORD).await;
    let mut leaving = server.connect().await;
    leaving.call("session.hello", json!({"token": token})).await;
    book.ask(&mut leaving, "the token ends", "user.logout", json!({})).await;
    book.refused(&mut leaving, "it has ended", "user.logout", json!({})).await;
    book.close(METHODS);
}
