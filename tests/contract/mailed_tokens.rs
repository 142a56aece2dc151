//! What is done by mail: forgotten passwords, addresses to be confirmed (contract 6.6), and how the mail goes.

use macro_rules_attribute::apply;
use serde_json::{Value, json};

use super::users::{USER_READ, keys, logged_in, member, refused};
use crate::support::{Backend, Http, MailServer, Protection, Server, both_backends};

#[apply(both_backends!)]
async fn forgotten_passwords(backend: Backend) {
    let sink = MailServer::start(Protection::None).await;
    let settings = sink.settings();
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut server = Server::start_with(backend, &settings).await;
    let admin = Http::admin(&server).await;
    let id = member(&admin, "ann").await;
    let before = logged_in(&server, "ann").await;
    let http = Http::new(&server);
    let forgot =
        async |email: &str| http.post("/latest/user/forgot-password", &json!({"email": email})).await;
    for email in ["nobody@example.org", "ANN@example.org"] {
        let answer = forgot(email).await;
        assert_eq!((answer.status, answer.text.as_str()), (202, "null"));
    }
    let mail = sink.next().await;
    assert_eq!((mail.from.as_str(), mail.to.as_str()), ("<ci@kernelci.example>", "<ann@example.org>"));
    assert!(mail.text.contains("Hello ann,"), "{}", mail.text);
    assert_eq!(forgot("x").await.status, 422);
    let reset = async |token: &str, password: &str| {
        http.post("/latest/user/reset-password", &json!({"token": token, "password": password})).await
    };
    let bad = refused(400, "RESET_PASSWORD_BAD_TOKEN");
    for token in ["nonsense", server.token().await] {
        assert_eq!(reset(token, "new").await.refusal(), bad);
    }
    assert_eq!(reset(mail.token(), "").await.status, 422);
    let answer = reset(mail.token(), "new").await;
    assert_eq!((answer.status, answer.text.as_str()), (200, "null"));
    assert!(sink.next().await.text.contains("has been set anew"));
    assert_eq!(reset(mail.token(), "newer").await.refusal(), bad, "once");
    assert_eq!(before.get("/whoami").await.status, 401, "older tokens end");
    server.login("ann", "new").await;
    admin.patch(&format!("/user/{id}"), &json!({"is_active": false})).await.ok();
    assert_eq!(forgot("ann@example.org").await.status, 202);
    for _ in 0..4 {
        forgot("ann@example.org").await;
    }
    let limited = forgot("ann@example.org").await;
    assert_eq!(limited.status, 429);
    assert!(limited.headers.contains_key("retry-after"));
    server.terminate().await;
    let rest = sink.rest().await;
    assert!(rest.is_empty(), "nothing for whoever is not active: {rest:?}");
}

#[apply(both_backends!)]
async fn confirming_an_address(backend: Backend) {
    let sink = MailServer::start(Protection::None).await;
    let settings = sink.settings();
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut server = Server::start_with(backend, &settings).await;
    let admin = Http::admin(&server).await;
    let invite = json!({"username": "ann", "email": "ann@example.org"});
    let invited = admin.post("/user/invite", &invite).await.ok();
    assert_eq!((&invited["email_sent"], &invited["token"]), (&json!(true), &Value::Null));
    let mail = sink.next().await;
    assert!(mail.text.contains(&format!("{}/user/accept-invite?token=", server.url())), "{}", mail.text);
    let http = Http::new(&server);
    let accept = json!({"token": mail.token(), "password": "ann"});
    http.post("/user/accept-invite", &accept).await.ok();

    let ann = logged_in(&server, "ann").await;
    ann.patch("/user/me", &json!({"email": "ann@new.example"})).await.ok();
    let mail = sink.next().await;
    assert_eq!(mail.to, "<ann@new.example>", "a new address is asked for its confirmation at once");
    let verify = async |token: &str| http.post("/latest/user/verify", &json!({"token": token})).await;
    let bad = refused(400, "VERIFY_USER_BAD_TOKEN");
    assert_eq!(verify("nonsense").await.refusal(), bad);
    assert_eq!(verify(server.token().await).await.refusal(), bad);
    let user = verify(mail.token()).await.ok();
    assert_eq!((keys(&user), &user["is_verified"]), (USER_READ.to_vec(), &json!(true)));
    assert_eq!(verify(mail.token()).await.refusal(), refused(400, "VERIFY_USER_ALREADY_VERIFIED"));
    server.login("ann", "ann").await;

    let request =
        async |email: &str| http.post("/latest/user/request-verify-token", &json!({"email": email})).await;
    for email in ["ann@new.example", "nobody@example.org"] {
        let answer = request(email).await;
        assert_eq!((answer.status, answer.text.as_str()), (202, "null"), "{email}");
    }
    admin
        .patch(&format!("/user/{}", user["id"].as_str().expect("an id")), &json!({"email": "c@x.example"}))
        .await
        .ok();
    request("c@x.example").await;
    assert_eq!(verify(mail.token()).await.refusal(), bad, "of another address");
    let mail = sink.next().await;
    assert_eq!(mail.to, "<c@x.example>", "nothing for whoever is verified, or unknown");
    verify(mail.token()).await.ok();
    server.terminate().await;
    let rest: Vec<String> = sink.rest().await.into_iter().map(|mail| mail.to).collect();
    assert!(rest.iter().all(|to| to == "<c@x.example>"), "{rest:?}");
}

