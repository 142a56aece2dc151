//! What the driver reports, as what the caller should know: away, too slow, too large, taken, or broken.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use mongodb::Collection;
use mongodb::error::{Error as Mongo, ErrorKind, InsertManyError, WriteFailure};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::failure::Failure;
use crate::error::{Error, Kind, Result};
use crate::metrics;

/// The server's budget for one find or count (`maxTimeMS`).
pub(crate) const QUERY_TIME: Duration = Duration::from_secs(15);
/// The client's budget for one call: the driver itself waits for a silent server without end.
pub(crate) const CALL_TIME: Duration = Duration::from_secs(25);

pub(super) const DUPLICATE_KEY: i32 = 11000;
/// `MaxTimeMSExpired`.
const OUT_OF_TIME: i32 = 50;
/// `TransactionTooLargeForCache`: what one transaction changes must fit into about a fifth of mongod's cache. 20,000
/// nodes of 1.4 kB with their indexes and events need about 1.5 GB of it; the default on an 8 GB machine is 3.5.
const CACHE_TOO_SMALL: i32 = 388;
/// `BSONObjectTooLarge`, and what older servers and updates say of a document above 16 MiB.
const TOO_LARGE: [i32; 4] = [10334, 17419, 17420, 2];
/// Not primary, shutting down, recovering, stepping down, host unreachable, network timeout, write concern timeout.
const AWAY: [i32; 12] = [10107, 13435, 10058, 11600, 11602, 13436, 189, 91, 6, 7, 89, 64];
/// A transaction that is not what its client thinks, because a statement of it came twice or its connection was lost:
/// `ConflictingOperationInProgress`, `TransactionTooOld`, `NoSuchTransaction`, `TransactionCommitted`, `WriteConflict`.
/// Or one that mongod ended, since it took longer than `transactionLifetimeLimitSeconds`, or waited for a lock:
/// `TransactionExceededLifetimeLimitSeconds`, `LockTimeout`.
const IN_DOUBT: [i32; 7] = [117, 225, 251, 256, 112, 290, 24];

/// Connections that the driver may have. It opens as many of them at the same time as are wanted.
pub(super) const CONNECTIONS: u32 = 100;
/// Of these so many may be in use by calls; the others are for looking whether MongoDB is there.
const CALLS: usize = 90;

/// Waits until the driver has a connection for one more call, which uses it until the turn is dropped.
///
/// Requests end with their clients, and the driver does not expect that of what waits for a connection: whoever does not
/// wait any more stays in its line, of which only one is looked at whenever something happens to the pool (its `worker`,
/// 3.9). A hundred clients who left in the same moment kept everybody waiting for seconds. So nobody waits there.
pub(super) async fn turn() -> Option<SemaphorePermit<'static>> {
    static CALLING: Semaphore = Semaphore::const_new(CALLS);
    // It is never closed.
    CALLING.acquire().await.ok()
}

/// Waits for a call of the driver, but not for ever, and says in our words how it failed.
pub(crate) async fn call<T>(call: impl IntoFuture<Output = mongodb::error::Result<T>>) -> Result<T> {
    raw(call).await.map_err(translate)
}

/// As [`call`], for a write to this collection, which the error names.
pub(crate) async fn call_on<T, C: Send + Sync>(
    collection: &Collection<C>,
    call: impl IntoFuture<Output = mongodb::error::Result<T>>,
) -> Result<T> {
    raw(call).await.map_err(|error| translated(error, Some(collection.name())))
}

/// As [`call`], with the driver's own error for callers that look into it.
pub(crate) async fn raw<T>(
    call: impl IntoFuture<Output = mongodb::error::Result<T>>,
) -> mongodb::error::Result<T> {
    static SECONDS: LazyLock<::metrics::Histogram> =
        LazyLock::new(|| metrics::STORE_SECONDS.histogram(&["mongodb"]));
    let began = Instant::now();
    let answer = tokio::time::timeout(CALL_TIME, async {
        let _turn = turn().await;
        call.into_future().await
    });
    let answer = answer.await;
    SECONDS.record(began.elapsed());
    match answer {
        Ok(result) => result,
        Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
    }
}

