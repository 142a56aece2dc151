//! Documents as they are stored, whatever their keys are called.
//!
//! The driver reads a `bson::Document` through serde, where `{"$oid": "x"}` is taken for extended JSON: an ObjectId, or
//! an error that ends the whole page. Events carry whatever their publisher likes, so every collection here is one of
//! [`Stored`], which is read from the bytes.

use std::ops::Deref;

use bson::{Document, RawDocumentBuf};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A document of a collection.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stored(pub(crate) Document);

impl Deref for Stored {
    type Target = Document;
    fn deref(&self) -> &Document {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Stored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Stored, D::Error> {
        let raw = RawDocumentBuf::deserialize(deserializer)?;
        Document::try_from(raw).map(Stored).map_err(D::Error::custom)
    }
}

impl Serialize for Stored {
    /// On this way keys are not looked at.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{Bson, doc};

    #[test]
    fn keys_are_only_keys() {
        let document = doc! {
            "_id": bson::oid::ObjectId::new(), "at": bson::DateTime::now(), "b": Bson::Undefined,
            "data": [
                {"$oid": "x"}, {"$oid": "5f0000000000000000000abc"}, {"$date": 1}, {"$date": "x"}, {"$binary": {}},
                {"$numberLong": "7"}, {"$numberDecimal": 1}, {"$code": "x", "$scope": 1}, {"$scope": {}, "x": 1},
                {"$symbol": "s"}, {"$timestamp": {"t": 1, "i": 1}}, {"$regularExpression": 1}, {"$dbPointer": {}},
                {"$minKey": 1}, {"$maxKey": 1}, {"$undefined": true}, {"$uuid": "x"}, {"a": 1, "$set": {"$oid": 1}},
                {"$__private__bson_RawDocument": "x"}, {"$__private__bson_RawArray": 1}, {"$where": "1"}, {"": 1},
            ],
            "$oid": "x",
        };
        let stored = Stored(document);
        let bytes = bson::serialize_to_vec(&stored).unwrap();
        assert_eq!(bytes, RawDocumentBuf::try_from(&stored.0).unwrap().as_bytes());
        assert_eq!(bson::deserialize_from_slice::<Stored>(&bytes).unwrap(), stored);
    }
}
