//! Reading and writing nodes (contract 2, 3).
