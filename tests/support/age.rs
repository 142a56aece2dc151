//! As if time had passed: ages are written into the database, not waited for.

use super::server::{Backend, Server};

const HOUR_MS: i64 = 3_600_000;

impl Server {
    /// As if this subscription (a long poll's, or a consumer's) had been made, and used last, an hour earlier.
    pub async fn age_subscription(&self, id: u64) {
        let id = i64::try_from(id).expect("a small number");
        let changed = match self.backend() {
            Backend::Embedded => {
                let sql =
                    "UPDATE consumer SET created = created - ?2, last_poll = last_poll - ?2 WHERE id = ?1";
                self.database().execute(sql, [id, HOUR_MS]).expect("the age is written") as u64
            }
            Backend::Production => {
                let consumers = self.mongo().await.collection::<bson::Document>("subscriber_state");
                let earlier = |field: &str| bson::doc! {"$subtract": [format!("${field}"), HOUR_MS]};
                let set = bson::doc! {"created_at": earlier("created_at"), "last_poll": earlier("last_poll")};
                let update = consumers.update_one(bson::doc! {"id": id}, vec![bson::doc! {"$set": set}]);
                update.await.expect("the age is written").modified_count
            }
        };
        assert_eq!(changed, 1, "there is a subscription {id}");
    }
}
