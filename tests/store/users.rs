//! Users, groups, and what the operator asks of a store.

use kernelci_live::model::{ObjectId, User, user::Group};
use kernelci_live::store::{IndexState, UserKey, indexes};

use crate::support::Fixture;

fn user(name: &str) -> User {
    User {
        id: ObjectId::new(),
        username: name.to_owned(),
        email: format!("{name}@example.org"),
        hashed_password: "$argon2id$old".to_owned(),
        is_active: true,
        is_superuser: false,
        is_verified: true,
        groups: Vec::new(),
    }
}

async fn by_name(f: &Fixture, name: &str) -> User {
    f.store.user(UserKey::Name(name)).await.unwrap().unwrap()
}

pub async fn a_user_is_found_by_id_and_by_name(f: Fixture) {
    let group = Group { id: Some(ObjectId::new().to_hex()), name: "node:edit:any".to_owned() };
    let groups = vec![group];
    let lab = User { groups, is_verified: false, ..user("lab-x") };
    f.store.insert_user(&lab).await.unwrap();
    for key in [UserKey::Id(lab.id), UserKey::Name("lab-x")] {
        let found = f.store.user(key).await.unwrap().unwrap();
        assert_eq!(format!("{found:?}"), format!("{lab:?}"));
    }
    for key in [UserKey::Id(ObjectId::new()), UserKey::Name("LAB-X"), UserKey::Name("")] {
        assert!(f.store.user(key).await.unwrap().is_none(), "{key:?}");
    }
}

pub async fn names_and_addresses_are_unique(f: Fixture) {
    f.store.insert_user(&user("a")).await.unwrap();
    let same_name = User { email: "b@example.org".to_owned(), ..user("a") };
    let same_address = User { email: "A@Example.org".to_owned(), ..user("b") };
    for (taken, field) in [(same_name, "username"), (same_address, "email")] {
        let error = f.store.insert_user(&taken).await.unwrap_err();
        assert_eq!(error.status(), 400, "{error}");
        assert!(error.detail().to_string().to_lowercase().contains(field), "{error} names the {field}");
        assert!(f.store.user(UserKey::Id(taken.id)).await.unwrap().is_none());
    }
    f.store.insert_user(&user("b")).await.unwrap();
}

pub async fn a_password_is_replaced_only_if_it_is_the_old_one(f: Fixture) {
    let user = user("a");
    f.store.insert_user(&user).await.unwrap();
    f.store.replace_password(user.id, "$argon2id$other", "$argon2id$stolen").await.unwrap();
    assert_eq!(by_name(&f, "a").await.hashed_password, "$argon2id$old");
    f.store.replace_password(user.id, "$argon2id$old", "$argon2id$new").await.unwrap();
    assert_eq!(by_name(&f, "a").await.hashed_password, "$argon2id$new");
}

pub async fn only_an_active_superuser_counts(f: Fixture) {
    f.store.insert_user(&user("user")).await.unwrap();
    f.store.insert_user(&User { is_superuser: true, is_active: false, ..user("former") }).await.unwrap();
    assert!(!f.store.has_superuser().await.unwrap());
    f.store.insert_user(&User { is_superuser: true, ..user("admin") }).await.unwrap();
    assert!(f.store.has_superuser().await.unwrap());
}

pub async fn groups_are_made_once_and_joined(f: Fixture) {
    for name in ["a", "b", "c"] {
        f.store.insert_user(&user(name)).await.unwrap();
    }
    assert_eq!(f.store.group("g").await.unwrap(), None);
    f.store.ensure_group("g", &["a"]).await.unwrap();
    let group = f.store.group("g").await.unwrap().unwrap();
    assert!(group.id.is_some());
    f.store.ensure_group("g", &["a", "b", "nobody"]).await.unwrap();
    assert_eq!(f.store.group("g").await.unwrap().unwrap(), group, "made once");
    for (name, groups) in [("a", 1), ("b", 1), ("c", 0)] {
        let user = by_name(&f, name).await;
        assert_eq!(user.groups.len(), groups, "{name}");
        assert!(user.groups.iter().all(|member| *member == group));
    }
    f.store.ensure_group("empty", &[]).await.unwrap();
    assert!(f.store.group("empty").await.unwrap().is_some());
}

pub async fn wanted_indexes_are_present(f: Fixture) {
    let all = f.store.indexes().await.unwrap();
    for wanted in indexes::NODE {
        let listed = all.iter().find(|index| index.name == wanted.name);
        let listed = listed.unwrap_or_else(|| panic!("{} is not listed", wanted.name));
        assert_eq!(listed.state, IndexState::Present, "{}", wanted.name);
        assert!(wanted.fields.iter().all(|field| listed.keys.contains(field)), "{}", listed.keys);
    }
    assert!(all.iter().all(|index| index.state == IndexState::Present), "{all:?}");
}

pub async fn it_answers_pings(f: Fixture) {
    f.store.ping().await.unwrap();
    f.log.ping().await.unwrap();
    assert!(!f.store.facts().kind.is_empty());
}
