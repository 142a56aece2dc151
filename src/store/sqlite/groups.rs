//! Groups of users.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::SqliteStore;
use super::append::Batch;
use super::users::{By, count_of, integer, user, write};
use crate::error::Result;
use crate::model::{ObjectId, user::Group};
use crate::store::groups::{GroupDeleted, Groups};
use crate::store::users::{Page, Paged};

pub(super) const TABLES: &str =
    "CREATE TABLE IF NOT EXISTS usergroup (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE) WITHOUT ROWID;";

#[async_trait]
impl Groups for SqliteStore {
    async fn group(&self, name: &str) -> Result<Option<Group>> {
        let name = name.to_owned();
        self.db.quick.run(move |connection| by_name(connection, &name)).await
    }

    async fn group_by_id(&self, id: ObjectId) -> Result<Option<Group>> {
        self.db.quick.run(move |connection| by_id(connection, id)).await
    }

    async fn find_groups(&self, name: Option<&str>, page: Page) -> Result<Paged<Group>> {
        let name = name.map(str::to_owned);
        self.db.quick.run(move |connection| find(connection, name.as_deref(), page)).await
    }

    async fn insert_group(&self, name: &str) -> Result<Option<Group>> {
        let name = name.to_owned();
        let work = move |batch: &mut Batch<'_>| match by_name(batch.connection, &name)? {
            Some(_) => Ok(None),
            None => insert(batch.connection, &name).map(Some),
        };
        self.db.writer.run(1, work).await
    }

    async fn delete_group(&self, id: ObjectId) -> Result<GroupDeleted> {
        self.db.writer.run(1, move |batch| delete(batch.connection, id)).await
    }

    async fn ensure_group(&self, name: &str, usernames: &[&str]) -> Result<()> {
        let name = name.to_owned();
        let usernames: Vec<String> = usernames.iter().map(|&user| user.to_owned()).collect();
        let work = move |batch: &mut Batch<'_>| ensure(batch.connection, &name, &usernames);
        self.db.writer.run(1, work).await
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Group> {
    Ok(Group { id: row.get(0)?, name: row.get(1)? })
}

fn by_name(connection: &Connection, name: &str) -> Result<Option<Group>> {
    let mut statement = connection.prepare_cached("SELECT id, name FROM usergroup WHERE name = ?")?;
    Ok(statement.query_row([name], read).optional()?)
}

fn by_id(connection: &Connection, id: ObjectId) -> Result<Option<Group>> {
    let mut statement = connection.prepare_cached("SELECT id, name FROM usergroup WHERE id = ?")?;
    Ok(statement.query_row([id.to_hex()], read).optional()?)
}

fn find(connection: &Connection, name: Option<&str>, page: Page) -> Result<Paged<Group>> {
    let count = "SELECT count(*) FROM usergroup WHERE ?1 IS NULL OR name = ?1";
    let total = connection.prepare_cached(count)?.query_row([name], count_of)?;
    let list = "SELECT id, name FROM usergroup WHERE ?1 IS NULL OR name = ?1 ORDER BY id LIMIT ?2 OFFSET ?3";
    let mut statement = connection.prepare_cached(list)?;
    let rows = statement.query_map(params![name, integer(page.limit), integer(page.offset)], read)?;
    Ok(Paged { items: rows.collect::<rusqlite::Result<_>>()?, total })
}

fn insert(connection: &Connection, name: &str) -> Result<Group> {
    let id = ObjectId::new().to_hex();
    connection
        .prepare_cached("INSERT INTO usergroup (id, name) VALUES (?, ?)")?
        .execute([id.as_str(), name])?;
    Ok(Group { id: Some(id), name: name.to_owned() })
}

fn delete(connection: &Connection, id: ObjectId) -> Result<GroupDeleted> {
    let Some(group) = by_id(connection, id)? else { return Ok(GroupDeleted::Missing) };
    let members = "SELECT 1 FROM user, json_each(user.groups) WHERE value ->> '$.name' = ?";
    if connection.prepare_cached(members)?.exists([&group.name])? {
        return Ok(GroupDeleted::Assigned);
    }
    connection.prepare_cached("DELETE FROM usergroup WHERE id = ?")?.execute([id.to_hex()])?;
    Ok(GroupDeleted::Done)
}

/// Adds the group if it is missing, and the users of these names to it; unknown names are passed over.
fn ensure(connection: &Connection, name: &str, usernames: &[String]) -> Result<()> {
    let group = match by_name(connection, name)? {
        Some(group) => group,
        None => insert(connection, name)?,
    };
    for username in usernames {
        let Some(mut user) = user(connection, By::Name, username)? else { continue };
        if user.in_group(name) || !user.former_names.is_empty() {
            continue;
        }
        user.groups.push(group.clone());
        write(connection, &user)?;
    }
    Ok(())
}
