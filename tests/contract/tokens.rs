//! API tokens that users make and revoke.
