//! Users, in the shapes of contract 7.5: a group in a user has its id under `id` or under `_id`.
//!
//! Beyond the contract a user has `names` (all that they ever had, the present one too; a unique index on it keeps
//! them apart), `name_outline` (of a name that was chosen here; another unique index), `generation`, `tokens_from`, `named_from` and `confirmations`. The present KernelCI server passes over them.

use async_trait::async_trait;
use bson::{Bson, Document, doc};
use futures::TryStreamExt;
use mongodb::options::{Collation, CollationStrength, ReturnDocument};

use super::MongoStore;
use super::document::integer;
use super::errors::{self, QUERY_TIME, call, call_on, is_duplicate};
use super::groups::{member, read_group};
use super::stored::Stored;
use crate::error::{Error, Result};
use crate::model::{ObjectId, Timestamp, User, username::outline};
use crate::store::users::{Changed, Ends, Page, Paged, Taken, UserChange, UserFilter};
use crate::store::{UserKey, Users};

#[async_trait]
impl Users for MongoStore {
    async fn user(&self, key: UserKey<'_>) -> Result<Option<User>> {
        let find = match key {
            UserKey::Id(id) => self.users.find_one(doc! {"_id": id}),
            UserKey::Name(name) => self.users.find_one(doc! {"username": name}),
            UserKey::Email(email) => self.users.find_one(doc! {"email": email}).collation(ignore_case()),
        };
        Ok(call(find.max_time(QUERY_TIME)).await?.and_then(|found| read(&found)))
    }

    async fn find_users(&self, filter: &UserFilter, page: Page) -> Result<Paged<User>> {
        let query = query(filter);
        let total = call(self.users.count_documents(query.clone()).max_time(QUERY_TIME)).await?;
        let limit = i64::try_from(page.limit).unwrap_or(i64::MAX);
        let find = self.users.find(query).sort(doc! {"_id": 1}).limit(limit).skip(page.offset);
        let found: Vec<Stored> = call(async { find.max_time(QUERY_TIME).await?.try_collect().await }).await?;
        Ok(Paged { items: found.iter().filter_map(|found| read(found)).collect(), total })
    }

    async fn has_superuser(&self) -> Result<bool> {
        let query = doc! {"is_superuser": true, "is_active": true};
        Ok(call(self.users.find_one(query).max_time(QUERY_TIME)).await?.is_some())
    }

    async fn insert_user(&self, user: &User) -> Result<Option<Taken>> {
        if self.has_alike(user.id, &user.username).await? {
            return Ok(Some(Taken::Username));
        }
        let mut document = doc! {
            "_id": user.id,
            "revision_id": Bson::Null,
            "email": &user.email,
            "hashed_password": &user.hashed_password,
            "is_active": user.is_active,
            "is_superuser": user.is_superuser,
            "is_verified": user.is_verified,
            "username": &user.username,
            "groups": user.groups.iter().map(member).collect::<Vec<_>>(),
        };
        document.insert("names", names(user));
        document.insert("name_outline", outline(&user.username));
        match errors::raw(self.users.insert_one(Stored(document))).await {
            Ok(_) => Ok(None),
            Err(error) if is_duplicate(&error) => self.taken(user.id, Some(&user.username)).await.map(Some),
            Err(error) => Err(errors::translate(error)),
        }
    }

