//! Groups: what they know is written in turns.

use kernelci_live::model::{ObjectId, Timestamp};
use kernelci_live::quota::{Kept, Over, Share};
use kernelci_live::store::consumer_groups::{KeptGroup, OpenedGroup};
use kernelci_live::store::consumers::{ConsumerKey, Cursor, NewConsumer, Opened, Owner};
use macro_rules_attribute::apply;

use super::support::Fixture;
use crate::support::both_backends;

fn new(owner: &Owner) -> NewConsumer {
    NewConsumer {
        name: Some("g".to_owned()),
        channel: "ch".to_owned(),
        owner: owner.clone(),
        promiscuous: true,
        cursor: Cursor::at("e", 5),
        share: None,
        session: None,
    }
}

fn ann() -> Owner {
    Owner { id: Some(ObjectId::new()), name: "ann".to_owned() }
}

async fn open(f: &Fixture, new: &NewConsumer) -> KeptGroup {
    match f.store.open_consumer_group(new, "settings").await.unwrap() {
        OpenedGroup::Open(group) => *group,
        other => panic!("{other:?}"),
    }
}

#[apply(both_backends!)]
async fn a_group_is_made_once_and_keeps_its_state(f: Fixture) {
    let ann = ann();
    let begun = Timestamp::now().millis();
    let made = open(&f, &new(&ann)).await;
    assert_eq!((&*made.settings, &made.state), ("settings", &None));
    assert_eq!(
        (made.consumer.group.as_deref(), &made.consumer.cursor),
        (Some("settings"), &Cursor::at("e", 5))
    );
    // The clock of another machine may differ a little.
    assert!((made.now.millis() - begun).abs() < 60_000, "{:?}", made.now);
    let id = made.consumer.id.unwrap();
    assert!(f.store.move_consumer_group(id, made.consumer.turn, &Cursor::at("e", 7), "state").await.unwrap());
    let elsewhere = NewConsumer { cursor: Cursor::at("e", 99), ..new(&ann) };
    let OpenedGroup::Open(again) = f.store.open_consumer_group(&elsewhere, "others").await.unwrap() else {
        panic!("not opened")
    };
    assert_eq!((again.consumer.id, again.consumer.turn), (Some(id), made.consumer.turn + 1));
    assert_eq!((&*again.settings, again.state.as_deref()), ("settings", Some("state")));
    assert_eq!(again.consumer.cursor, Cursor::at("e", 7));
    assert!(again.consumer.last_poll.is_some());
    let kept = f.store.consumer_group(id).await.unwrap().unwrap();
    assert_eq!((kept.consumer, kept.state.as_deref()), (again.consumer, Some("state")));
    // It goes as a whole.
    assert!(f.store.delete_consumer("g").await.unwrap());
    assert!(f.store.consumer_group(id).await.unwrap().is_none());
    assert!(!f.store.move_consumer_group(id, 1, &Cursor::at("e", 9), "late").await.unwrap());
    let anew = open(&f, &new(&ann)).await;
    assert_eq!((anew.state, anew.consumer.id == Some(id)), (None, false));
}

