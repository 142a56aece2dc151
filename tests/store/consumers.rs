//! Consumers: cursors that are fenced and move in turns.

use kernelci_live::model::ObjectId;
use kernelci_live::quota::{Kept, Over, Share, Thing};
use kernelci_live::store::consumers::{Consumer, ConsumerKey, Cursor, NewConsumer, Opened, Owner, Reserved};
use std::time::Duration;

use super::support::{Fixture, production};
use crate::support::both_backends;
use macro_rules_attribute::apply;

fn owner(name: &str) -> Owner {
    Owner { id: Some(ObjectId::new()), name: name.to_owned() }
}

fn new(name: Option<&str>, owner: &Owner) -> NewConsumer {
    NewConsumer {
        name: name.map(str::to_owned),
        channel: "ch".to_owned(),
        owner: owner.clone(),
        promiscuous: false,
        cursor: Cursor::at("e", 5),
        share: None,
        session: None,
    }
}

async fn open(f: &Fixture, new: &NewConsumer) -> Consumer {
    match f.store.open_consumer(new).await.unwrap() {
        Opened::Open { consumer, .. } => *consumer,
        other => panic!("{other:?}"),
    }
}

async fn by_id(f: &Fixture, id: u64) -> Option<Consumer> {
    f.store.consumer(ConsumerKey::Id(id)).await.unwrap()
}

#[apply(both_backends!)]
async fn a_consumer_without_a_name_ends_with_its_subscription(f: Fixture) {
    let ann = owner("ann");
    let (one, two) = (open(&f, &new(None, &ann)).await, open(&f, &new(None, &ann)).await);
    assert!(one.id < two.id, "numbers are never given again");
    let id = one.id.unwrap();
    assert_eq!(by_id(&f, id).await, Some(one.clone()));
    assert_eq!((one.cursor, one.turn, one.last_poll), (Cursor::at("e", 5), 0, None));
    assert!(f.store.close_consumer(id).await.unwrap());
    assert_eq!(by_id(&f, id).await, None);
    assert!(!f.store.close_consumer(id).await.unwrap());
    assert!(!f.store.touch_consumer(id).await.unwrap());
    assert_eq!(f.store.consumers(None, 9).await.unwrap(), [two]);
}

#[apply(both_backends!)]
async fn a_name_keeps_its_place_and_fences_off_who_read_before(f: Fixture) {
    let ann = owner("ann");
    let first = open(&f, &new(Some("n"), &ann)).await;
    let id = first.id.unwrap();
    let moved = Cursor { offered: Some(9), handed: true, ..Cursor::at("e", 8) };
    assert!(f.store.move_consumer(id, first.turn, &moved).await.unwrap());
    let again = NewConsumer { cursor: Cursor::at("e", 77), promiscuous: true, ..new(Some("n"), &ann) };
    let opened = f.store.open_consumer(&again).await.unwrap();
    let Opened::Open { consumer: second, taken_over } = opened else { panic!("{opened:?}") };
    assert_eq!(taken_over, Some(id));
    assert_eq!((&second.cursor, second.promiscuous), (&Cursor::at("e", 8), true), "what was offered is not");
    assert_eq!(by_id(&f, id).await, None);
    assert!(!f.store.move_consumer(id, second.turn, &moved).await.unwrap());
    assert!(!f.store.ack_consumer(id, "e", 99).await.unwrap());
    // Closed it stays; opened again it has another id.
    let id = second.id.unwrap();
    assert!(f.store.close_consumer(id).await.unwrap());
    let closed = f.store.consumer(ConsumerKey::Name("n")).await.unwrap().unwrap();
    assert_eq!((closed.id, &closed.cursor), (None, &Cursor::at("e", 8)));
    let third = open(&f, &new(Some("n"), &ann)).await;
    assert!(third.id > second.id);
    assert!(f.store.delete_consumer("n").await.unwrap());
    assert!(!f.store.delete_consumer("n").await.unwrap());
    assert_eq!(by_id(&f, third.id.unwrap()).await, None);
}

