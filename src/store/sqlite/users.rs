//! Users.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::SqliteStore;
use super::append::Batch;
use crate::error::{Error, Result};
use crate::model::{ObjectId, Timestamp, User, user::Group, username::outline};
use crate::store::users::{Changed, Page, Paged, Taken, UserChange, UserFilter};
use crate::store::{UserKey, Users};

/// What version 2 knows of a user beyond version 1 stands beside the table of that version.
pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS user (id TEXT PRIMARY KEY, username TEXT NOT NULL UNIQUE, email TEXT NOT NULL UNIQUE COLLATE NOCASE,
    hashed_password TEXT NOT NULL, is_active INTEGER NOT NULL, is_superuser INTEGER NOT NULL,
    is_verified INTEGER NOT NULL, groups TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS user_generation (user TEXT PRIMARY KEY, generation INTEGER NOT NULL, tokens_from INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS user_tokens (user TEXT PRIMARY KEY, named_from INTEGER NOT NULL, confirmations INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS former_name (user TEXT NOT NULL, name TEXT NOT NULL UNIQUE, PRIMARY KEY (user, name)) WITHOUT ROWID;
";

/// Rows that [`read`] reads.
const SELECT: &str = "SELECT user.*, generation, tokens_from, named_from, confirmations,
        (SELECT json_group_array(name) FROM former_name WHERE former_name.user = user.id AND name <> username) AS former_names
    FROM user LEFT JOIN user_generation ON user_generation.user = user.id
        LEFT JOIN user_tokens ON user_tokens.user = user.id";

/// What a [`UserFilter`] asks for, as [`conditions`] fills it in.
const MATCHES: &str = "(?1 IS NULL OR id = ?1) AND (?2 IS NULL OR username = ?2)
    AND (?3 IS NULL OR email COLLATE BINARY = ?3) AND (?4 IS NULL OR is_active = ?4)
    AND (?5 IS NULL OR is_superuser = ?5) AND (?6 IS NULL OR is_verified = ?6)
    AND (?7 IS NULL OR EXISTS (SELECT 1 FROM json_each(groups) WHERE value ->> '$.name' = ?7))";

#[async_trait]
impl Users for SqliteStore {
    async fn user(&self, key: UserKey<'_>) -> Result<Option<User>> {
        let (by, value) = match key {
            UserKey::Id(id) => (By::Id, id.to_hex()),
            UserKey::Name(name) => (By::Name, name.to_owned()),
            UserKey::Email(email) => (By::Email, email.to_owned()),
        };
        self.db.quick.run(move |connection| user(connection, by, &value)).await
    }

    async fn find_users(&self, filter: &UserFilter, page: Page) -> Result<Paged<User>> {
        let filter = filter.clone();
        self.db.searches.run(move |connection| find(connection, &filter, page)).await
    }

    async fn has_superuser(&self) -> Result<bool> {
        self.db.quick.run(has_superuser).await
    }

    async fn insert_user(&self, user: &User) -> Result<Option<Taken>> {
        let user = user.clone();
        self.db.writer.run(1, move |batch| insert(batch.connection, &user)).await
    }

    async fn update_user(&self, id: ObjectId, change: &UserChange) -> Result<Changed> {
        let change = change.clone();
        self.db.writer.run(1, move |batch| update(batch.connection, id, &change)).await
    }

    async fn replace_password(&self, id: ObjectId, old: &str, new: &str) -> Result<()> {
        let (id, old, new) = (id.to_hex(), old.to_owned(), new.to_owned());
        let work = move |batch: &mut Batch<'_>| replace_password(batch.connection, &id, &old, &new);
        self.db.writer.run(1, work).await
    }

    async fn delete_user(&self, id: ObjectId) -> Result<bool> {
        self.db.writer.run(1, move |batch| delete(batch.connection, id)).await
    }
}

/// What a user is looked up by.
#[derive(Clone, Copy)]
pub(super) enum By {
    Id,
    Name,
    Email,
}

/// The user whose id, name or address is `value`.
pub(super) fn user(connection: &Connection, by: By, value: &str) -> Result<Option<User>> {
    let column = match by {
        By::Id => "id",
        By::Name => "username",
        By::Email => "email",
    };
    let mut statement = connection.prepare_cached(&format!("{SELECT} WHERE user.{column} = ?"))?;
    let mut rows = statement.query([value])?;
    rows.next()?.map(read).transpose()
}

fn read(row: &Row<'_>) -> Result<User> {
    let groups: Vec<Group> =
        serde_json::from_str(&row.get::<_, String>("groups")?).map_err(Error::internal)?;
    Ok(User {
        id: row.get::<_, String>("id")?.parse().map_err(Error::internal)?,
        username: row.get("username")?,
        email: row.get("email")?,
        hashed_password: row.get("hashed_password")?,
        is_active: row.get("is_active")?,
        is_superuser: row.get("is_superuser")?,
        is_verified: row.get("is_verified")?,
        groups,
        former_names: serde_json::from_str(&row.get::<_, String>("former_names")?)
            .map_err(Error::internal)?,
        generation: row.get::<_, Option<u32>>("generation")?.unwrap_or(0),
        tokens_from: row.get::<_, Option<i64>>("tokens_from")?.map(Timestamp::from_millis),
        named_from: row.get::<_, Option<u32>>("named_from")?.unwrap_or(0),
        confirmations: row.get::<_, Option<u32>>("confirmations")?.unwrap_or(0),
    })
}

fn find(connection: &Connection, filter: &UserFilter, page: Page) -> Result<Paged<User>> {
    let id = filter.id.map(|id| id.to_hex());
    let conditions = params![
        id,
        filter.username,
        filter.email,
        filter.is_active,
        filter.is_superuser,
        filter.is_verified,
        filter.group
    ];
    let count = format!("SELECT count(*) FROM user WHERE {MATCHES}");
    let total = connection.prepare_cached(&count)?.query_row(conditions, count_of)?;
    let list = format!(
        "{SELECT} WHERE {MATCHES} ORDER BY id LIMIT {} OFFSET {}",
        integer(page.limit),
        integer(page.offset)
    );
    let mut statement = connection.prepare(&list)?;
    let mut rows = statement.query(conditions)?;
    let mut items = Vec::new();
    while let Some(row) = rows.next()? {
        items.push(read(row)?);
    }
    Ok(Paged { items, total })
}

/// The first column, a count.
pub(crate) fn count_of(row: &Row<'_>) -> rusqlite::Result<u64> {
    row.get(0).map(i64::unsigned_abs)
}

/// SQLite counts to 2^63.
pub(super) fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Whether any active superuser exists.
fn has_superuser(connection: &Connection) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM user WHERE is_active AND is_superuser)";
    Ok(connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}

/// What another user than `id` has: a name like `new_name`, or the address. (Not an error: an error would undo the others
/// of its transaction.)
fn taken(
    connection: &Connection,
    id: ObjectId,
    new_name: Option<&str>,
    email: Option<&str>,
) -> Result<Option<Taken>> {
    let id = id.to_hex();
    if let Some(name) = new_name
        && has_alike(connection, &id, name)?
    {
        return Ok(Some(Taken::Username));
    }
    let sql = "SELECT 1 FROM user WHERE email = ? AND id <> ?";
    Ok(connection.prepare_cached(sql)?.exists(params![email, &id])?.then_some(Taken::Email))
}

/// Whether somebody else has, or had, a name that looks like this one.
fn has_alike(connection: &Connection, id: &str, name: &str) -> Result<bool> {
    let wanted = outline(name);
    let mut names = connection.prepare_cached(
        "SELECT username FROM user WHERE id <> ?1 UNION ALL SELECT name FROM former_name WHERE user <> ?1",
    )?;
    let mut rows = names.query([id])?;
    while let Some(row) = rows.next()? {
        if outline(&row.get::<_, String>(0)?) == wanted {
            return Ok(true);
        }
    }
    Ok(false)
}

fn insert(connection: &Connection, user: &User) -> Result<Option<Taken>> {
    let taken = taken(connection, user.id, Some(&user.username), Some(&user.email))?;
    if taken.is_none() {
        write(connection, user)?;
    }
    Ok(taken)
}

fn update(connection: &Connection, id: ObjectId, change: &UserChange) -> Result<Changed> {
    let Some(mut user) = user(connection, By::Id, &id.to_hex())? else { return Ok(Changed::Gone) };
    if !change.only_if.holds(&user) {
        return Ok(Changed::Gone);
    }
    if let Some(taken) = taken(connection, id, change.new_name(&user), change.email.as_deref())? {
        return Ok(Changed::Taken(taken));
    }
    change.apply(&mut user, Timestamp::now());
    write(connection, &user)?;
    Ok(Changed::Done(Box::new(user)))
}

/// Writes the whole user.
pub(super) fn write(connection: &Connection, user: &User) -> Result<()> {
    let id = user.id.to_hex();
    connection
        .prepare_cached(
            "INSERT INTO user (id, username, email, hashed_password, is_active, is_superuser, is_verified, groups)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (id) DO UPDATE SET username = excluded.username, email = excluded.email,
                 hashed_password = excluded.hashed_password, is_active = excluded.is_active,
                 is_superuser = excluded.is_superuser, is_verified = excluded.is_verified, groups = excluded.groups",
        )?
        .execute(params![
            id,
            user.username,
            user.email,
            user.hashed_password,
            user.is_active,
            user.is_superuser,
            user.is_verified,
            serde_json::to_string(&user.groups).map_err(Error::internal)?,
        ])?;
    if let Some(from) = user.tokens_from {
        connection
            .prepare_cached("REPLACE INTO user_generation (user, generation, tokens_from) VALUES (?, ?, ?)")?
            .execute(params![id, user.generation, from.millis()])?;
    }
    if user.named_from > 0 || user.confirmations > 0 {
        connection
            .prepare_cached("REPLACE INTO user_tokens (user, named_from, confirmations) VALUES (?, ?, ?)")?
            .execute(params![id, user.named_from, user.confirmations])?;
    }
    for name in &user.former_names {
        connection
            .prepare_cached("INSERT OR IGNORE INTO former_name (user, name) VALUES (?, ?)")?
            .execute([&id, name])?;
    }
    Ok(())
}

/// Replaces the password hash if it still is `old`.
fn replace_password(connection: &Connection, id: &str, old: &str, new: &str) -> Result<()> {
    connection
        .prepare_cached("UPDATE user SET hashed_password = ? WHERE id = ? AND hashed_password = ?")?
        .execute([new, id, old])?;
    Ok(())
}

fn delete(connection: &Connection, id: ObjectId) -> Result<bool> {
    let id = id.to_hex();
    for sql in [
        "DELETE FROM user_generation WHERE user = ?",
        "DELETE FROM user_tokens WHERE user = ?",
        "DELETE FROM former_name WHERE user = ?",
    ] {
        connection.prepare_cached(sql)?.execute([&id])?;
    }
    let sql = "DELETE FROM user WHERE id = ? RETURNING 1";
    Ok(connection.prepare_cached(sql)?.query_row([&id], |_| Ok(())).optional()?.is_some())
}
