//! Named tokens, and tokens that have ended.

use kernelci_live::model::{NamedToken, ObjectId, Scope, Timestamp};
use kernelci_live::store::tokens::TokenSaved;
use macro_rules_attribute::apply;

use super::support::Fixture;
use crate::support::both_backends;

fn token(user: ObjectId, name: &str) -> NamedToken {
    NamedToken {
        id: ObjectId::new(),
        user,
        name: name.to_owned(),
        scope: Scope::Runtimes(vec!["lava-x".to_owned()]),
        created: Timestamp::now(),
        last_used: None,
        expires: Timestamp::now().plus_seconds(60),
    }
}

#[apply(both_backends!)]
async fn named_tokens_are_kept_until_they_end(f: Fixture) {
    let (ann, bob) = (ObjectId::new(), ObjectId::new());
    let first = token(ann, "first");
    assert_eq!(f.store.insert_token(&first, 2).await.unwrap(), TokenSaved::Done);
    assert_eq!(f.store.token(first.id).await.unwrap(), Some(first.clone()));
    assert_eq!(f.store.insert_token(&token(ann, "first"), 2).await.unwrap(), TokenSaved::NameTaken);
    assert_eq!(f.store.insert_token(&token(ann, "second"), 2).await.unwrap(), TokenSaved::Done);
    assert_eq!(f.store.insert_token(&token(ann, "third"), 2).await.unwrap(), TokenSaved::TooMany);
    assert_eq!(f.store.insert_token(&token(bob, "first"), 2).await.unwrap(), TokenSaved::Done);
    assert_eq!(f.store.tokens_of(ann).await.unwrap().len(), 2);

    let (earlier, later) = (first.created.plus_seconds(10), first.created.plus_seconds(20));
    f.store.touch_tokens(&[(first.id, later), (ObjectId::new(), later)]).await.unwrap();
    f.store.touch_tokens(&[(first.id, earlier)]).await.unwrap();
    assert_eq!(f.store.token(first.id).await.unwrap().unwrap().last_used, Some(later));

    assert!(!f.store.delete_token(bob, first.id).await.unwrap(), "somebody else's");
    assert!(f.store.delete_token(ann, first.id).await.unwrap());
    assert_eq!(f.store.token(first.id).await.unwrap(), None);
    let expired = NamedToken { expires: Timestamp::now(), ..token(ann, "first") };
    assert_eq!(f.store.insert_token(&expired, 2).await.unwrap(), TokenSaved::Done);
    assert_eq!(f.store.token(expired.id).await.unwrap(), None);
    assert_eq!(f.store.tokens_of(ann).await.unwrap().len(), 1);
    assert_eq!(f.store.insert_token(&token(ann, "first"), 2).await.unwrap(), TokenSaved::Done, "makes room");
    f.store.delete_tokens_of(ann).await.unwrap();
    assert_eq!(
        (f.store.tokens_of(ann).await.unwrap().len(), f.store.tokens_of(bob).await.unwrap().len()),
        (0, 1)
    );
}

#[apply(both_backends!)]
async fn an_ended_token_is_remembered(f: Fixture) {
    assert!(!f.store.is_ended("a").await.unwrap());
    for expires in [None, Some(Timestamp::now().plus_seconds(60))] {
        f.store.end_token("a", expires).await.unwrap();
    }
    f.store.end_token("b", Some(Timestamp::now().plus_seconds(60))).await.unwrap();
    assert!(f.store.is_ended("a").await.unwrap() && f.store.is_ended("b").await.unwrap());
    assert!(!f.store.is_ended("A").await.unwrap());
}
