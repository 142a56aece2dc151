//! Who is asking and what they may do: tokens, passwords, callers, edit rights, mail, the first admin.

pub mod bootstrap;
pub mod caller;
pub mod identities;
pub mod letters;
pub mod mail;
pub mod origins;
pub mod own_addresses;
pub mod passwords;
pub mod rights;
pub mod tokens;

pub use caller::{Access, Caller, Effect};
pub use identities::Identities;
