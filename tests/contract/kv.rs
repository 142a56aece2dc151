//! Key and value (contract 7.1).
