//! Searches: order, pages, counts. What filters mean is tested where they are defined.

use kernelci_live::filter::{Filter, Pattern, Test};
use kernelci_live::model::{Node, ObjectId, Timestamp};
use kernelci_live::store::Query;
use macro_rules_attribute::apply;
use serde_json::json;

use super::support::{Fixture, field, node, query};
use crate::support::both_backends;

/// Nodes with ascending ids, written in another order.
async fn add(f: &Fixture, change: impl Fn(usize, &mut Node), count: usize) -> Vec<ObjectId> {
    let mut nodes: Vec<Node> = (0..count).map(|i| node(&format!("n{i}"))).collect();
    nodes.sort_by_key(|node| node.id);
    for (i, node) in nodes.iter_mut().enumerate() {
        change(i, node);
    }
    let ids = nodes.iter().map(|node| node.id).collect();
    let middle = count / 2;
    nodes.rotate_left(middle);
    f.add(&nodes).await;
    ids
}

fn pick(ids: &[ObjectId], places: &[usize]) -> Vec<ObjectId> {
    places.iter().map(|&place| ids[place]).collect()
}

#[apply(both_backends!)]
async fn the_default_order_is_by_id(f: Fixture) {
    let mut ids = add(&f, |_, _| (), 7).await;
    assert_eq!(f.found(query(Filter::all(), &[])).await, ids);
    assert_eq!(f.found(query(Filter::all(), &[("id", false)])).await, ids);
    ids.reverse();
    assert_eq!(f.found(query(Filter::all(), &[("id", true)])).await, ids);
}

#[apply(both_backends!)]
async fn nulls_come_first_and_id_last(f: Fixture) {
    let base = Timestamp::from_millis(1_700_000_000_000);
    // A whole second is written without a fraction: the order is the order in time all the same.
    let holdoffs = [Some(1_500), None, Some(1_000), None, Some(1_500), Some(2_000)];
    let change = |i: usize, node: &mut Node| {
        node.holdoff = holdoffs[i].map(|ms| Timestamp::from_millis(base.millis() + ms));
    };
    let ids = add(&f, change, 6).await;
    let ascending = f.found(query(Filter::all(), &[("holdoff", false)])).await;
    assert_eq!(ascending, pick(&ids, &[1, 3, 2, 0, 4, 5]));
    let descending = f.found(query(Filter::all(), &[("holdoff", true)])).await;
    assert_eq!(descending, pick(&ids, &[5, 4, 0, 2, 3, 1]), "the exact reverse, ids too");
    let mixed = f.found(query(Filter::all(), &[("holdoff", true), ("id", false)])).await;
    assert_eq!(mixed, pick(&ids, &[5, 0, 4, 2, 1, 3]), "unless id has a direction of its own");
}

#[apply(both_backends!)]
async fn several_keys_sort_in_turn(f: Fixture) {
    let groups = [Some("b"), Some("a"), None, Some("b"), Some("a")];
    let change = |i: usize, node: &mut Node| {
        node.group = groups[i].map(str::to_owned);
        node.name = format!("{}", 9 - i);
    };
    let ids = add(&f, change, 5).await;
    let sorted = f.found(query(Filter::all(), &[("group", false), ("name", false)])).await;
    assert_eq!(sorted, pick(&ids, &[2, 4, 1, 3, 0]));
    let sorted = f.found(query(Filter::all(), &[("group", true), ("name", false)])).await;
    assert_eq!(sorted, pick(&ids, &[3, 0, 4, 1, 2]));
}

#[apply(both_backends!)]
async fn numbers_sort_as_numbers(f: Fixture) {
    let counters = [10, 9, 100, -1];
    let ids = add(&f, |i, node| node.retry_counter = counters[i], 4).await;
    let sorted = f.found(query(Filter::all(), &[("retry_counter", false)])).await;
    assert_eq!(sorted, pick(&ids, &[3, 1, 0, 2]));
}

