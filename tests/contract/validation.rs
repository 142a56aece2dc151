//! Bodies of 422 and the order of checks (contract 1.5).