/// Each does one thing once, for the address that it was mailed to.
#[apply(both_backends!)]
async fn a_mailed_token_is_bound_to_what_it_changes(backend: Backend) {
    let sink = MailServer::start(Protection::None).await;
    let settings = sink.settings();
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let server = Server::start_with(backend, &settings).await;
    let admin = Http::admin(&server).await;
    let path = format!("/user/{}", member(&admin, "ann").await);
    let take_back = async || admin.patch(&path, &json!({"is_verified": false})).await.ok();
    let request = async || {
        let asked = json!({"email": "ann@example.org"});
        assert_eq!(admin.post("/user/request-verify-token", &asked).await.status, 202);
        sink.next().await
    };
    let verify = async |token: &str| admin.post("/user/verify", &json!({"token": token})).await;

    take_back().await;
    let (first, second) = (request().await, request().await);
    verify(first.token()).await.ok();
    take_back().await;
    for used in [&first, &second] {
        assert_eq!(verify(used.token()).await.refusal(), refused(400, "VERIFY_USER_BAD_TOKEN"));
    }
    assert_eq!(admin.get(&path).await.ok()["is_verified"], false);
    verify(request().await.token()).await.ok();

    // Whoever reads the mail of an address that was theirs once sets no password.
    let asked = json!({"email": "ann@example.org"});
    admin.post("/user/forgot-password", &asked).await;
    let mail = sink.next().await;
    admin.patch(&path, &json!({"email": "ann@new.example", "is_verified": true})).await.ok();
    let reset = json!({"token": mail.token(), "password": "stolen"});
    let bad = refused(400, "RESET_PASSWORD_BAD_TOKEN");
    assert_eq!(admin.post("/user/reset-password", &reset).await.refusal(), bad);
    server.login("ann", "ann").await;
}

#[apply(both_backends!)]
async fn no_address_is_confirmed_but_the_one_that_was_mailed_to(backend: Backend) {
    let sink = MailServer::start(Protection::None).await;
    let settings = sink.settings();
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let server = Server::start_with(backend, &settings).await;
    let admin = Http::admin(&server).await;
    for n in 0..6 {
        let name = format!("user{n}");
        let path = format!("/user/{}", member(&admin, &name).await);
        let user = logged_in(&server, &name).await;
        user.patch("/user/me", &json!({"email": format!("{name}@mine.example")})).await.ok();
        let mail = sink.next().await;
        let token = json!({"token": mail.token()});
        let other = json!({"email": format!("{name}@other.example")});
        let (verified, moved) =
            tokio::join!(admin.post("/user/verify", &token), user.patch("/user/me", &other));
        moved.ok();
        assert!([200, 400].contains(&verified.status), "{verified:?}");
        let now = admin.get(&path).await.ok();
        assert_eq!((&now["email"], &now["is_verified"]), (&other["email"], &json!(false)));
        assert_eq!(sink.next().await.to, format!("<{name}@other.example>"));
    }
}

/// Anybody may say that an address is theirs: what they choose does not go there before it is confirmed.
#[apply(both_backends!)]
async fn no_words_of_users_go_to_an_address_that_is_not_confirmed(backend: Backend) {
    let sink = MailServer::start(Protection::None).await;
    let settings = sink.settings();
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut server = Server::start_with(backend, &settings).await;
    let admin = Http::admin(&server).await;
    let locked = "Your account is locked, go to https://evil.example";
    let invite = json!({"username": locked, "email": "victim@example.org"});
    assert_eq!(admin.post("/user/invite", &invite).await.status, 422);
    let id = member(&admin, "eve").await;
    let eve = logged_in(&server, "eve").await;
    assert_eq!(eve.patch("/user/me", &json!({"username": locked})).await.status, 422);
    // Even what is a name may look like something else.
    let change = json!({"username": "evil.example", "email": "victim@example.org"});
    eve.patch("/user/me", &change).await.ok();
    let http = Http::new(&server);
    http.post("/user/forgot-password", &json!({"email": "victim@example.org"})).await;
    let mut mails = vec![sink.next().await, sink.next().await];
    let token = mails.iter().find(|mail| mail.text.contains("new password")).expect("one").token();
    let reset = json!({"token": token, "password": "new"});
    assert_eq!(http.post("/user/reset-password", &reset).await.status, 200);
    mails.push(sink.next().await);
    admin.post("/user/invite", &json!({"username": "other.example", "email": "victim@other.org"})).await.ok();
    mails.push(sink.next().await);
    for mail in &mails {
        assert!(mail.text.contains("Hello,"), "{}", mail.text);
        assert!(!mail.text.contains("evil.example") && !mail.text.contains("other.example"), "{}", mail.text);
    }
    admin.patch(&format!("/user/{id}"), &json!({"is_verified": true})).await.ok();
    http.post("/user/forgot-password", &json!({"email": "victim@example.org"})).await;
    assert!(sink.next().await.text.contains("Hello evil.example,"), "it is theirs");
    server.terminate().await;
}

