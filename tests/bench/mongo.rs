//! The bare MongoDB driver, with the write concern of the server: majority, journal.

use bson::oid::ObjectId;
use bson::{Document, doc};
use mongodb::options::{Acknowledgment, ClientOptions, WriteConcern};
use mongodb::{Client, Collection};

use crate::support::{Server, services};

/// A collection for the peer, in the database of the server under test, which is removed with it.
pub(crate) struct Peer {
    /// The server's own nodes, to read.
    pub(crate) own: Collection<Document>,
    /// Without indexes but for `_id`.
    pub(crate) nodes: Collection<Document>,
    /// With the indexes of the server's own collection.
    pub(crate) indexed: Collection<Document>,
    /// A node as the server has stored it.
    template: Document,
}

impl Peer {
    /// The server has stored a node already.
    pub(crate) async fn new(server: &Server) -> Peer {
        let mut options = ClientOptions::parse(&services().mongo).await.expect("a MongoDB URL");
        let majority = WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build();
        (options.write_concern, options.max_pool_size) = (Some(majority), Some(100));
        let client = Client::with_options(options).expect("a MongoDB client");
        let db = client.database(server.setting("MONGO_DB").expect("a production server"));
        let own = db.collection::<Document>("node");
        let mut template = own.find_one(doc! {}).await.expect("a query").expect("a node");
        template.remove("outbox");
        let indexed = db.collection::<Document>("peer_indexed");
        indexed.insert_one(&template).await.expect("an insert");
        let indexes = own.list_indexes().await.expect("indexes");
        let indexes: Vec<_> = futures::TryStreamExt::try_collect(indexes).await.expect("indexes");
        indexed.create_indexes(indexes).await.expect("the same indexes");
        Peer { own, nodes: db.collection("peer"), indexed, template }
    }

    /// A document of the same shape with values of its own.
    pub(crate) fn document(&self) -> Document {
        let mut document = self.template.clone();
        let id = ObjectId::new();
        document.insert("_id", id);
        document.insert("idempotency", format!("figures:{id}"));
        document
    }
}
