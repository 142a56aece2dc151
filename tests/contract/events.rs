//! The history of events: `GET /events` (contract 5.1).