    async fn update_user(&self, id: ObjectId, change: &UserChange) -> Result<Changed> {
        let mut query = doc! {"_id": id};
        if let Some(hash) = &change.only_if.password {
            query.insert("hashed_password", hash);
        }
        if let Some(address) = &change.only_if.email {
            query.insert("email", address);
        }
        if let Some(count) = change.only_if.confirmations {
            query.insert("confirmations", count_is(count));
        }
        // The name that becomes a former one must be the one that was read, and so must the count that `named_from` follows.
        for _ in 0..10 {
            let Some(before) = call(self.users.find_one(query.clone()).max_time(QUERY_TIME)).await? else {
                return Ok(Changed::Gone);
            };
            let Some(before) = read(&before) else { return Ok(Changed::Gone) };
            if let Some(name) = change.new_name(&before)
                && self.has_alike(id, name).await?
            {
                return Ok(Changed::Taken(Taken::Username));
            }
            let mut condition = query.clone();
            condition.insert("username", &before.username);
            if change.ends != Ends::Nothing {
                condition.insert("generation", count_is(before.generation));
            }
            let update = self
                .users
                .find_one_and_update(condition, update(&before, change))
                .return_document(ReturnDocument::After);
            match errors::raw(update).await {
                Ok(Some(user)) => {
                    return Ok(read(&user).map_or(Changed::Gone, |user| Changed::Done(Box::new(user))));
                }
                Ok(None) => {}
                Err(error) if is_duplicate(&error) => {
                    return self.taken(id, change.username.as_deref()).await.map(Changed::Taken);
                }
                Err(error) => return Err(errors::translate(error)),
            }
        }
        Err(Error::unavailable("store", anyhow::anyhow!("user {id} is renamed all the time")))
    }

    async fn replace_password(&self, id: ObjectId, old: &str, new: &str) -> Result<()> {
        let update = doc! {"$set": {"hashed_password": new}};
        call_on(&self.users, self.users.update_one(doc! {"_id": id, "hashed_password": old}, update))
            .await
            .map(drop)
    }

    async fn delete_user(&self, id: ObjectId) -> Result<bool> {
        Ok(call_on(&self.users, self.users.delete_one(doc! {"_id": id})).await?.deleted_count > 0)
    }
}

impl MongoStore {
    /// A unique index has refused a write of this user: which.
    async fn taken(&self, id: ObjectId, username: Option<&str>) -> Result<Taken> {
        let Some(name) = username else { return Ok(Taken::Email) };
        Ok(if self.has_alike(id, name).await? { Taken::Username } else { Taken::Email })
    }

