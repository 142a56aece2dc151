//! File descriptors: each connection takes one, and the soft limit that processes begin with is low.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Quotas;

/// Files besides connections: the database's, those of MongoDB and Redis, pages that are being sent.
const OTHERS: u64 = 512;

/// Raises the soft limit as far as `connections` need it and the hard limit allows; the most connections that there are
/// descriptors for then.
fn raise(connections: u64) -> io::Result<u64> {
    let wanted = connections.saturating_add(OTHERS);
    let now = getrlimit(Resource::Nofile);
    let hard = now.maximum.unwrap_or(u64::MAX);
    let soft = now.current.unwrap_or(u64::MAX);
    let limit = soft.max(wanted.min(hard));
    if limit > soft {
        setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum: now.maximum })?;
    }
    Ok(limit.saturating_sub(OTHERS.min(limit / 2)))
}

/// Makes room for as many connections as the settings say, and the settings say no more than there is room for.
pub fn make_room(settings: &mut Quotas) {
    let (wanted, sessions) = (settings.max_connections, settings.max_sessions);
    let most = match raise(wanted) {
        Ok(most) => most,
        Err(error) => return tracing::warn!(%error, "the limit of open files could not be raised"),
    };
    if most < wanted {
        tracing::warn!(
            "only {most} connections can be open at a time, of {wanted} (MAX_CONNECTIONS), {sessions} of them sessions \
             (MAX_SESSIONS): the limit of open files is too low; raise it (ulimit -Hn, LimitNOFILE)"
        );
        settings.max_connections = most;
    }
}
