//! The server's own work: tasks that nobody waits for, and without which it would only seem to be well.
//!
//! One that panics ends the process with its message: whoever runs it starts it again, and what was acknowledged is
//! safe. (A request that panics ends for its client, and nothing else.)

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;

use futures::FutureExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What has broken, once something has.
static BROKEN: LazyLock<watch::Sender<Option<String>>> = LazyLock::new(watch::Sender::default);

/// Runs `work` in a task of its own; `name` is what the log calls it.
pub(crate) fn spawn(name: &'static str, work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(watched(name, work))
}

/// The same as a future, for those who keep their tasks together.
pub(crate) async fn watched(name: &'static str, work: impl Future<Output = ()>) {
    guarded(name, work).await;
}

/// As [`watched`], for work with a result; `None`: it has panicked.
pub(crate) async fn guarded<T>(name: &'static str, work: impl Future<Output = T>) -> Option<T> {
    let work = async {
        stumble(name);
        work.await
    };
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(done) => Some(done),
        Err(panic) => {
            broke(name, &*panic);
            None
        }
    }
}

/// The same on a thread.
pub(crate) fn watched_thread(name: &'static str, work: impl FnOnce()) {
    let work = || {
        stumble(name);
        work();
    };
    if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
        broke(name, &*panic);
    }
}

/// Returns when something has broken, and says what: the process has to end.
pub(crate) async fn broken() -> String {
    let mut broken = BROKEN.subscribe();
    match broken.wait_for(Option::is_some).await.map(|broken| broken.clone()) {
        Ok(Some(told)) => told,
        // The sender is never dropped.
        _ => std::future::pending().await,
    }
}

fn broke(name: &'static str, panic: &(dyn Any + Send)) {
    let message = panic.downcast_ref::<&str>().copied();
    let message =
        message.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    tracing::error!(task = name, message, "a background task has panicked: the process ends");
    let told = format!("the background task {name} has panicked: {message}");
    BROKEN.send_if_modified(|broken| {
        let is_first = broken.is_none();
        broken.get_or_insert(told);
        is_first
    });
}

/// In builds for tests, the task that `PANIC_IN` names does it.
#[allow(clippy::panic)]
fn stumble(name: &str) {
    if cfg!(debug_assertions) && std::env::var("PANIC_IN").is_ok_and(|wanted| wanted == name) {
        panic!("PANIC_IN is {name}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_is_told_of_and_others_are_not() {
        spawn("well", async {}).await.unwrap();
        assert!(broken().now_or_never().is_none());
        spawn("ill", async { panic!("on {}", "purpose") }).await.unwrap();
        assert_eq!(broken().await, "the background task ill has panicked: on purpose");
        watched_thread("thread", || panic!("later"));
        assert_eq!(broken().await, "the background task ill has panicked: on purpose", "the first one");
    }
}