#[apply(both_backends!)]
async fn a_name_is_a_group_or_it_is_not(f: Fixture) {
    let ann = ann();
    open(&f, &new(&ann)).await;
    assert_eq!(f.store.open_consumer(&new(&ann)).await.unwrap(), Opened::Group);
    let other = NewConsumer { channel: "other".to_owned(), ..new(&ann) };
    let opened = f.store.open_consumer_group(&other, "").await.unwrap();
    assert!(matches!(&opened, OpenedGroup::OtherChannel(channel) if channel == "ch"), "{opened:?}");
    let bob = Owner { id: Some(ObjectId::new()), name: "ann".to_owned() };
    let bobs = open(&f, &new(&bob)).await.consumer;
    assert_eq!((bobs.name.clone(), bobs.own_name()), (Some(bob.apart("g")), Some("g")));
    let most = Kept { consumers: 1, ..Kept::default() };
    let share = Some(Share { user: bob.id.unwrap(), most });
    let more = NewConsumer { name: Some("more".to_owned()), share, ..new(&bob) };
    let opened = f.store.open_consumer_group(&more, "").await.unwrap();
    assert!(matches!(opened, OpenedGroup::Over(Over { used: 1, .. })), "{opened:?}");
    assert!(f.store.delete_consumer(&bob.apart("g")).await.unwrap());
    let plain = NewConsumer { name: Some("plain".to_owned()), ..new(&ann) };
    let opened = f.store.open_consumer(&plain).await.unwrap();
    let Opened::Open { consumer, .. } = opened else { panic!("{opened:?}") };
    let opened = f.store.open_consumer_group(&plain, "").await.unwrap();
    assert!(matches!(opened, OpenedGroup::NoGroup), "{opened:?}");
    assert!(f.store.consumer_group(consumer.id.unwrap()).await.unwrap().is_none());
    let all = f.store.consumers(None, 9).await.unwrap();
    assert_eq!(all.iter().filter(|consumer| consumer.group.is_some()).count(), 1);
}

#[apply(both_backends!)]
async fn of_racing_writers_of_a_group_one_wins(f: Fixture) {
    let group = open(&f, &new(&ann())).await.consumer;
    let (id, turn) = (group.id.unwrap(), group.turn);
    let racers = (0..8).map(|n| {
        let store = f.store.clone();
        tokio::spawn(async move {
            let state = format!("state {n}");
            let won = store.move_consumer_group(id, turn, &Cursor::at("e", 10 + n), &state).await.unwrap();
            won.then_some((state, 10 + n))
        })
    });
    let mut won = Vec::new();
    for racer in racers.collect::<Vec<_>>() {
        won.extend(racer.await.unwrap());
    }
    let kept = f.store.consumer_group(id).await.unwrap().unwrap();
    assert_eq!(won, [(kept.state.unwrap(), kept.consumer.cursor.seq)]);
    assert_eq!(kept.consumer.turn, turn + 1);
}

#[apply(both_backends!)]
async fn of_racing_openers_all_get_the_same_group(f: Fixture) {
    let ann = ann();
    for round in 0..2 {
        let racers = (0..8).map(|_| {
            let (store, new) = (f.store.clone(), new(&ann));
            tokio::spawn(async move { store.open_consumer_group(&new, "settings").await.unwrap() })
        });
        let mut ids = Vec::new();
        for racer in racers.collect::<Vec<_>>() {
            let OpenedGroup::Open(group) = racer.await.unwrap() else { panic!("not opened") };
            ids.push(group.consumer.id.unwrap());
        }
        ids.dedup();
        assert_eq!(ids.len(), 1, "round {round}");
        assert!(f.store.seek_consumer("g", &Cursor::at("e", 1)).await.unwrap());
    }
}

#[apply(both_backends!)]
async fn a_group_that_was_moved_begins_anew(f: Fixture) {
    let ann = ann();
    let made = open(&f, &new(&ann)).await.consumer;
    let id = made.id.unwrap();
    assert!(f.store.move_consumer_group(id, made.turn, &Cursor::at("e", 7), "state").await.unwrap());
    assert!(f.store.seek_consumer("g", &Cursor::at("e", 2)).await.unwrap());
    assert!(f.store.consumer_group(id).await.unwrap().is_none());
    assert!(!f.store.move_consumer_group(id, made.turn + 1, &Cursor::at("e", 9), "late").await.unwrap());
    let seen = f.store.consumer(ConsumerKey::Name("g")).await.unwrap().unwrap();
    assert_eq!((seen.id, &seen.cursor, seen.group.as_deref()), (None, &Cursor::at("e", 2), Some("settings")));
    let again = open(&f, &new(&ann)).await;
    assert!(again.consumer.id > Some(id));
    assert_eq!((&again.consumer.cursor, again.state), (&Cursor::at("e", 2), None));
}
