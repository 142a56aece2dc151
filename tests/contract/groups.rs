//! User groups (contract 6.7).
