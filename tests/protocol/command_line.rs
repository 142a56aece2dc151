//! Commands beside a running server.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use bson::Document;
use macro_rules_attribute::apply;
use serde_json::{Value, json};

use crate::support::{Backend, SECRET, Server, both_backends, until};

/// What `kernelci-live indexes` prints about the store of this server.
fn indexes(server: &Server) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kernelci-live"));
    command.arg("indexes").arg("--data").arg(server.folder());
    for name in ["MONGO_URL", "MONGO_DB", "REDIS_URL"] {
        match server.setting(name) {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let output = command.output().expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// The tasks that a server begins with.
fn tasks(backend: Backend) -> &'static [&'static str] {
    match backend {
        Backend::Embedded => &["health", "roster", "connections", "writer", "retention"],
        Backend::Production => &["health", "relay", "sweep", "outboxes", "signals"],
    }
}

/// A server without one of them would only seem to be well.
#[apply(both_backends!)]
async fn a_background_task_that_panics_ends_the_process_with_its_message(backend: Backend) {
    let server = Server::start(backend).await;
    for task in tasks(backend) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = Command::new(crate::support::binary());
        command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(folder.path()).env_clear();
        for name in
            ["MONGO_URL", "MONGO_DB", "REDIS_URL", "REDIS_PREFIX", "SECRET_KEY", "KCI_INITIAL_PASSWORD"]
        {
            command.envs(server.setting(name).map(|value| (name, value)));
        }
        let output =
            command.env("PANIC_IN", task).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let output = output.spawn().expect("starts");
        let output = tokio::task::spawn_blocking(|| output.wait_with_output());
        let output = crate::support::soon(task, output).await.expect("no panic here").expect("ended");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{task}: {said}");
        let error = format!("error: the background task {task} has panicked: PANIC_IN is {task}");
        assert!(said.contains(&error), "{said}");
    }
    // What begins later.
    for (task, more) in [("tail", json!({})), ("coordinator", json!({"durable": "d", "group": true}))] {
        let mut server = Server::start_with(backend, &[("PANIC_IN", task)]).await;
        let mut raw = server.admin().await;
        let mut params = json!({"sub": 1, "channel": "lab"});
        params.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        _ = raw.send_request("event.subscribe", params).await;
        assert_eq!(server.exited().await.code(), Some(1), "{task}");
        assert!(
            server.log().contains(&format!("the background task {task} has panicked")),
            "{}",
            server.log()
        );
    }
}

