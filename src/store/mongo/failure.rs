//! What the driver reports, in a sentence for the log.
//!
//! Its own words are made for its developers: of a write that failed they have the answer of the server in hexadecimal
//! digits, and of a server that is away all that is known of all servers.

use std::fmt;

use mongodb::error::{Error as Mongo, ErrorKind, WriteFailure};

/// The longest sentence, in characters: servers quote what they refuse.
const MOST: usize = 400;

/// A sentence about an error, with the collection if it is known, and the server's code if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure(String);

impl Failure {
    /// `collection`: what was written to, if the caller knows.
    pub(crate) fn of(error: &Mongo, collection: Option<&str>) -> Failure {
        let to = |message: &str| {
            let collection = collection.map(str::to_owned).or_else(|| named(message));
            collection.map_or(String::new(), |collection| format!(" to {collection}"))
        };
        let write = |message: &str, code: i32, name: Option<&str>| {
            format!("MongoDB refused a write{}: {}", to(message), coded(message, code, name))
        };
        let confirm = |message: &str, code: i32, name: &str| {
            format!("MongoDB has not confirmed a write{}: {}", to(message), coded(message, code, Some(name)))
        };
        let sentence = match error.kind.as_ref() {
            ErrorKind::Command(error) => format!(
                "MongoDB refused a {}: {}",
                if collection.is_some() { format!("write{}", to("")) } else { "command".to_owned() },
                coded(&error.message, error.code, Some(&error.code_name))
            ),
            ErrorKind::Write(WriteFailure::WriteError(error)) => {
                write(&error.message, error.code, error.code_name.as_deref())
            }
            ErrorKind::Write(WriteFailure::WriteConcernError(error)) => {
                confirm(&error.message, error.code, &error.code_name)
            }
            ErrorKind::InsertMany(many) => {
                let errors = many.write_errors.as_deref().unwrap_or_default();
                match (errors.first(), &many.write_concern_error) {
                    (Some(first), _) => {
                        let first = write(&first.message, first.code, first.code_name.as_deref());
                        match errors.len() {
                            1 => first,
                            more => format!("{first}; and {} more", more - 1),
                        }
                    }
                    (None, Some(error)) => confirm(&error.message, error.code, &error.code_name),
                    (None, None) => format!("MongoDB refused a write{}", to("")),
                }
            }
            ErrorKind::ServerSelection { message, .. } => selection(message),
            ErrorKind::Io(error) => format!("the connection to MongoDB failed: {error}"),
            ErrorKind::ConnectionPoolCleared { .. } => {
                "the connections to a MongoDB server have ended".to_owned()
            }
            ErrorKind::Authentication { message, .. } => format!("MongoDB does not let us in: {message}"),
            ErrorKind::InvalidArgument { message, .. }
            | ErrorKind::DnsResolve { message, .. }
            | ErrorKind::Internal { message, .. }
            | ErrorKind::InvalidResponse { message, .. }
            | ErrorKind::InvalidTlsConfig { message, .. }
            | ErrorKind::Transaction { message, .. }
            | ErrorKind::IncompatibleServer { message, .. } => format!("the MongoDB driver says: {message}"),
            ErrorKind::Bson(error) => format!("this is no BSON: {error}"),
            ErrorKind::Shutdown => "the MongoDB client has been shut down".to_owned(),
            _ => "the MongoDB driver reports an error that it has no words for".to_owned(),
        };
        Failure(shortened(sentence))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

fn coded(message: &str, code: i32, name: Option<&str>) -> String {
    match name.filter(|name| !name.is_empty()) {
        Some(name) => format!("{message} (code {code}, {name})"),
        None => format!("{message} (code {code})"),
    }
}

/// The collection that the server itself names: `… collection: <database>.<collection> index: …`.
fn named(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("collection: ")?;
    let (_, collection) = rest.split_whitespace().next()?.split_once('.')?;
    Some(collection.to_owned())
}

/// No server can be used: of all that is known of them, what was wrong with one.
fn selection(message: &str) -> String {
    let mut rest = message.split("Error: Kind: ").skip(1);
    let why = rest.next().and_then(|error| error.split(", labels").next());
    match why {
        Some(why) => format!("no MongoDB server can be used: {why}"),
        None => "no MongoDB server can be used: none is known that can do this now".to_owned(),
    }
}

fn shortened(sentence: String) -> String {
    // The code stands at the end.
    match sentence.char_indices().nth(MOST) {
        None => sentence,
        Some(_) => {
            let characters: Vec<char> = sentence.chars().collect();
            let (begin, end) = (&characters[..MOST - 100], &characters[characters.len() - 90..]);
            format!("{} … {}", begin.iter().collect::<String>(), end.iter().collect::<String>())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;

    fn written(answer: bson::Document) -> Mongo {
        let error = bson::deserialize_from_document(answer).unwrap();
        ErrorKind::Write(WriteFailure::WriteError(error)).into()
    }

    #[test]
    fn a_refused_write_is_a_sentence_with_the_collection_and_the_code() {
        let taken =
            "E11000 duplicate key error collection: kernelci.user index: email_1 dup key: { email: \"a@b\" }";
        let error = written(doc! {"index": 0, "code": 11000, "errmsg": taken, "keyValue": {"email": "a@b"}});
        let sentence = Failure::of(&error, None).to_string();
        assert_eq!(sentence, format!("MongoDB refused a write to user: {taken} (code 11000)"));
        let invalid =
            doc! {"code": 121, "codeName": "Invalid", "errmsg": "no", "errInfo": {"x": vec![1; 999]}};
        let sentence = Failure::of(&written(invalid), Some("node")).to_string();
        assert_eq!(sentence, "MongoDB refused a write to node: no (code 121, Invalid)");
    }

    #[test]
    fn however_much_a_server_quotes_the_code_is_there() {
        let error = written(doc! {"code": 7, "codeName": "Long", "errmsg": "ä".repeat(9000)});
        let sentence = Failure::of(&error, Some("node")).to_string();
        assert!(sentence.starts_with("MongoDB refused a write to node: ä"), "{sentence}");
        assert!(sentence.ends_with("ä (code 7, Long)") && sentence.chars().count() <= MOST, "{sentence}");
    }
}
