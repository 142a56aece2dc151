//! Each scenario delivers, counts right and reports.

use super::generator::load;
use crate::support::{Backend, Server};

#[tokio::test]
async fn events_reach_every_subscriber() {
    let server = Server::start(Backend::Embedded).await;
    let url = server.url();
    let rates = ["deliveries_per_second", "events_per_second", "message_bytes"];
    let times = ["delivery", "last_delivery"];
    let run = load(&url, "fan-out --subscribers 20 --events 10 --size 300").await;
    run.good(&rates, &times);
    assert_eq!((run.figure("deliveries"), run.figure("events")), (200.0, 10.0));
    assert_eq!((run.count("delivery"), run.count("last_delivery")), (200, 10), "without those to warm up");
    assert!(run.figure("message_bytes") > 300.0);

    let run = load(&url, "fan-out --subscribers 12 --filters 4 --events 20").await;
    run.good(&rates, &times);
    assert_eq!(run.figure("deliveries"), 60.0, "each event goes to the three that have its filter");

    let run = load(&url, "burst --subscribers 15 --rate 100 --seconds 0.5").await;
    run.good(&rates, &times);
    assert_eq!((run.figure("deliveries"), run.count("delivery")), (750.0, 750));

    let run = load(&url, "coalesced --subscribers 10 --seconds 0.5 --publishers 3").await;
    run.good(&rates, &times);
    assert_eq!(run.figure("deliveries"), 10.0 * run.figure("events"));
}

#[tokio::test]
async fn requests_are_answered_and_written_nodes_have_their_events() {
    let server = Server::start(Backend::Embedded).await;
    let url = server.url();
    for operation in ["get", "find", "count"] {
        let arguments = format!("requests {operation} --sessions 3 --seconds 0.5 --nodes 300");
        let run = load(&url, &arguments).await;
        run.good(&["requests", "requests_per_second"], &["answer"]);
        assert_eq!(run.count("answer") as f64, run.figure("requests"));
    }
    let run = load(&url, "requests create --sessions 3 --rate 40 --seconds 0.5").await;
    run.good(&["requests_per_second"], &["answer", "event"]);
    assert_eq!((run.count("answer"), run.count("event")), (20, 20));

    let run = load(&url, "hierarchy --builds 1 --times 3 --clients 2").await;
    run.good(&["nodes_per_second"], &["submit"]);
    assert_eq!(run.count("submit"), 3);
    let mixed =
        "mixed --dashboards 5 --rate 20 --writers 2 --searches 10 --finders 2 --seconds 1 --nodes 300";
    let run = load(&url, mixed).await;
    run.good(&["deliveries"], &["delivery", "create", "find"]);
    assert_eq!((run.count("delivery"), run.count("create"), run.count("find")), (100, 20, 10));
}

#[tokio::test]
async fn sessions_come_stay_and_come_back() {
    let server = Server::start(Backend::Embedded).await;
    let url = server.url();
    let run = load(&url, "resume --events 300 --clients 2 --times 2").await;
    run.good(&["events_per_second_of_a_client"], &["caught_up"]);
    assert_eq!(run.count("caught_up"), 4);
    let run = load(&url, "connect --workers 2 --seconds 0.5").await;
    run.good(&["connections_per_second"], &["connect"]);
    if cfg!(target_os = "linux") {
        let named = format!(
            "idle --sessions 30 --settle 1 --seconds 1 --burst 20 --rest 1 --process server={}",
            server.pid()
        );
        for arguments in ["idle --sessions 30 --settle 1 --seconds 1 --burst 20 --rest 1", named.as_str()] {
            let run = load(&url, arguments).await;
            run.good(
                &["idle_rss_kb_per_session", "idle_cpu_percent", "rested_anonymous_kb_per_session"],
                &[],
            );
            let names: Vec<_> = run.json["processes"].as_array().expect("processes").iter().collect();
            assert_eq!((&names[0]["name"], &names[1]["name"]), (&"server".into(), &"generator".into()));
            assert!(names[0]["rss_kb"].as_u64() > Some(1000), "{names:?}");
        }
    }
    let nobody = load(&url, "idle --sessions 1 --process server=4000000000").await;
    assert!(!nobody.success && (nobody.text.contains("no such process") || cfg!(not(target_os = "linux"))));
}
