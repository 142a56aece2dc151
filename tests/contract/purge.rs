//! Old nodes go (contract 7.4).
