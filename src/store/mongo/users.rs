//! Users and groups, in the shapes of contract 7.5: a group in a user has its id under `id` or under `_id`.

use async_trait::async_trait;
use bson::{Bson, Document, doc};

use super::MongoStore;
use super::errors::{self, QUERY_TIME, call, is_duplicate};
use super::stored::Stored;
use crate::error::{Error, Result};
use crate::model::{ObjectId, User, user::Group};
use crate::store::{UserKey, Users};

#[async_trait]
impl Users for MongoStore {
    async fn user(&self, key: UserKey<'_>) -> Result<Option<User>> {
        let query = match key {
            UserKey::Id(id) => doc! {"_id": id},
            UserKey::Name(name) => doc! {"username": name},
        };
        let found = call(self.users.find_one(query).max_time(QUERY_TIME)).await?;
        Ok(found.and_then(|found| read(&found)))
    }

    async fn has_superuser(&self) -> Result<bool> {
        let query = doc! {"is_superuser": true, "is_active": true};
        Ok(call(self.users.find_one(query).max_time(QUERY_TIME)).await?.is_some())
    }

    async fn insert_user(&self, user: &User) -> Result<()> {
        let groups: Vec<Document> =
            user.groups.iter().map(|group| member(group.id.as_deref(), &group.name)).collect();
        let document = doc! {
            "_id": user.id,
            "email": &user.email,
            "hashed_password": &user.hashed_password,
            "is_active": user.is_active,
            "is_superuser": user.is_superuser,
            "is_verified": user.is_verified,
            "username": &user.username,
            "groups": groups,
        };
        match errors::raw(self.users.insert_one(Stored(document))).await {
            Ok(_) => Ok(()),
            Err(error) if is_duplicate(&error) => {
                let named = call(self.users.find_one(doc! {"username": &user.username})).await?.is_some();
                Err(match named {
                    true => Error::bad_request(format!("Username already exists: {}", user.username)),
                    false => Error::bad_request(format!("Email already exists: {}", user.email)),
                })
            }
            Err(error) => Err(errors::translate(error)),
        }
    }

    async fn replace_password(&self, id: ObjectId, old: &str, new: &str) -> Result<()> {
        let update = doc! {"$set": {"hashed_password": new}};
        call(self.users.update_one(doc! {"_id": id, "hashed_password": old}, update)).await.map(drop)
    }

    async fn group(&self, name: &str) -> Result<Option<Group>> {
        let found = call(self.groups.find_one(doc! {"name": name}).max_time(QUERY_TIME)).await?;
        Ok(found.and_then(|found| read_group(&found)))
    }

    async fn ensure_group(&self, name: &str, usernames: &[&str]) -> Result<()> {
        let upsert =
            self.groups.update_one(doc! {"name": name}, doc! {"$setOnInsert": {"name": name}}).upsert(true);
        match errors::raw(upsert).await {
            Ok(_) => {}
            // Another instance was first.
            Err(error) if is_duplicate(&error) => {}
            Err(error) => return Err(errors::translate(error)),
        }
        let id = self.group(name).await?.and_then(|group| group.id);
        let query = doc! {"username": {"$in": usernames}, "groups.name": {"$ne": name}};
        let update = doc! {"$push": {"groups": member(id.as_deref(), name)}};
        call(self.users.update_many(query, update)).await.map(drop)
    }
}

/// A group as it stands in a user.
fn member(id: Option<&str>, name: &str) -> Document {
    let id = id.and_then(|id| id.parse::<ObjectId>().ok()).map_or(Bson::Null, Bson::ObjectId);
    doc! {"id": id, "name": name}
}

fn read(document: &Document) -> Option<User> {
    let text = |key: &str| document.get_str(key).unwrap_or_default().to_owned();
    let flag = |key: &str| document.get_bool(key).unwrap_or(false);
    let groups = document.get_array("groups").ok().into_iter().flatten();
    Some(User {
        id: document.get_object_id("_id").ok()?,
        username: text("username"),
        email: text("email"),
        hashed_password: text("hashed_password"),
        is_active: flag("is_active"),
        is_superuser: flag("is_superuser"),
        is_verified: flag("is_verified"),
        groups: groups.filter_map(Bson::as_document).filter_map(read_group).collect(),
    })
}

fn read_group(document: &Document) -> Option<Group> {
    let id = ["id", "_id"].iter().find_map(|key| match document.get(key) {
        Some(Bson::ObjectId(id)) => Some(id.to_hex()),
        Some(Bson::String(id)) => Some(id.clone()),
        _ => None,
    });
    Some(Group { id, name: document.get_str("name").ok()?.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

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