#[apply(both_backends!)]
async fn each_user_has_names_of_their_own(f: Fixture) {
    let (ann, bob) = (owner("ann"), owner("bob"));
    let first = open(&f, &new(Some("n"), &ann)).await;
    assert_eq!((first.name.as_deref(), first.own_name()), (Some("n"), Some("n")), "as it always was");
    let second = open(&f, &new(Some("n"), &bob)).await;
    assert_eq!((second.name.clone(), second.own_name()), (Some(bob.apart("n")), Some("n")));
    for (owner, consumer) in [(&ann, &first), (&bob, &second)] {
        let own = f.store.consumer(ConsumerKey::Own(owner, "n")).await.unwrap();
        assert_eq!(own.as_ref(), Some(consumer));
    }
    assert_eq!(f.store.consumer(ConsumerKey::Own(&owner("eve"), "n")).await.unwrap(), None);
    // Whoever has taken over somebody's name is somebody else; whoever was renamed is the same.
    let thief = Owner { id: bob.id, name: "ann".to_owned() };
    assert_eq!(open(&f, &new(Some("n"), &thief)).await.name, second.name);
    let renamed = Owner { id: ann.id, name: "anna".to_owned() };
    assert_eq!(open(&f, &new(Some("n"), &renamed)).await.owner, renamed);
    let elsewhere = NewConsumer { channel: "other".to_owned(), ..new(Some("n"), &ann) };
    let opened = f.store.open_consumer(&elsewhere).await.unwrap();
    assert_eq!(opened, Opened::OtherChannel("ch".to_owned()));
    open(&f, &new(Some("m"), &bob)).await;
    open(&f, &new(None, &bob)).await;
    assert_eq!(f.store.consumers(Some(&bob), 9).await.unwrap().len(), 3);
    assert_eq!(f.store.consumers(Some(&bob), 2).await.unwrap().len(), 2);
    assert_eq!(f.store.consumers(None, 2).await.unwrap().len(), 2);
    assert_eq!(f.store.count_consumers(bob.id.unwrap()).await.unwrap(), (2, 1));
    // Bob keeps his place when the plain name gets free, and what is Ann's goes with her.
    f.store.delete_consumers_of(&ann).await.unwrap();
    assert_eq!(open(&f, &new(Some("n"), &bob)).await.name, second.name);
    assert_eq!(f.store.consumers(Some(&ann), 9).await.unwrap(), []);
    assert_eq!(f.store.consumers(None, 9).await.unwrap().len(), 3);
}

#[apply(both_backends!)]
async fn a_reserved_name_waits_for_its_user(f: Fixture) {
    let (daemon, eve) = (owner("daemon"), owner("eve"));
    assert_eq!(f.store.reserve_consumer("n", daemon.id).await.unwrap(), Reserved::Done);
    assert_eq!(f.store.reserved_consumers().await.unwrap(), [("n".to_owned(), daemon.id.unwrap())]);
    assert_eq!(open(&f, &new(Some("n"), &eve)).await.name, Some(eve.apart("n")));
    let other = NewConsumer { name: Some("m".to_owned()), ..new(None, &eve) };
    assert_eq!(open(&f, &other).await.name.as_deref(), Some("m"));
    assert_eq!(open(&f, &new(Some("n"), &daemon)).await.name.as_deref(), Some("n"));
    // Whoever has a name keeps it.
    assert_eq!(f.store.reserve_consumer("m", daemon.id).await.unwrap(), Reserved::Taken(eve.clone()));
    assert_eq!(f.store.reserve_consumer("m", eve.id).await.unwrap(), Reserved::Done);
    assert_eq!(f.store.reserved_consumers().await.unwrap().len(), 2);
    assert_eq!(f.store.reserve_consumer("n", None).await.unwrap(), Reserved::Done);
    f.store.delete_consumers_of(&eve).await.unwrap();
    assert_eq!(f.store.reserved_consumers().await.unwrap(), []);
}

