//! Telemetry (contract 7.2).