#[apply(both_backends!)]
async fn a_page_is_cut_after_the_filter(f: Fixture) {
    let change = |i: usize, node: &mut Node| node.name = format!("{}-{i}", ["odd", "even"][(i + 1) % 2]);
    let ids = add(&f, change, 10).await;
    let even = field("name", Test::Re(Pattern::new("^even-").expect("a pattern")));
    for (offset, limit, places) in
        [(0, 3, &[0, 2, 4][..]), (1, 3, &[2, 4, 6]), (3, 100, &[6, 8]), (5, 100, &[]), (0, 0, &[])]
    {
        let page = Query { limit, offset, ..query(even.clone(), &[]) };
        assert_eq!(f.found(page).await, pick(&ids, places), "regex: {limit} from {offset}");
        let exact =
            Filter::Or(places.iter().map(|i| field("name", Test::Eq(json!(format!("even-{i}"))))).collect());
        let page = query(exact, &[("name", true)]);
        let mut reversed = places.to_vec();
        reversed.reverse();
        assert_eq!(f.found(page).await, pick(&ids, &reversed), "names {places:?}");
    }
    let page = Query { limit: 2, offset: 1, ..query(Filter::all(), &[("created", false), ("id", false)]) };
    assert_eq!(f.found(page).await.len(), 2);
}

#[apply(both_backends!)]
async fn limits_may_be_beyond_everything(f: Fixture) {
    let ids = add(&f, |_, _| (), 3).await;
    let all = Query { limit: u64::MAX, ..query(Filter::all(), &[]) };
    assert_eq!(f.found(all).await, ids);
    let none = Query { offset: u64::MAX, ..query(Filter::all(), &[]) };
    assert!(f.found(none).await.is_empty());
}

#[apply(both_backends!)]
async fn fields_in_data_are_found(f: Fixture) {
    let parent = ObjectId::new();
    let change = |i: usize, node: &mut Node| {
        let commit = format!("c{}", i % 2);
        node.data = json!({"kernel_revision": {"tree": "mainline", "commit": commit}}).as_object().cloned();
        node.parent = (i > 2).then_some(parent);
    };
    let ids = add(&f, change, 5).await;
    let commit = field("data.kernel_revision.commit", Test::Eq(json!("c1")));
    assert_eq!(f.found(query(commit.clone(), &[])).await, pick(&ids, &[1, 3]));
    let child = field("parent", Test::Eq(json!(parent.to_hex())));
    assert_eq!(f.found(query(child.clone(), &[])).await, pick(&ids, &[3, 4]));
    let both = Filter::And(vec![commit, child]);
    assert_eq!(f.found(query(both, &[])).await, pick(&ids, &[3]));
    let orphan = field("parent", Test::Eq(json!(null)));
    assert_eq!(f.found(query(orphan, &[])).await, pick(&ids, &[0, 1, 2]));
    let one = field("id", Test::Eq(json!(ids[2].to_hex())));
    assert_eq!(f.found(query(one, &[])).await, pick(&ids, &[2]));
    let behind = field("id", Test::Gt(json!(ids[2].to_hex())));
    assert_eq!(f.found(query(behind, &[])).await, pick(&ids, &[3, 4]), "paging by id");
}

#[apply(both_backends!)]
async fn count_agrees_with_find(f: Fixture) {
    assert_eq!(f.store.count_nodes(&Filter::all()).await.unwrap(), 0);
    add(&f, |i, node| node.processed_by_kcidb_bridge = i < 2, 6).await;
    let odd = field("name", Test::Re(Pattern::new("[135]$").expect("a pattern")));
    let sent = field("processed_by_kcidb_bridge", Test::Eq(json!(true)));
    for (filter, count) in [
        (Filter::all(), 6),
        (Filter::Or(Vec::new()), 0),
        (sent.clone(), 2),
        (Filter::Not(Box::new(sent)), 4),
        (odd, 3),
        (field("kind", Test::In(vec![json!("job"), json!("kbuild")])), 6),
        (field("holdoff", Test::Exists(true)), 6),
        (field("data.arch", Test::Exists(true)), 0),
    ] {
        assert_eq!(f.store.count_nodes(&filter).await.unwrap(), count, "{filter:?}");
        assert_eq!(f.found(query(filter, &[])).await.len() as u64, count);
    }
}
