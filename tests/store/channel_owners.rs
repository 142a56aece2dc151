//! Whose channels are.

use kernelci_live::model::{ObjectId, Timestamp};
use kernelci_live::quota::{Kept, Over, Share, Thing};
use macro_rules_attribute::apply;
use serde_json::json;

use super::support::{Fixture, event};
use crate::support::{both_backends, eventually, published};

fn share(most: u64) -> Share {
    Share { user: ObjectId::new(), most: Kept { channels: most, ..Kept::default() } }
}

#[apply(both_backends!)]
async fn a_channel_is_whose_who_begins_it_until_it_ends(f: Fixture) {
    let (ann, bob) = (share(2), share(2));
    let claim = async |channel: &str, share: &Share| f.store.claim_channel(channel, share).await.unwrap();
    let count = async |share: Share| f.store.count_channels(share.user).await.unwrap();
    claim("ch", &ann).await.unwrap();
    claim("ch", &bob).await.unwrap();
    assert_eq!((count(ann).await, count(bob).await), (1, 0), "it is Ann's already");
    assert_eq!(f.store.channel_owner("ch").await.unwrap(), Some(ann.user));
    assert_eq!(f.store.channel_owner("other").await.unwrap(), None);
    f.publish_at(Timestamp::now().plus_seconds(-2 * 3600), event("ch", json!(1))).await;
    claim("never", &ann).await.unwrap();
    let over = Over { thing: Thing::Channels, used: 2, most: 2 };
    assert_eq!(claim("more", &ann).await, Err(over));
    claim("ch", &ann).await.unwrap();
    // It ends, and what was claimed and never began goes when it is old.
    f.ended("ch").await;
    eventually("the channel has ended", async || count(ann).await == 1).await;
    f.claims_age().await;
    eventually("nothing came of the claim", async || count(ann).await == 0).await;
    claim("more", &ann).await.unwrap();
    // One that there is stays, however old.
    published(&*f.log, event("more", json!(1))).await;
    f.claims_age().await;
    claim("other", &bob).await.unwrap();
    f.claims_age().await;
    eventually("nothing came of the claim", async || count(bob).await == 0).await;
    assert_eq!(count(ann).await, 1);
    f.store.release_channels(ann.user).await.unwrap();
    assert_eq!((count(ann).await, f.store.channel_owner("more").await.unwrap()), (0, None));
    assert!(f.log.exists("more").await.unwrap());
}