/// Nobody has the server write to many, or often to one, by changing their own address; others' mail comes nevertheless.
#[apply(both_backends!)]
async fn a_user_cannot_have_whomever_they_like_mailed(backend: Backend) {
    let sink = MailServer::start(Protection::None).await;
    let settings = sink.settings();
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut server = Server::start_with(backend, &settings).await;
    let admin = Http::admin(&server).await;
    let bobs_id = member(&admin, "bob").await;
    for name in ["ann", "eve"] {
        member(&admin, name).await;
    }
    let (bob, eve) = (logged_in(&server, "bob").await, logged_in(&server, "eve").await);
    // To many.
    let mut mailed = Vec::new();
    let refused = loop {
        let address = format!("victim{}@example.org", mailed.len());
        let answer = bob.patch("/latest/user/me", &json!({"email": address})).await;
        if answer.status == 429 {
            break answer;
        }
        answer.ok();
        mailed.push(address);
        assert!(mailed.len() < 100, "it ends");
    };
    assert!(mailed.len() >= 20, "{}", mailed.len());
    assert!(refused.headers.contains_key("retry-after"), "{refused:?}");
    let now = admin.get(&format!("/user/{bobs_id}")).await.ok();
    assert_eq!(now["email"], json!(mailed.last()), "nothing is changed by what is refused");
    bob.patch("/latest/user/me", &json!({"username": "bobby"})).await.ok();
    // To one.
    let mut to_one = 0;
    for n in 0..16 {
        let address = if n % 2 == 0 { "one@example.org".to_owned() } else { format!("other{n}@example.org") };
        let answer = eve.patch("/latest/user/me", &json!({"email": address})).await;
        if n % 2 == 0 && answer.status == 200 {
            to_one += 1;
        }
        match answer.status {
            200 => mailed.push(address),
            status => assert_eq!((status, n % 2), (429, 0), "{}", answer.text),
        }
    }
    assert_eq!(to_one, 5);
    let http = Http::new(&server);
    let forgot = json!({"email": "ann@example.org"});
    assert_eq!(http.post("/latest/user/forgot-password", &forgot).await.status, 202);
    mailed.push("ann@example.org".to_owned());
    let mut came = Vec::new();
    for _ in 0..mailed.len() {
        came.push(sink.next().await.to.trim_matches(['<', '>']).to_owned());
    }
    mailed.sort();
    came.sort();
    assert_eq!(came, mailed);
    server.terminate().await;
    assert!(sink.rest().await.is_empty());
}

#[apply(both_backends!)]
async fn without_a_mail_server_nothing_is_revealed(server: Server) {
    let http = Http::new(&server);
    for email in ["admin@kernelci.org", "nobody@example.org"] {
        assert_eq!(http.post("/user/forgot-password", &json!({"email": email})).await.status, 202, "{email}");
    }
}

/// The certificate and the configuration of a TLS server on loopback.
fn certificate() -> (String, std::sync::Arc<rustls::ServerConfig>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a configuration");
    (made.cert.pem(), std::sync::Arc::new(config))
}

#[tokio::test]
async fn mail_goes_through_starttls() {
    let (pem, config) = certificate();
    mail_goes(&pem, Protection::StartTls(config), "tls").await;
}

/// As on port 465, which only root may listen on.
#[tokio::test]
async fn mail_goes_through_implicit_tls() {
    let (pem, config) = certificate();
    mail_goes(&pem, Protection::Tls(config), "implicit").await;
}

/// To whom the certificate is trusted, and to nobody else.
async fn mail_goes(pem: &str, protection: Protection, security: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, pem).expect("written");
    let sink = MailServer::start(protection).await;
    let port = sink.port.to_string();
    let trusting = [
        ("SMTP_HOST", "localhost"),
        ("SMTP_PORT", &port),
        ("EMAIL_SENDER", "ci@kernelci.example"),
        ("EMAIL_PASSWORD", "secret"),
        ("SMTP_SECURITY", security),
        ("SMTP_CA_FILE", ca.to_str().expect("a path")),
    ];
    for (settings, sent) in [(&trusting[..], true), (&trusting[..5], false)] {
        let server = Server::start_with(Backend::Embedded, settings).await;
        let invite = json!({"username": "ann", "email": "ann@example.org"});
        let invited = Http::admin(&server).await.post("/user/invite", &invite).await.ok();
        assert_eq!(invited["email_sent"], sent, "{settings:?}");
        if sent {
            let mail = sink.next().await;
            assert_eq!((mail.tls, mail.auth.is_some()), (true, true));
        }
    }
    let rest = sink.rest().await;
    assert!(rest.is_empty(), "what was not sent did not come: {rest:?}");
}