/// The driver's own tasks, which wait for each other, used to panic now and then at the end of a command.
#[apply(both_backends!)]
async fn a_command_never_ends_in_a_panic(server: Server) {
    for _ in 0..10 {
        let runs = (0..4).map(|_| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_kernelci-live"));
            command.arg("indexes").arg("--data").arg(server.folder());
            for name in ["MONGO_URL", "MONGO_DB", "REDIS_URL"] {
                command.envs(server.setting(name).map(|value| (name, value)));
            }
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts")
        });
        for run in runs.collect::<Vec<_>>() {
            let output = run.wait_with_output().expect("ends");
            assert!(
                output.status.success() && output.stderr.is_empty(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
}

/// What was printed does not come again.
#[apply(both_backends!)]
async fn watching_under_a_name_goes_on(server: Server) {
    let mut raw = server.admin().await;
    let mut watch = Command::new(env!("CARGO_BIN_EXE_kernelci-live"));
    watch.args([
        "watch",
        "--channel",
        "lab",
        "--json",
        "--from",
        "earliest",
        "--durable",
        "w",
        "--url",
        &server.url(),
    ]);
    watch.env("KCI_TOKEN", server.token().await).stdout(Stdio::piped());
    for numbers in [1..=3, 4..=5] {
        for number in numbers.clone() {
            raw.call("event.publish", json!({"channel": "lab", "data": number})).await;
        }
        let mut process = watch.spawn().expect("starts");
        let (count, output) = (numbers.clone().count(), process.stdout.take().expect("piped"));
        let lines =
            move || BufReader::new(output).lines().take(count).map(|line| line.expect("a line")).collect();
        let lines: Vec<String> = tokio::task::spawn_blocking(lines).await.expect("lines");
        for (line, number) in lines.iter().zip(numbers.clone()) {
            assert_eq!(serde_json::from_str::<Value>(line).expect("JSON")["data"], number);
        }
        until("what was printed is acknowledged", async || {
            let place = raw.call("consumer.get", json!({"name": "w"})).await["position"].take();
            if place["seq"] == *numbers.end() { Ok(()) } else { Err(place) }
        })
        .await;
        process.kill().expect("killed");
        process.wait().expect("ended");
    }
}

#[apply(both_backends!)]
async fn indexes_are_shown_as_they_are(backend: Backend) {
    let server = Server::start_apart(backend, &[]).await;
    let all = indexes(&server);
    assert!(all.lines().count() > 8 && all.lines().all(|line| line.starts_with("present ")), "{all}");
    match server.backend() {
        Backend::Embedded => {
            let path = server.folder().join("kernelci.db");
            let database = rusqlite::Connection::open(path).expect("opens");
            let find = "SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'node' AND sql NOTNULL LIMIT 1";
            let name: String = database.query_row(find, [], |row| row.get(0)).expect("an index");
            database
                .execute_batch(&format!("DROP INDEX {name}; CREATE INDEX mine ON node (revision)"))
                .expect("dropped");
        }
        Backend::Production => {
            let (url, name) =
                (server.setting("MONGO_URL").expect("a URL"), server.setting("MONGO_DB").expect("a name"));
            let nodes = mongodb::Client::with_uri_str(url)
                .await
                .expect("connects")
                .database(name)
                .collection::<Document>("node");
            let names = nodes.list_index_names().await.expect("indexes");
            let name = names.iter().find(|name| *name != "_id_").expect("an index");
            nodes.drop_index(name.as_str()).await.expect("dropped");
            let keys = bson::doc! {"mine": 1};
            nodes.create_index(mongodb::IndexModel::builder().keys(keys).build()).await.expect("made");
        }
    }
    let all = indexes(&server);
    let count = |state: &str| all.lines().filter(|line| line.starts_with(state)).count();
    assert_eq!((count("missing "), count("left over ")), (1, 1), "{all}");
}

/// What a start with these arguments and variables says, which does not succeed.
fn refusal(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_kernelci-live"));
    command.env_clear().current_dir(folder.path()).env("LISTEN", "127.0.0.1:0");
    let output = command.args(arguments).envs(variables.iter().copied()).output().expect("runs");
    assert!(!output.status.success(), "{arguments:?} {variables:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_secret_that_can_be_guessed_or_seen_ends_the_start() {
    let told = refusal(&[], &[("SECRET_KEY", "guess")]);
    assert!(told.contains("SECRET_KEY has 5 bytes, expected at least 32"), "{told}");
    let told = refusal(&[], &[("UNIFIED_SECRET", "guess")]);
    assert!(told.contains("UNIFIED_SECRET has 5 bytes"), "{told}");
    let told = refusal(&[], &[("SECRET_KEY", SECRET), ("SECRET_KEY_FILE", "key")]);
    assert!(told.contains("SECRET_KEY and SECRET_KEY_FILE are both set"), "{told}");
    let told = refusal(&[], &[("EMAIL_PASSWORD_FILE", "none")]);
    assert!(told.contains("EMAIL_PASSWORD_FILE is none"), "{told}");
    for flag in ["--secret-key", "--unified-secret", "--email-password", "--initial-password"] {
        let told = refusal(&["serve", flag, SECRET], &[]);
        assert!(told.contains(flag) && told.contains(&format!("{flag}-file")), "{told}");
        assert!(!told.contains(SECRET), "{told}");
    }
    for command in ["demo", "watch"] {
        for flag in ["--token", "--password"] {
            let told = refusal(&[command, flag, SECRET], &[]);
            assert!(told.contains(flag) && !told.contains(SECRET), "{told}");
        }
    }
    for (flag, scheme) in [("--mongo-url", "mongodb"), ("--redis-url", "redis")] {
        let address = format!("{scheme}://user:s3cret@db/");
        for before in [&[][..], &["serve"], &["indexes"]] {
            let arguments = [before, &[flag, &*address]].concat();
            let told = refusal(&arguments, &[]);
            assert!(told.contains(flag) && told.contains("password") && !told.contains("s3cret"), "{told}");
        }
    }
}

#[tokio::test]
async fn secrets_come_from_files_and_old_short_ones_are_taken_when_asked() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("key");
    std::fs::write(&file, format!("{SECRET}\n")).expect("written");
    let path = file.to_str().expect("a path");
    for (mode, warned) in [(0o644, true), (0o600, false)] {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("set");
        let settings = [("SECRET_KEY", ""), ("SECRET_KEY_FILE", path)];
        let server = Server::start_with(Backend::Embedded, &settings).await;
        server.admin().await.call("user.whoami", json!({})).await;
        assert_eq!(server.log().contains("others can read"), warned, "{mode:o}: {}", server.log());
    }
    let settings = [("UNIFIED_SECRET", "short"), ("ALLOW_SHORT_SECRET", "true")];
    let server = Server::start_with(Backend::Embedded, &settings).await;
    assert!(server.log().contains("UNIFIED_SECRET has 5 bytes"), "{}", server.log());
}
