//! Queries over REST (contract 4).