    /// Whether somebody else has, or had, a name that looks like this one. Looks at all of them: users whom others have
    /// written say no outline, and new names are rare.
    async fn has_alike(&self, id: ObjectId, name: &str) -> Result<bool> {
        let wanted = outline(name);
        let others = self.users.find(doc! {"_id": {"$ne": id}});
        let others = others.projection(doc! {"username": 1, "names": 1}).max_time(QUERY_TIME);
        let is_alike = |user: &Document| {
            let names = user.get_array("names").ok().into_iter().flatten().filter_map(Bson::as_str);
            names.chain(user.get_str("username").ok()).any(|name| outline(name) == wanted)
        };
        let look = async {
            let mut others = others.await?;
            while let Some(user) = others.try_next().await? {
                if is_alike(&user) {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        call(look).await
    }
}

/// Of the index on addresses.
fn ignore_case() -> Collation {
    Collation::builder().locale("en").strength(CollationStrength::Secondary).build()
}

fn query(filter: &UserFilter) -> Document {
    let mut query = Document::new();
    let mut add = |key: &str, value: Option<Bson>| value.map(|value| query.insert(key, value));
    add("_id", filter.id.map(Bson::ObjectId));
    add("username", filter.username.clone().map(Bson::String));
    add("email", filter.email.clone().map(Bson::String));
    add("is_active", filter.is_active.map(Bson::Boolean));
    add("is_superuser", filter.is_superuser.map(Bson::Boolean));
    add("is_verified", filter.is_verified.map(Bson::Boolean));
    add("groups.name", filter.group.clone().map(Bson::String));
    query
}

/// A count that is this one: what is not there is 0.
fn count_is(count: u32) -> Bson {
    match count {
        0 => doc! {"$in": [0, Bson::Null]}.into(),
        count => i64::from(count).into(),
    }
}

/// What turns `before` into what the change makes of it: only the fields that it is about, so that two changes of
/// different fields do not undo one another.
fn update(before: &User, change: &UserChange) -> Document {
    let mut after = before.clone();
    change.apply(&mut after, Timestamp::now());
    // A change of nothing is an update, too.
    let mut set = doc! {"username": &after.username};
    if change.email.is_some() {
        set.insert("email", &after.email);
    }
    for (key, given, value) in [
        ("is_active", change.is_active, after.is_active),
        ("is_superuser", change.is_superuser, after.is_superuser),
        ("is_verified", change.is_verified.or(change.confirms.then_some(true)), after.is_verified),
    ] {
        if given.is_some() {
            set.insert(key, value);
        }
    }
    if change.groups.is_some() {
        set.insert("groups", after.groups.iter().map(member).collect::<Vec<_>>());
    }
    let mut update = Document::new();
    if let Some(name) = change.new_name(before) {
        set.insert("name_outline", outline(name));
    } else if change.username.as_ref().is_some_and(|name| *name != before.username) {
        // Theirs already, and maybe like a name that somebody had before outlines were kept.
        update.insert("$unset", doc! {"name_outline": 1});
    }
    if change.username.is_some() {
        update.insert("$addToSet", doc! {"names": {"$each": names(&after)}});
    }
    if let Some(hash) = &change.hashed_password {
        set.insert("hashed_password", hash);
    }
    let mut more = Document::new();
    if let (true, Some(from)) = (change.ends != Ends::Nothing, after.tokens_from) {
        set.insert("tokens_from", bson::DateTime::from_millis(from.millis()));
        more.insert("generation", 1);
    }
    if change.ends == Ends::All {
        set.insert("named_from", i64::from(after.named_from));
    }
    if change.confirms {
        more.insert("confirmations", 1);
    }
    if !more.is_empty() {
        update.insert("$inc", more);
    }
    update.insert("$set", set);
    update
}

/// All names that the user has or had.
fn names(user: &User) -> Vec<&str> {
    let mut names: Vec<&str> = user.former_names.iter().map(String::as_str).collect();
    if !names.contains(&user.username.as_str()) {
        names.push(&user.username);
    }
    names
}

fn read(document: &Document) -> Option<User> {
    let text = |key: &str| document.get_str(key).unwrap_or_default().to_owned();
    let flag = |key: &str| document.get_bool(key).unwrap_or(false);
    let count = |key: &str| document.get(key).and_then(integer).and_then(|n| n.try_into().ok()).unwrap_or(0);
    let groups = document.get_array("groups").ok().into_iter().flatten();
    let names = document.get_array("names").ok().into_iter().flatten();
    let username = text("username");
    let former = names.filter_map(Bson::as_str).filter(|name| *name != username).map(str::to_owned);
    let former_names = former.collect();
    Some(User {
        id: document.get_object_id("_id").ok()?,
        username,
        email: text("email"),
        hashed_password: text("hashed_password"),
        is_active: flag("is_active"),
        is_superuser: flag("is_superuser"),
        is_verified: flag("is_verified"),
        groups: groups.filter_map(Bson::as_document).filter_map(read_group).collect(),
        former_names,
        generation: count("generation"),
        named_from: count("named_from"),
        confirmations: count("confirmations"),
        tokens_from: document
            .get_datetime("tokens_from")
            .ok()
            .map(|at| Timestamp::from_millis(at.timestamp_millis())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::user::Group;

    #[test]
    fn groups_are_read_in_both_spellings() {
        let id = ObjectId::new();
        let user = doc! {
            "_id": id, "id": id, "revision_id": Bson::Null, "username": "bob", "is_active": true,
            "groups": [{"id": id, "name": "a"}, {"_id": id, "name": "b"}, {"name": "c"}, 5],
        };
        let user = read(&user).unwrap();
        let group = |id: Option<String>, name: &str| Group { id, name: name.into() };
        let hex = Some(id.to_hex());
        assert_eq!(user.groups, [group(hex.clone(), "a"), group(hex, "b"), group(None, "c")]);
        assert!(user.is_active && !user.is_superuser);
    }
}
