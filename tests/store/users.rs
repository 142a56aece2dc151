//! Users, groups, and what the operator asks of a store.

use kernelci_live::model::{ObjectId, User, user::Group};
use kernelci_live::store::groups::GroupDeleted;
use kernelci_live::store::users::{Changed, Ends, Page, Taken, Unchanged, UserChange, UserFilter};
use kernelci_live::store::{IndexState, UserKey, indexes};
use macro_rules_attribute::apply;

use super::support::Fixture;
use crate::support::both_backends;

fn user(name: &str) -> User {
    User {
        id: ObjectId::new(),
        username: name.to_owned(),
        email: format!("{name}@example.org"),
        hashed_password: "$argon2id$old".to_owned(),
        is_active: true,
        is_superuser: false,
        is_verified: true,
        ..User::default()
    }
}

async fn by_name(f: &Fixture, name: &str) -> User {
    f.store.user(UserKey::Name(name)).await.unwrap().unwrap()
}

#[apply(both_backends!)]
async fn a_user_is_found_by_id_and_by_name(f: Fixture) {
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

#[apply(both_backends!)]
async fn names_and_addresses_are_unique(f: Fixture) {
    f.store.insert_user(&user("a")).await.unwrap();
    let same_name = User { email: "b@example.org".to_owned(), ..user("a") };
    let same_address = User { email: "A@Example.org".to_owned(), ..user("b") };
    for (taken, field) in [(same_name, Taken::Username), (same_address, Taken::Email)] {
        assert_eq!(f.store.insert_user(&taken).await.unwrap(), Some(field));
        assert!(f.store.user(UserKey::Id(taken.id)).await.unwrap().is_none());
    }
    f.store.insert_user(&user("b")).await.unwrap();
}

#[apply(both_backends!)]
async fn a_password_is_replaced_only_if_it_is_the_old_one(f: Fixture) {
    let user = user("a");
    f.store.insert_user(&user).await.unwrap();
    f.store.replace_password(user.id, "$argon2id$other", "$argon2id$stolen").await.unwrap();
    assert_eq!(by_name(&f, "a").await.hashed_password, "$argon2id$old");
    f.store.replace_password(user.id, "$argon2id$old", "$argon2id$new").await.unwrap();
    assert_eq!(by_name(&f, "a").await.hashed_password, "$argon2id$new");
}

#[apply(both_backends!)]
async fn only_an_active_superuser_counts(f: Fixture) {
    f.store.insert_user(&user("user")).await.unwrap();
    f.store.insert_user(&User { is_superuser: true, is_active: false, ..user("former") }).await.unwrap();
    assert!(!f.store.has_superuser().await.unwrap());
    f.store.insert_user(&User { is_superuser: true, ..user("admin") }).await.unwrap();
    assert!(f.store.has_superuser().await.unwrap());
}

#[apply(both_backends!)]
async fn groups_are_made_once_and_joined(f: Fixture) {
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

fn rename(name: &str) -> UserChange {
    UserChange { username: Some(name.to_owned()), ..UserChange::default() }
}

async fn change(f: &Fixture, id: ObjectId, change: &UserChange) -> User {
    match f.store.update_user(id, change).await.unwrap() {
        Changed::Done(user) => *user,
        other => panic!("{other:?}"),
    }
}

#[apply(both_backends!)]
async fn a_name_stays_with_whoever_had_it(f: Fixture) {
    let (ann, bob) = (user("ann"), user("bob"));
    for user in [&ann, &bob] {
        assert_eq!(f.store.insert_user(user).await.unwrap(), None);
    }
    let anna = change(&f, ann.id, &rename("anna")).await;
    assert!(anna.is_called("ann") && anna.is_called("anna") && anna.username == "anna");
    for name in ["ann", "anna"] {
        let refused = f.store.update_user(bob.id, &rename(name)).await.unwrap();
        assert!(matches!(refused, Changed::Taken(Taken::Username)), "{name}: {refused:?}");
        let new = User { email: "new@example.org".to_owned(), ..user(name) };
        assert_eq!(f.store.insert_user(&new).await.unwrap(), Some(Taken::Username), "{name}");
    }
    assert_eq!(change(&f, ann.id, &rename("ann")).await.username, "ann", "back again");
    assert!(f.store.delete_user(ann.id).await.unwrap());
    assert!(!f.store.delete_user(ann.id).await.unwrap());
    assert_eq!(change(&f, bob.id, &rename("ann")).await.username, "ann", "free with its owner gone");
    assert!(matches!(f.store.update_user(ann.id, &rename("x")).await.unwrap(), Changed::Gone));
}

#[apply(both_backends!)]
async fn racing_renames_share_no_name(f: Fixture) {
    let users: Vec<User> = (0..8).map(|n| user(&format!("u{n}"))).collect();
    for user in &users {
        f.store.insert_user(user).await.unwrap();
    }
    let wanted = rename("the-one");
    let all = users.iter().map(|user| f.store.update_user(user.id, &wanted));
    let done = futures::future::join_all(all).await;
    assert_eq!(done.iter().filter(|done| matches!(done, Ok(Changed::Done(_)))).count(), 1, "{done:?}");
    assert_eq!(by_name(&f, "the-one").await.former_names.len(), 1);

    let alike = ["lab-o", "LAB-O", "lab-0", "LAB-0", "Lab-o", "Lab-0", "laB-o", "laB-0"];
    let renames = alike.map(rename);
    let all = users.iter().zip(&renames).map(|(user, wanted)| f.store.update_user(user.id, wanted));
    let done = futures::future::join_all(all).await;
    assert_eq!(done.iter().filter(|done| matches!(done, Ok(Changed::Done(_)))).count(), 1, "{done:?}");
}

#[apply(both_backends!)]
async fn nobody_takes_a_name_that_looks_like_one_of_another_user(f: Fixture) {
    let (admin, bob) = (user("admin"), user("bob"));
    for user in [&admin, &bob] {
        assert_eq!(f.store.insert_user(user).await.unwrap(), None);
    }
    change(&f, admin.id, &rename("boss")).await;
    for name in ["Admin", "adm1n", "adrnin", "BOSS", "b0ss"] {
        let new = User { email: "new@example.org".to_owned(), ..user(name) };
        assert_eq!(f.store.insert_user(&new).await.unwrap(), Some(Taken::Username), "{name}");
        let refused = f.store.update_user(bob.id, &rename(name)).await.unwrap();
        assert!(matches!(refused, Changed::Taken(Taken::Username)), "{name}: {refused:?}");
    }
    for name in ["Boss", "admin", "ADM1N"] {
        assert_eq!(change(&f, admin.id, &rename(name)).await.username, name, "like one's own");
    }
    change(&f, bob.id, &rename("bobby")).await;
    assert_eq!(change(&f, bob.id, &rename("bob")).await.username, "bob");
}

#[apply(both_backends!)]
async fn a_change_sets_what_it_names(f: Fixture) {
    let (ann, bob) = (user("ann"), user("bob"));
    for user in [&ann, &bob] {
        f.store.insert_user(user).await.unwrap();
    }
    let same = change(&f, ann.id, &UserChange::default()).await;
    assert_eq!(format!("{same:?}"), format!("{ann:?}"));
    let groups = vec![Group { id: Some(ObjectId::new().to_hex()), name: "g".to_owned() }];
    let all = UserChange {
        email: Some("Ann@new.example".to_owned()),
        is_active: Some(false),
        is_superuser: Some(true),
        is_verified: Some(false),
        groups: Some(groups.clone()),
        ..UserChange::default()
    };
    let changed = change(&f, ann.id, &all).await;
    assert_eq!((changed.is_active, changed.is_superuser, changed.is_verified), (false, true, false));
    assert_eq!((changed.groups, changed.generation), (groups, 0));
    let found = f.store.user(UserKey::Email("ann@NEW.example")).await.unwrap().unwrap();
    assert_eq!((found.id, found.email.as_str()), (ann.id, "Ann@new.example"));
    let taken = UserChange { email: Some("ann@new.example".to_owned()), ..UserChange::default() };
    assert!(matches!(f.store.update_user(bob.id, &taken).await.unwrap(), Changed::Taken(Taken::Email)));
    change(&f, ann.id, &taken).await;

    let password = UserChange {
        hashed_password: Some("$argon2id$new".to_owned()),
        ends: Ends::Logins,
        only_if: Unchanged { password: Some("$argon2id$other".to_owned()), ..Unchanged::default() },
        ..UserChange::default()
    };
    assert!(matches!(f.store.update_user(bob.id, &password).await.unwrap(), Changed::Gone));
    let only_if = Unchanged { password: Some("$argon2id$old".to_owned()), ..Unchanged::default() };
    let password = UserChange { only_if, ..password };
    let bob = change(&f, bob.id, &password).await;
    assert_eq!((bob.hashed_password.as_str(), bob.generation, bob.named_from), ("$argon2id$new", 1, 0));
    assert!(bob.tokens_from.is_some());
    let all = UserChange { ends: Ends::All, ..UserChange::default() };
    let bob = change(&f, bob.id, &all).await;
    assert_eq!((bob.generation, bob.named_from), (2, 2));
}

/// What a mailed token confirms is the address that it was mailed to, and once.
#[apply(both_backends!)]
async fn an_address_is_confirmed_only_while_it_is_the_one(f: Fixture) {
    let ann = User { is_verified: false, ..user("ann") };
    f.store.insert_user(&ann).await.unwrap();
    let confirm = |email: &str, count: u32| UserChange {
        confirms: true,
        only_if: Unchanged {
            email: Some(email.to_owned()),
            confirmations: Some(count),
            ..Unchanged::default()
        },
        ..UserChange::default()
    };
    for (email, count) in [("other@example.org", 0), ("ANN@example.org", 0), ("ann@example.org", 1)] {
        let refused = f.store.update_user(ann.id, &confirm(email, count)).await.unwrap();
        assert!(matches!(refused, Changed::Gone), "{email} {count}: {refused:?}");
    }
    let now = change(&f, ann.id, &confirm("ann@example.org", 0)).await;
    assert_eq!((now.is_verified, now.confirmations), (true, 1));
    change(&f, ann.id, &UserChange { is_verified: Some(false), ..UserChange::default() }).await;
    let again = f.store.update_user(ann.id, &confirm("ann@example.org", 0)).await.unwrap();
    assert!(matches!(again, Changed::Gone), "{again:?}");
    let now = change(&f, ann.id, &confirm("ann@example.org", 1)).await;
    assert_eq!((now.is_verified, now.confirmations), (true, 2));
    f.store.delete_user(ann.id).await.unwrap();
    f.store.insert_user(&ann).await.unwrap();
    assert_eq!(by_name(&f, "ann").await.confirmations, 0, "nothing is left of who has gone");
}

#[apply(both_backends!)]
async fn users_are_listed_in_pages(f: Fixture) {
    for n in 0..5 {
        let groups = vec![Group { id: None, name: format!("g{}", n % 2) }];
        f.store.insert_user(&User { groups, is_verified: n > 2, ..user(&format!("u{n}")) }).await.unwrap();
    }
    let list = async |filter: UserFilter, limit, offset| {
        let paged = f.store.find_users(&filter, Page { limit, offset }).await.unwrap();
        (paged.items.into_iter().map(|user| user.username).collect::<Vec<_>>().join(" "), paged.total)
    };
    let all = UserFilter::default;
    assert_eq!(list(all(), 50, 0).await, ("u0 u1 u2 u3 u4".to_owned(), 5));
    assert_eq!(list(all(), 2, 3).await, ("u3 u4".to_owned(), 5));
    assert_eq!(list(all(), 2, 9).await, (String::new(), 5));
    assert_eq!(list(UserFilter { is_verified: Some(true), ..all() }, 1, 0).await, ("u3".to_owned(), 2));
    assert_eq!(list(UserFilter { group: Some("g1".into()), ..all() }, 9, 0).await, ("u1 u3".to_owned(), 2));
    assert_eq!(list(UserFilter { username: Some("u4".into()), ..all() }, 9, 0).await.0, "u4");
    assert_eq!(list(UserFilter { email: Some("U4@example.org".into()), ..all() }, 9, 0).await.0, "");
    let id = by_name(&f, "u2").await.id;
    assert_eq!(list(UserFilter { id: Some(id), is_active: Some(true), ..all() }, 9, 0).await.0, "u2");
}

#[apply(both_backends!)]
async fn a_group_goes_when_nobody_is_in_it(f: Fixture) {
    let group = f.store.insert_group("g").await.unwrap().unwrap();
    assert_eq!(f.store.insert_group("g").await.unwrap(), None);
    let id: ObjectId = group.id.as_deref().unwrap().parse().unwrap();
    assert_eq!(f.store.group_by_id(id).await.unwrap(), Some(group.clone()));
    let ann = User { groups: vec![group], ..user("ann") };
    f.store.insert_user(&ann).await.unwrap();
    assert_eq!(f.store.delete_group(id).await.unwrap(), GroupDeleted::Assigned);
    change(&f, ann.id, &UserChange { groups: Some(Vec::new()), ..UserChange::default() }).await;
    assert_eq!(f.store.delete_group(id).await.unwrap(), GroupDeleted::Done);
    assert_eq!(f.store.delete_group(id).await.unwrap(), GroupDeleted::Missing);
    f.store.insert_group("").await.unwrap().unwrap();
    f.store.insert_group("h").await.unwrap().unwrap();
    let page = Page { limit: 1, offset: 1 };
    let paged = f.store.find_groups(None, page).await.unwrap();
    assert_eq!((paged.items[0].name.as_str(), paged.total), ("h", 2));
    assert_eq!(f.store.find_groups(Some("h"), page).await.unwrap().total, 1);
}

#[apply(both_backends!)]
async fn a_name_that_was_taken_gives_no_rights(f: Fixture) {
    for name in ["a", "b"] {
        f.store.insert_user(&user(name)).await.unwrap();
    }
    let id = by_name(&f, "a").await.id;
    change(&f, id, &rename("production")).await;
    f.store.ensure_group("g", &["production", "b"]).await.unwrap();
    assert!(!by_name(&f, "production").await.in_group("g"));
    assert!(by_name(&f, "b").await.in_group("g"));
}

#[apply(both_backends!)]
async fn wanted_indexes_are_present(f: Fixture) {
    let all = f.store.indexes().await.unwrap();
    for wanted in indexes::NODE {
        let listed = all.iter().find(|index| index.name == wanted.name);
        let listed = listed.unwrap_or_else(|| panic!("{} is not listed", wanted.name));
        assert_eq!(listed.state, IndexState::Present, "{}", wanted.name);
        assert!(wanted.fields.iter().all(|field| listed.keys.contains(field)), "{}", listed.keys);
    }
    assert!(all.iter().all(|index| index.state == IndexState::Present), "{all:?}");
}

#[apply(both_backends!)]
async fn it_answers_pings(f: Fixture) {
    f.store.ping().await.unwrap();
    f.log.ping().await.unwrap();
    assert!(!f.store.facts().kind.is_empty());
}
