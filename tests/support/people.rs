//! Users and groups that tests need, written into the database as it stands.

use serde_json::json;

use super::server::{Backend, Server};
use super::services::services;

fn new_id() -> String {
    bson::oid::ObjectId::new().to_hex()
}

impl Server {
    /// Adds an active, verified user who is in these groups, and the groups if there are none of these names. Returns
    /// a token of the user.
    pub async fn add_user(&self, username: &str, groups: &[&str]) -> String {
        let id = new_id();
        match self.backend() {
            Backend::Embedded => {
                let database = self.database();
                let insert = "INSERT OR IGNORE INTO usergroup (id, name) VALUES (?, ?)";
                for name in groups {
                    database.execute(insert, [&new_id(), *name]).expect("the group is written");
                }
                let find = "SELECT id FROM usergroup WHERE name = ?";
                let member = |name: &&str| {
                    let id: String = database.query_row(find, [name], |row| row.get(0)).expect("a group");
                    json!({"id": id, "name": name})
                };
                let groups = json!(groups.iter().map(member).collect::<Vec<_>>()).to_string();
                let insert = "INSERT INTO user (id, username, email, hashed_password, is_active, is_superuser, \
                              is_verified, groups) VALUES (?, ?, ? || '@example.org', '', 1, 0, 1, ?)";
                database.execute(insert, [&*id, username, username, &groups]).expect("the user is written");
            }
            Backend::Production => {
                use bson::{Document, doc, oid::ObjectId};
                let database = self.mongo().await;
                let mut members = Vec::new();
                for name in groups {
                    let group = database.collection::<Document>("usergroup");
                    let find = || group.find_one(doc! {"name": name});
                    if find().await.expect("reads").is_none() {
                        group.insert_one(doc! {"name": name}).await.expect("the group is written");
                    }
                    let id = find().await.expect("reads").and_then(|found| found.get_object_id("_id").ok());
                    members.push(doc! {"id": id.expect("a group"), "name": name});
                }
                let user = doc! {
                    "_id": id.parse::<ObjectId>().expect("an id"), "username": username,
                    "email": format!("{username}@example.org"), "hashed_password": "", "is_active": true,
                    "is_superuser": false, "is_verified": true, "groups": members,
                };
                database.collection("user").insert_one(user).await.expect("the user is written");
            }
        }
        self.sign(json!({"sub": id})).await
    }

    /// The database of a server on MongoDB.
    pub async fn mongo(&self) -> mongodb::Database {
        let client = mongodb::Client::with_uri_str(&services().mongo).await.expect("MongoDB is there");
        client.database(self.setting("MONGO_DB").expect("a database"))
    }
}
