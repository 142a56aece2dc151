//! Prefixes, slashes, HEAD, unknown paths and methods (contract 1.1).
