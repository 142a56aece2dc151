//! Queues: push and pop (contract 5.9).
