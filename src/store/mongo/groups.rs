//! Groups of users (contract 7.5).

use async_trait::async_trait;
use bson::{Bson, Document, doc};
use futures::TryStreamExt;

use super::MongoStore;
use super::errors::{self, QUERY_TIME, call, call_on, is_duplicate};
use super::stored::Stored;
use crate::error::Result;
use crate::model::{ObjectId, user::Group};
use crate::store::groups::{GroupDeleted, Groups};
use crate::store::users::{Page, Paged};

#[async_trait]
impl Groups for MongoStore {
    async fn group(&self, name: &str) -> Result<Option<Group>> {
        let found = call(self.groups.find_one(doc! {"name": name}).max_time(QUERY_TIME)).await?;
        Ok(found.and_then(|found| read_group(&found)))
    }

    async fn group_by_id(&self, id: ObjectId) -> Result<Option<Group>> {
        let found = call(self.groups.find_one(doc! {"_id": id}).max_time(QUERY_TIME)).await?;
        Ok(found.and_then(|found| read_group(&found)))
    }

    async fn find_groups(&self, name: Option<&str>, page: Page) -> Result<Paged<Group>> {
        let query = name.map_or_else(Document::new, |name| doc! {"name": name});
        let total = call(self.groups.count_documents(query.clone()).max_time(QUERY_TIME)).await?;
        let limit = i64::try_from(page.limit).unwrap_or(i64::MAX);
        let find = self.groups.find(query).sort(doc! {"_id": 1}).limit(limit).skip(page.offset);
        let found: Vec<Stored> = call(async { find.max_time(QUERY_TIME).await?.try_collect().await }).await?;
        Ok(Paged { items: found.iter().filter_map(|found| read_group(found)).collect(), total })
    }

    async fn insert_group(&self, name: &str) -> Result<Option<Group>> {
        let id = ObjectId::new();
        match errors::raw(self.groups.insert_one(Stored(doc! {"_id": id, "name": name}))).await {
            Ok(_) => Ok(Some(Group { id: Some(id.to_hex()), name: name.to_owned() })),
            Err(error) if is_duplicate(&error) => Ok(None),
            Err(error) => Err(errors::translate(error)),
        }
    }

    /// Looks for members again once the group is gone: who adds one looks for the group once it is done, so that one
    /// of them notices the other.
    async fn delete_group(&self, id: ObjectId) -> Result<GroupDeleted> {
        let Some(group) = self.group_by_id(id).await? else { return Ok(GroupDeleted::Missing) };
        let has_members = async || {
            let member = self.users.find_one(doc! {"groups.name": &group.name});
            call(member.max_time(QUERY_TIME)).await.map(|found| found.is_some())
        };
        if has_members().await? {
            return Ok(GroupDeleted::Assigned);
        }
        if call_on(&self.groups, self.groups.delete_one(doc! {"_id": id})).await?.deleted_count == 0 {
            return Ok(GroupDeleted::Missing);
        }
        if has_members().await? {
            call_on(&self.groups, self.groups.insert_one(Stored(doc! {"_id": id, "name": &group.name})))
                .await?;
            return Ok(GroupDeleted::Assigned);
        }
        Ok(GroupDeleted::Done)
    }

    async fn ensure_group(&self, name: &str, usernames: &[&str]) -> Result<()> {
        // The id is ours: one that mongod makes does not sort with ours of the same second.
        let new = doc! {"$setOnInsert": {"_id": ObjectId::new(), "name": name}};
        match errors::raw(self.groups.update_one(doc! {"name": name}, new).upsert(true)).await {
            Ok(_) => {}
            // Another instance was first.
            Err(error) if is_duplicate(&error) => {}
            Err(error) => return Err(errors::translate(error)),
        }
        let Some(group) = self.group(name).await? else { return Ok(()) };
        let query = doc! {
            "username": {"$in": usernames}, "groups.name": {"$ne": name}, "names.1": {"$exists": false},
        };
        call_on(&self.users, self.users.update_many(query, doc! {"$push": {"groups": member(&group)}}))
            .await
            .map(drop)
    }
}

/// A group as it stands in a user.
pub(super) fn member(group: &Group) -> Document {
    let id = group.id.as_deref().and_then(|id| id.parse::<ObjectId>().ok());
    doc! {"id": id.map_or(Bson::Null, Bson::ObjectId), "name": &group.name}
}

/// A group, in a user or in its own collection.
pub(super) fn read_group(document: &Document) -> Option<Group> {
    let id = ["id", "_id"].iter().find_map(|key| match document.get(key) {
        Some(Bson::ObjectId(id)) => Some(id.to_hex()),
        Some(Bson::String(id)) => Some(id.clone()),
        _ => None,
    });
    Some(Group { id, name: document.get_str("name").ok()?.to_owned() })
}
