//! The log on standard error: lines for people, or JSON; every line says which instance wrote it, and none repeats
//! without end ([`Brake`]).

use std::fmt;
use std::io::IsTerminal;

use anyhow::{Context as _, Result};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{self, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::brake::{Brake, LeftOut};
use crate::config::{Config, LogFormat};

/// Begins to log as the settings say.
pub(super) fn start(config: &Config) -> Result<()> {
    let filter = EnvFilter::try_new(&config.log)
        .with_context(|| format!("LOG is {:?}, expected e.g. info", config.log))?;
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr);
    let instance = config.instance_name();
    let brake = Brake::default();
    match config.log_format {
        LogFormat::Text => {
            log.event_format(Text { line: format::format().with_ansi(colours), instance, brake }).init()
        }
        LogFormat::Json => {
            log.json().event_format(Json { line: format::format().json(), instance, brake }).init()
        }
    }
    Ok(())
}

/// A line for people, the instance at its end.
pub(super) struct Text {
    pub(super) line: format::Format,
    pub(super) instance: String,
    pub(super) brake: Brake,
}

/// A line as a JSON object, whose first member is the instance.
pub(super) struct Json {
    pub(super) line: format::Format<format::Json>,
    pub(super) instance: String,
    pub(super) brake: Brake,
}

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(left_out) = self.brake.pass(event.metadata()) else { return Ok(()) };
        let mut line = String::new();
        self.line.format_event(context, Writer::new(&mut line), event)?;
        writeln!(out, "{}{left_out} instance={}", line.trim_end(), self.instance)
    }
}

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(left_out) = self.brake.pass(event.metadata()) else { return Ok(()) };
        let mut line = String::new();
        self.line.format_event(context, Writer::new(&mut line), event)?;
        let members = line.strip_prefix('{').ok_or(fmt::Error)?;
        let instance = serde_json::Value::from(self.instance.as_str());
        write!(out, "{{\"instance\":{instance},")?;
        if left_out.lines > 0 {
            let LeftOut { lines, seconds } = left_out;
            write!(out, "\"left_out\":{{\"lines\":{lines},\"seconds\":{seconds}}},")?;
        }
        out.write_str(members)
    }
}
