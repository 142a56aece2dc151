//! Tokens that users make, name, list and revoke, and what such a token may do.

use super::{Node, ObjectId, Timestamp};
use crate::error::{Error, Result};

/// What the token of a request may do, within what its user may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Everything: a token from a login.
    #[default]
    Full,
    /// Look at things.
    Read,
    /// Look at things, and write nodes whose `data.runtime` is one of these.
    Runtimes(Vec<String>),
}

/// What the scope of one runtime begins with, e.g. `write:lava-x`.
const WRITE: &str = "write:";
const READ: &str = "read";
const MOST_RUNTIMES: usize = 32;
const LONGEST_RUNTIME: usize = 128;

impl Scope {
    /// Reads `["read"]` or `["write:lava-x", …]` (which can read, too).
    pub fn parse(scopes: &[String]) -> Result<Scope> {
        let wrong = || {
            let wanted =
                format!("expected \"read\", or \"write:<runtime>\" for up to {MOST_RUNTIMES} runtimes");
            Error::invalid("scopes", wanted)
        };
        let mut runtimes = Vec::new();
        for scope in scopes {
            match scope.strip_prefix(WRITE) {
                Some(runtime) if !runtime.is_empty() && runtime.len() <= LONGEST_RUNTIME => {
                    runtimes.push(runtime.to_owned());
                }
                None if scope == READ => {}
                _ => return Err(wrong()),
            }
        }
        runtimes.sort_unstable();
        runtimes.dedup();
        match (scopes.is_empty(), runtimes.len()) {
            (true, _) => Err(wrong()),
            (false, 0) => Ok(Scope::Read),
            (false, 1..=MOST_RUNTIMES) => Ok(Scope::Runtimes(runtimes)),
            (false, _) => Err(wrong()),
        }
    }

    /// As [`Scope::parse`] reads it. ([`Scope::Full`] is no scope of a named token.)
    pub fn names(&self) -> Vec<String> {
        match self {
            Scope::Full => Vec::new(),
            Scope::Read => vec![READ.to_owned()],
            Scope::Runtimes(runtimes) => runtimes.iter().map(|name| format!("{WRITE}{name}")).collect(),
        }
    }

    /// Whether a node may be written with such a token, if its user may write it.
    pub fn covers(&self, node: &Node) -> bool {
        match self {
            Scope::Full => true,
            Scope::Read => false,
            Scope::Runtimes(names) => node.runtime().is_some_and(|of| names.iter().any(|name| name == of)),
        }
    }
}

/// A token that a user has made. The token itself is told once and kept nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedToken {
    /// Identifier; the `jti` of the token.
    pub id: ObjectId,
    /// Whose it is.
    pub user: ObjectId,
    /// What the user calls it; unique among theirs.
    pub name: String,
    /// What it may do.
    pub scope: Scope,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last used, to the minute or so.
    pub last_used: Option<Timestamp>,
    /// When it ends.
    pub expires: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_and_written() {
        let parse = |scopes: &[&str]| Scope::parse(&scopes.iter().map(|&s| s.to_owned()).collect::<Vec<_>>());
        assert_eq!(parse(&["read"]).unwrap(), Scope::Read);
        let two = parse(&["write:lava-b", "read", "write:lava-a", "write:lava-a"]).unwrap();
        assert_eq!(two.names(), ["write:lava-a", "write:lava-b"]);
        assert_eq!(Scope::parse(&two.names()).unwrap(), two);
        for bad in [&[][..], &["write"], &["write:"], &["READ"], &["read", "admin"]] {
            assert_eq!(parse(bad).unwrap_err().status(), 422, "{bad:?}");
        }
        let many: Vec<String> = (0..33).map(|n| format!("write:{n}")).collect();
        assert!(Scope::parse(&many).is_err());
    }
}
