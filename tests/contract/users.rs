//! Users: logging in, reading, changing, inviting (contract 6).
