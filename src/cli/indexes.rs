//! `kernelci-live indexes`: which indexes the database has, lacks, and has without need.

use std::io::Write;

use anyhow::Result;

use crate::app;
use crate::config::Config;
use crate::store::IndexState;

/// Lists them as they are, beside a running server or without one: the server makes what is missing when it starts.
pub(super) async fn run(config: Config) -> Result<()> {
    config.check()?;
    let indexes = app::index_status(&config).await?;
    let mut out = std::io::stdout().lock();
    for index in indexes {
        let state = match index.state {
            IndexState::Present => "present",
            IndexState::Missing => "missing",
            IndexState::LeftOver => "left over",
        };
        writeln!(out, "{state:<10} {:<14} {:<32} {}", index.on, index.name, index.keys)?;
    }
    Ok(())
}