#[apply(both_backends!)]
async fn of_many_new_ones_at_once_as_many_get_through_as_there_may_be(f: Fixture) {
    let ann = owner("ann");
    let most = Kept { consumers: 3, unnamed_consumers: 2, ..Kept::default() };
    let user = ann.id.unwrap();
    let share = Some(Share { user, most });
    let racers = (0..20).map(|n| {
        let name = (n % 2 == 0).then(|| format!("n{n}"));
        let (store, new) = (f.store.clone(), NewConsumer { share, ..new(name.as_deref(), &ann) });
        tokio::spawn(async move { store.open_consumer(&new).await.unwrap() })
    });
    let (mut open, mut over) = (0, Vec::new());
    for racer in racers.collect::<Vec<_>>() {
        match racer.await.unwrap() {
            Opened::Open { .. } => open += 1,
            Opened::Over(refused) => over.push(refused),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((open, over.len()), (5, 15));
    assert!(over.contains(&Over { thing: Thing::Consumers, used: 3, most: 3 }), "{over:?}");
    assert!(over.contains(&Over { thing: Thing::UnnamedConsumers, used: 2, most: 2 }), "{over:?}");
    assert_eq!(f.store.count_consumers(user).await.unwrap(), (3, 2));
    // What is there can be opened again.
    let known = f.store.consumers(Some(&ann), 9).await.unwrap();
    let known = known.iter().find_map(|one| one.name.as_deref()).unwrap();
    let again = f.store.open_consumer(&NewConsumer { share, ..new(Some(known), &ann) }).await.unwrap();
    assert!(matches!(again, Opened::Open { taken_over: Some(_), .. }), "{again:?}");
}

#[apply(both_backends!)]
async fn a_cursor_moves_in_turns(f: Fixture) {
    let consumer = open(&f, &new(None, &owner("ann"))).await;
    let (id, turn) = (consumer.id.unwrap(), consumer.turn);
    let offer = Cursor { offered: Some(6), ..Cursor::at("e", 5) };
    assert!(f.store.move_consumer(id, turn, &offer).await.unwrap());
    assert!(!f.store.move_consumer(id, turn, &offer).await.unwrap(), "the turn is over");
    let now = by_id(&f, id).await.unwrap();
    assert_eq!((&now.cursor, now.turn), (&offer, turn + 1));
    assert!(now.last_poll.is_some() && now.cursor.is_pending());
    // Of another turn: no effect.
    f.store.settle_consumer(id, turn, true).await.unwrap();
    assert!(by_id(&f, id).await.unwrap().cursor.is_pending());
    f.store.settle_consumer(id, turn + 1, true).await.unwrap();
    let handed = by_id(&f, id).await.unwrap().cursor;
    assert_eq!((handed.acknowledged(), handed.is_pending()), (6, false));
    // Handed over is handed over.
    f.store.settle_consumer(id, turn + 1, false).await.unwrap();
    assert_eq!(by_id(&f, id).await.unwrap().cursor, handed);
    assert!(
        f.store
            .move_consumer(id, turn + 1, &Cursor { offered: Some(7), ..Cursor::at("e", 6) })
            .await
            .unwrap()
    );
    f.store.settle_consumer(id, turn + 2, false).await.unwrap();
    assert_eq!(by_id(&f, id).await.unwrap().cursor, Cursor::at("e", 6));
}

#[apply(both_backends!)]
async fn of_racing_turns_one_wins(f: Fixture) {
    let consumer = open(&f, &new(None, &owner("ann"))).await;
    let id = consumer.id.unwrap();
    let racers = (0..8).map(|n| {
        let store = f.store.clone();
        tokio::spawn(async move { store.move_consumer(id, 0, &Cursor::at("e", 10 + n)).await.unwrap() })
    });
    let mut won = 0;
    for racer in racers.collect::<Vec<_>>() {
        won += u32::from(racer.await.unwrap());
    }
    assert_eq!((won, by_id(&f, id).await.unwrap().turn), (1, 1));
}

#[apply(both_backends!)]
async fn of_racing_openers_the_last_holds_the_name(f: Fixture) {
    let ann = owner("ann");
    let racers = (0..8).map(|_| {
        let (store, new) = (f.store.clone(), new(Some("n"), &ann));
        tokio::spawn(async move { store.open_consumer(&new).await.unwrap() })
    });
    let mut ids = Vec::new();
    for racer in racers.collect::<Vec<_>>() {
        let Opened::Open { consumer, .. } = racer.await.unwrap() else { panic!("not opened") };
        ids.push(consumer.id.unwrap());
    }
    let holder = f.store.consumer(ConsumerKey::Name("n")).await.unwrap().unwrap();
    assert!(ids.contains(&holder.id.unwrap()));
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 8, "every subscription has an id of its own");
    assert_eq!(f.store.consumers(None, 99).await.unwrap().len(), 1);
}

#[apply(both_backends!)]
async fn acks_are_cumulative_and_seeking_is_not(f: Fixture) {
    let consumer = open(&f, &new(Some("n"), &owner("ann"))).await;
    let id = consumer.id.unwrap();
    for (seq, stands) in [(7, 7), (6, 7), (9, 9)] {
        assert!(f.store.ack_consumer(id, "e", seq).await.unwrap());
        assert_eq!(by_id(&f, id).await.unwrap().cursor.seq, stands);
    }
    assert!(f.store.seek_consumer("n", &Cursor::at("f", 2)).await.unwrap());
    assert_eq!(by_id(&f, id).await, None, "whoever read for it is fenced off");
    let moved = f.store.consumer(ConsumerKey::Name("n")).await.unwrap().unwrap();
    assert_eq!((moved.id, moved.cursor), (None, Cursor::at("f", 2)));
    assert!(!f.store.seek_consumer("m", &Cursor::at("f", 2)).await.unwrap());
}

#[apply(both_backends!)]
async fn what_nobody_uses_expires(f: Fixture) {
    let ann = owner("ann");
    let unnamed = open(&f, &new(None, &ann)).await;
    open(&f, &new(Some("n"), &ann)).await;
    assert_eq!(f.store.expire_consumers(2000, 2000).await.unwrap(), (0, 0));
    const LONG: Duration = Duration::from_secs(3000);
    f.time_passes(LONG).await;
    assert!(f.store.touch_consumer(unnamed.id.unwrap()).await.unwrap());
    assert_eq!(f.store.expire_consumers(2000, 4000).await.unwrap(), (0, 0));
    assert_eq!(f.store.expire_consumers(2000, 2000).await.unwrap(), (0, 1));
    f.time_passes(LONG).await;
    assert_eq!(f.store.expire_consumers(2000, 2000).await.unwrap(), (1, 0));
    assert!(f.store.consumers(None, 9).await.unwrap().is_empty());
}

/// However many others have.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_user_has_is_found_by_an_index() {
    let f = production().await;
    let (ann, bob) = (owner("ann"), owner("bob"));
    for n in 0..60 {
        open(&f, &new((n % 2 == 0).then(|| format!("n{n}")).as_deref(), &bob)).await;
    }
    open(&f, &new(Some("n"), &ann)).await;
    let looks = async || {
        assert_eq!(f.store.consumers(Some(&ann), 99).await.unwrap().len(), 1);
        assert_eq!(f.store.count_consumers(ann.id.unwrap()).await.unwrap(), (1, 0));
    };
    let (examined, done) = f.profiled(looks).await;
    assert!(examined < 20, "{examined}: {done:?}");
}
