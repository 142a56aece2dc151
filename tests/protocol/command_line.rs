//! Commands beside a running server.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use bson::Document;
use macro_rules_attribute::apply;
use serde_json::{Value, json};

use crate::support::{Backend, Server, both_backends, until};

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
