//! Who is asking and what they may do: tokens, passwords, callers, edit rights, the first admin.

pub mod bootstrap;
pub mod caller;
pub mod passwords;
pub mod rights;
pub mod tokens;

pub use caller::{Access, Caller};
