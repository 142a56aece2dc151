//! The log on standard error: lines for people, or JSON; every line says which instance wrote it.

use std::fmt;
use std::io::IsTerminal;

use anyhow::{Context as _, Result};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{self, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config::{Config, LogFormat};

/// Begins to log as the settings say.
pub(super) fn start(config: &Config) -> Result<()> {
    let filter = EnvFilter::try_new(&config.log)
        .with_context(|| format!("LOG is {:?}, expected e.g. info", config.log))?;
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr);
    let instance = config.instance_name();
    match config.log_format {
        LogFormat::Text => {
            log.event_format(Text { line: format::format().with_ansi(colours), instance }).init()
        }
        LogFormat::Json => log.json().event_format(Json { line: format::format().json(), instance }).init(),
    }
    Ok(())
}

/// A line for people, the instance at its end.
struct Text {
    line: format::Format,
    instance: String,
}

/// A line as a JSON object, whose first member is the instance.
struct Json {
    line: format::Format<format::Json>,
    instance: String,
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
        let mut line = String::new();
        self.line.format_event(context, Writer::new(&mut line), event)?;
        writeln!(out, "{} instance={}", line.trim_end(), self.instance)
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
        let mut line = String::new();
        self.line.format_event(context, Writer::new(&mut line), event)?;
        let members = line.strip_prefix('{').ok_or(fmt::Error)?;
        let instance = serde_json::Value::from(self.instance.as_str());
        write!(out, "{{\"instance\":{instance},{members}")
    }
}
