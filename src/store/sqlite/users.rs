//! Users and groups.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::SqliteStore;
use super::append::Batch;
use crate::error::{Error, Kind, Result};
use crate::model::{ObjectId, User, user::Group};
use crate::store::{UserKey, Users};

#[async_trait]
impl Users for SqliteStore {
    async fn user(&self, key: UserKey<'_>) -> Result<Option<User>> {
        let (by, value) = match key {
            UserKey::Id(id) => (By::Id, id.to_hex()),
            UserKey::Name(name) => (By::Name, name.to_owned()),
        };
        self.db.quick.run(move |connection| user(connection, by, &value)).await
    }

    async fn has_superuser(&self) -> Result<bool> {
        self.db.quick.run(has_superuser).await
    }

    async fn insert_user(&self, user: &User) -> Result<()> {
        let user = user.clone();
        match self.db.writer.run(1, move |batch| insert(batch.connection, &user)).await? {
            None => Ok(()),
            Some(taken) => Err(Error::new(Kind::BadRequest, taken)),
        }
    }

    async fn replace_password(&self, id: ObjectId, old: &str, new: &str) -> Result<()> {
        let (id, old, new) = (id.to_hex(), old.to_owned(), new.to_owned());
        let work = move |batch: &mut Batch<'_>| replace_password(batch.connection, &id, &old, &new);
        self.db.writer.run(1, work).await
    }

    async fn group(&self, name: &str) -> Result<Option<Group>> {
        let name = name.to_owned();
        self.db.quick.run(move |connection| group(connection, &name)).await
    }

    async fn ensure_group(&self, name: &str, usernames: &[&str]) -> Result<()> {
        let name = name.to_owned();
        let usernames: Vec<String> = usernames.iter().map(|&user| user.to_owned()).collect();
        let work = move |batch: &mut Batch<'_>| ensure_group(batch.connection, &name, &usernames);
        self.db.writer.run(1, work).await
    }
}

/// What a user is looked up by.
#[derive(Clone, Copy)]
enum By {
    Id,
    Name,
}

/// The user whose id or name is `value`.
fn user(connection: &Connection, by: By, value: &str) -> Result<Option<User>> {
    let sql = match by {
        By::Id => "SELECT * FROM user WHERE id = ?",
        By::Name => "SELECT * FROM user WHERE username = ?",
    };
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([value])?;
    rows.next()?.map(read).transpose()
}

fn read(row: &Row<'_>) -> Result<User> {
    Ok(User {
        id: row.get::<_, String>("id")?.parse().map_err(Error::internal)?,
        username: row.get("username")?,
        email: row.get("email")?,
        hashed_password: row.get("hashed_password")?,
        is_active: row.get("is_active")?,
        is_superuser: row.get("is_superuser")?,
        is_verified: row.get("is_verified")?,
        groups: groups(&row.get::<_, String>("groups")?)?,
    })
}

fn groups(json: &str) -> Result<Vec<Group>> {
    serde_json::from_str(json).map_err(Error::internal)
}

/// Whether any active superuser exists.
fn has_superuser(connection: &Connection) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM user WHERE is_active AND is_superuser)";
    Ok(connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}

/// Adds the user, or says what is taken. (Not an error: an error would undo the others of its transaction.)
/// Addresses that differ in case only are the same one.
fn insert(connection: &Connection, user: &User) -> Result<Option<String>> {
    let taken = |sql: &str, value: &str| connection.prepare_cached(sql)?.exists([value]);
    if taken("SELECT 1 FROM user WHERE username = ?", &user.username)? {
        return Ok(Some(format!("Username already exists: {}", user.username)));
    }
    if taken("SELECT 1 FROM user WHERE email = ?", &user.email)? {
        return Ok(Some(format!("Email already exists: {}", user.email)));
    }
    connection
        .prepare_cached(
            "INSERT INTO user (id, username, email, hashed_password, is_active, is_superuser, is_verified, groups)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            user.id.to_hex(),
            user.username,
            user.email,
            user.hashed_password,
            user.is_active,
            user.is_superuser,
            user.is_verified,
            serde_json::to_string(&user.groups).map_err(Error::internal)?,
        ])?;
    Ok(None)
}

/// Replaces the password hash if it still is `old`.
fn replace_password(connection: &Connection, id: &str, old: &str, new: &str) -> Result<()> {
    connection
        .prepare_cached("UPDATE user SET hashed_password = ? WHERE id = ? AND hashed_password = ?")?
        .execute([new, id, old])?;
    Ok(())
}

/// The group of this name.
fn group(connection: &Connection, name: &str) -> Result<Option<Group>> {
    let read = |row: &Row<'_>| Ok(Group { id: row.get(0)?, name: row.get(1)? });
    let mut statement = connection.prepare_cached("SELECT id, name FROM usergroup WHERE name = ?")?;
    Ok(statement.query_row([name], read).optional()?)
}

/// Adds the group if it is missing, and the users of these names to it; unknown names are passed over.
fn ensure_group(connection: &Connection, name: &str, usernames: &[String]) -> Result<()> {
    let added = match group(connection, name)? {
        Some(group) => group,
        None => {
            let id = ObjectId::new().to_hex();
            connection.execute("INSERT INTO usergroup (id, name) VALUES (?, ?)", [&id, name])?;
            Group { id: Some(id), name: name.to_owned() }
        }
    };
    for username in usernames {
        let Some(mut user) = user(connection, By::Name, username)? else { continue };
        if user.in_group(name) {
            continue;
        }
        user.groups.push(added.clone());
        let groups = serde_json::to_string(&user.groups).map_err(Error::internal)?;
        connection.execute("UPDATE user SET groups = ? WHERE id = ?", [groups, user.id.to_hex()])?;
    }
    Ok(())
}