/// The driver's error as ours.
pub(crate) fn translate(error: Mongo) -> Error {
    translated(error, None)
}

fn translated(error: Mongo, collection: Option<&str>) -> Error {
    // Never the driver's own words: they have whole documents in hexadecimal digits.
    let cause = Failure::of(&error, collection);
    match error.kind.as_ref() {
        ErrorKind::Io(_)
        | ErrorKind::ServerSelection { .. }
        | ErrorKind::ConnectionPoolCleared { .. }
        | ErrorKind::DnsResolve { .. }
        | ErrorKind::Shutdown => return Error::unavailable("store", cause),
        // The driver looks at the size of inserts itself.
        ErrorKind::InvalidArgument { message, .. } if message.contains("must be within") => {
            return too_large(cause);
        }
        ErrorKind::Bson(_) => {
            return Error::invalid(
                "node",
                "something in it cannot be stored (a NUL in a key, or nested too deeply)",
            )
            .because(cause);
        }
        _ => {}
    }
    match code(&error) {
        Some(OUT_OF_TIME) => Error::new(Kind::Timeout, "the query took too long").because(cause),
        Some(2) if !cause.to_string().contains("too large") => Error::internal(cause),
        Some(code) if TOO_LARGE.contains(&code) => too_large(cause),
        Some(CACHE_TOO_SMALL) => {
            Error::new(Kind::TooLarge, "the database cannot write so much in one transaction").because(cause)
        }
        Some(code) if AWAY.contains(&code) || IN_DOUBT.contains(&code) => Error::unavailable("store", cause),
        _ => Error::internal(cause),
    }
}

fn too_large(cause: Failure) -> Error {
    Error::new(Kind::TooLarge, "a stored document may have 16 MiB at most, its pending events included")
        .because(cause)
}

/// The server's code of the (first) failure.
pub(crate) fn code(error: &Mongo) -> Option<i32> {
    match error.kind.as_ref() {
        ErrorKind::Command(error) => Some(error.code),
        ErrorKind::Write(WriteFailure::WriteError(error)) => Some(error.code),
        ErrorKind::Write(WriteFailure::WriteConcernError(error)) => Some(error.code),
        ErrorKind::InsertMany(many) => match (&many.write_errors, &many.write_concern_error) {
            (_, Some(error)) => Some(error.code),
            (Some(errors), _) => errors.first().map(|error| error.code),
            _ => None,
        },
        _ => None,
    }
}

/// What became of one document of an unordered `insert_many` that ended with this error.
pub(super) fn of_insert(error: &Mongo, at: usize) -> mongodb::error::Result<()> {
    let ErrorKind::InsertMany(many) = error.kind.as_ref() else { return Err(error.clone()) };
    let own = many.write_errors.iter().flatten().find(|error| error.index == at);
    match (own, &many.write_concern_error) {
        (None, None) => Ok(()),
        (own, _) => {
            let mut alone = InsertManyError::clone(many);
            alone.write_errors = own.map(|own| vec![own.clone()]);
            Err(ErrorKind::InsertMany(alone).into())
        }
    }
}

/// Whether a unique index refused the write.
pub(crate) fn is_duplicate(error: &Mongo) -> bool {
    code(error) == Some(DUPLICATE_KEY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(code: i32) -> Error {
        let answer = bson::doc! {"ok": 0, "code": code, "codeName": "Name", "errmsg": "what happened"};
        translate(ErrorKind::Command(bson::deserialize_from_document(answer).unwrap()).into())
    }

    #[test]
    fn what_mongod_gives_up_may_be_tried_again() {
        for code in AWAY.iter().chain(&IN_DOUBT) {
            assert_eq!(told(*code).kind(), Kind::Unavailable, "{code}");
        }
        assert_eq!(told(OUT_OF_TIME).kind(), Kind::Timeout);
        assert_eq!(told(CACHE_TOO_SMALL).kind(), Kind::TooLarge);
        assert_eq!(told(1).kind(), Kind::Internal);
    }
}
