//! `kernelci-live load`: every scenario in small against a real server; and the judge itself, with servers that do wrong.

mod faulty;
mod generator;
mod peers;
mod scenarios;
