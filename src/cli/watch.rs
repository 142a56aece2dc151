//! `kernelci-live watch`: shows what happens, as it happens.

use std::io::{ErrorKind, IsTerminal};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use tokio::io::AsyncWriteExt;

use super::connect::ConnectArgs;
use crate::client::{Delivery, EventDelivery, Start, State, Subscribe};
use crate::model::Position;
use crate::model::event::NODE_CHANNEL;

/// Attributes of the CloudEvent itself; on the channel `node` every other name is a field of the node.
const ATTRIBUTES: [&str; 8] =
    ["id", "source", "type", "subject", "time", "owner", "partitionkey", "sequence"];

/// Options of `watch`.
#[derive(clap::Args, Clone, Debug)]
pub struct WatchArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// Channel to follow.
    #[arg(long, env = "KCI_CHANNEL", default_value = NODE_CHANNEL)]
    channel: String,
    /// Only events with this `field=value` or `field__op=value` (op: ne, lt, lte, gt, gte, re, in, nin); may be
    /// repeated. On the channel `node`, `kind` is short for `data.kind`. Lists are separated by commas.
    #[arg(long = "filter", short = 'f', value_name = "FIELD=VALUE")]
    filters: Vec<String>,
    /// Where to begin: `now`, `earliest`, `<epoch>:<seq>` (behind this event) or an ISO 8601 time.
    #[arg(long, env = "KCI_FROM", default_value = "now")]
    from: String,
    /// Keep the place under this name, which a user of the server owns: watching again under it goes on behind the last
    /// event that was printed, whatever `--from` says.
    #[arg(long, value_name = "NAME")]
    durable: Option<String>,
    /// One CloudEvent a line, as JSON.
    #[arg(long)]
    json: bool,
    /// Add the node as it stands at delivery (with --json: as `{"event", "node"}`).
    #[arg(long)]
    node: bool,
}

/// Follows a channel until it is interrupted or nobody reads on.
pub async fn run(args: WatchArgs) -> Result<()> {
    let mut subscribe = Subscribe::to(&args.channel).from(start(&args.from)?);
    if !args.filters.is_empty() {
        subscribe = subscribe.filter(filter(&args.channel, &args.filters)?);
    }
    if args.node {
        subscribe = subscribe.include("node");
    }
    subscribe.durable = args.durable;
    let client = args.connect.reader("watch").await?;
    let mut subscription = client.subscribe(subscribe).await.context("cannot subscribe")?;
    let mut state = client.state();
    state.mark_unchanged();
    let mut was_connected = true;
    let mut out = tokio::io::stdout();
    let paint = Paint(std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none());
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let delivery = tokio::select! {
            _ = &mut interrupted => break,
            Ok(()) = state.changed() => {
                let state = state.borrow_and_update().clone();
                tell(&state, was_connected, subscription.position());
                was_connected = matches!(state, State::Connected(_));
                continue;
            }
            delivery = subscription.next() => delivery,
        };
        let (seq, line) = match delivery {
            Some(Delivery::Event(event)) if args.json => (event.seq, json_line(&event, args.node)),
            Some(Delivery::Event(event)) => (event.seq, human_line(&event, paint)),
            Some(Delivery::Gap { from, to }) => {
                eprintln!("-- events {from} to {to} are no longer available");
                subscription.ack(to);
                continue;
            }
            Some(Delivery::Reset { position }) => {
                eprintln!("-- the history was lost; it goes on at {}:{}", position.epoch, position.seq);
                subscription.ack(position.seq);
                continue;
            }
            None => match subscription.end_reason() {
                Some(reason) => bail!("the subscription has ended: {reason}"),
                None => break,
            },
        };
        match write(&mut out, &line).await {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
            other => other?,
        }
        subscription.ack(seq);
    }
    client.close().await;
    Ok(())
}

async fn write(out: &mut tokio::io::Stdout, line: &str) -> std::io::Result<()> {
    out.write_all(line.as_bytes()).await?;
    out.write_all(b"\n").await?;
    out.flush().await
}

fn tell(state: &State, was_connected: bool, position: &Position) {
    match state {
        State::Connected(_) => eprintln!("-- connected again, continuing behind {}", position.seq),
        // The first tries are usually the only ones; nobody wants a line for each of the others.
        State::Reconnecting { reason, attempt, .. } if was_connected || attempt.is_power_of_two() => {
            eprintln!("-- {reason}; connecting again (try {attempt})");
        }
        State::Reconnecting { .. } | State::Closed(_) => {}
    }
}

/// Reads `--from`.
fn start(text: &str) -> Result<Start> {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let date = (0..4).all(digit) && bytes.get(4) == Some(&b'-') && digit(5) && digit(6);
    match text {
        "now" => Ok(Start::Now),
        "earliest" => Ok(Start::Earliest),
        _ if date => Ok(Start::Time { time: text.to_owned() }),
        _ => match text.rsplit_once(':').map(|(epoch, seq)| (epoch, seq.parse())) {
            Some((epoch, Ok(seq))) if !epoch.is_empty() => {
                Ok(Start::At(Position { epoch: epoch.to_owned(), seq }))
            }
            _ => bail!("--from {text}: expected now, earliest, <epoch>:<seq> or an ISO 8601 time"),
        },
    }
}

/// Reads `--filter`s as the JSON form of the filter language.
fn filter(channel: &str, conditions: &[String]) -> Result<Value> {
    let mut filter = Map::new();
    for condition in conditions {
        let (key, value) = condition
            .split_once('=')
            .filter(|(key, _)| !key.is_empty())
            .with_context(|| format!("--filter {condition}: expected field=value or field__op=value"))?;
        let (field, op) = match key.rsplit_once("__") {
            Some((field, op)) => (field, Some(op)),
            None => (key, None),
        };
        let plain = field.split('.').next().unwrap_or(field);
        let prefix = if channel == NODE_CHANNEL && plain != "data" && !ATTRIBUTES.contains(&field) {
            "data."
        } else {
            ""
        };
        let value = match op {
            Some("in" | "nin") => Value::Array(value.split(',').map(scalar).collect()),
            Some("re") => value.into(),
            _ => scalar(value),
        };
        if filter.insert(format!("{prefix}{key}"), value).is_some() {
            bail!("--filter {condition}: {key} is given twice");
        }
    }
    Ok(Value::Object(filter))
}

/// A number, `true`, `false` or `null` as such; everything else is text. `"…"` makes text of those.
fn scalar(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(Value::Array(_) | Value::Object(_)) | Err(_) => text.into(),
        Ok(value) => value,
    }
}

fn json_line(delivery: &EventDelivery, with_node: bool) -> String {
    if with_node {
        json!({"event": delivery.raw, "node": delivery.node}).to_string()
    } else {
        // The server sends compact JSON; a line break can only stand between tokens.
        delivery.raw.get().replace(['\n', '\r'], " ")
    }
}

/// `12:00:01 job    baseline-arm64   running→done pass  mainline/master  6a13…`
fn human_line(delivery: &EventDelivery, paint: Paint) -> String {
    let event: Value = serde_json::from_str(delivery.raw.get()).unwrap_or_default();
    let node = delivery.node.as_ref();
    let data = &event["data"];
    let text = |value: &Value| clean(value.as_str().unwrap_or_default());
    let time = text(&event["time"]);
    let time = time.get(11..19).unwrap_or(&time);
    if !data.is_object() || data["kind"].is_null() {
        let kind = text(&event["type"]);
        return format!("{} {} {}", paint.dim(time), paint.bold(&kind), clean(&data.to_string()));
    }
    let state = text(&data["state"]);
    let change = match text(&data["previous_state"]) {
        previous if previous.is_empty() => format!("+{state}"),
        previous if previous == state => state,
        previous => format!("{previous}→{state}"),
    };
    let revision = |of: &Value| {
        let revision = &of["data"]["kernel_revision"];
        let (tree, branch) = (text(&revision["tree"]), text(&revision["branch"]));
        (!tree.is_empty()).then(|| format!("{tree}/{branch}"))
    };
    let place = revision(data).or_else(|| node.and_then(revision)).unwrap_or_default();
    let on = match (text(&data["data"]["platform"]), text(&data["data"]["runtime"])) {
        (platform, _) if platform.is_empty() => String::new(),
        (platform, runtime) if runtime.is_empty() => format!(" on {platform}"),
        (platform, runtime) => format!(" on {platform} ({runtime})"),
    };
    let error = match text(&data["data"]["error_code"]) {
        code if code.is_empty() => String::new(),
        code => format!(" {}", paint.of("31", &code)),
    };
    format!(
        "{} {} {} {} {} {}{}{} {}",
        paint.dim(time),
        paint.of(kind_colour(&text(&data["kind"])), &format!("{:8}", text(&data["kind"]))),
        paint.bold(&format!("{:36}", text(&data["name"]))),
        format_args!("{change:19}"),
        paint.result(&text(&data["result"])),
        paint.of("36", &place),
        on,
        error,
        paint.dim(&text(&data["id"])),
    )
}

fn kind_colour(kind: &str) -> &'static str {
    match kind {
        "checkout" => "35",
        "kbuild" => "34",
        "job" => "33",
        _ => "37",
    }
}

/// Without control characters, which could make a terminal do anything.
fn clean(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).collect()
}

/// Colours, if wanted.
#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn of(self, code: &str, text: &str) -> String {
        if self.0 && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
    fn dim(self, text: &str) -> String {
        self.of("2", text)
    }
    fn bold(self, text: &str) -> String {
        self.of("1", text)
    }
    fn result(self, result: &str) -> String {
        let code = match result {
            "pass" => "32",
            "fail" => "31;1",
            "incomplete" => "33",
            _ => "2",
        };
        self.of(code, &format!("{result:10}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter_of(channel: &str, conditions: &[&str]) -> Value {
        let conditions: Vec<String> = conditions.iter().map(|text| (*text).to_owned()).collect();
        filter(channel, &conditions).unwrap()
    }

    #[test]
    fn plain_fields_are_the_nodes_and_attributes_the_events() {
        let got =
            filter_of("node", &["kind=job", "data.data.arch=arm64", "owner=lab", "result__in=fail,skip"]);
        let expected = json!({"data.kind": "job", "data.data.arch": "arm64", "owner": "lab",
            "data.result__in": ["fail", "skip"]});
        assert_eq!(got, expected);
        assert_eq!(filter_of("mine", &["kind=job"]), json!({"kind": "job"}));
    }

    #[test]
    fn values_are_json_scalars_or_text() {
        let got =
            filter_of("mine", &["a__gt=5", "b=true", "c=null", "d=\"5\"", "e=x=y", "f__re=12", "g=[1]"]);
        let expected =
            json!({"a__gt": 5, "b": true, "c": null, "d": "5", "e": "x=y", "f__re": "12", "g": "[1]"});
        assert_eq!(got, expected);
        assert!(filter("node", &["kind".to_owned()]).is_err());
        assert!(filter("node", &["a=1".to_owned(), "a=2".to_owned()]).is_err());
    }

    #[test]
    fn starts() {
        assert_eq!(start("now").unwrap(), Start::Now);
        assert_eq!(start("earliest").unwrap(), Start::Earliest);
        let position = Position { epoch: "6a13-b".into(), seq: 9 };
        assert_eq!(start("6a13-b:9").unwrap(), Start::At(position));
        let time = "2026-11-24T12:00:00".to_owned();
        assert_eq!(start(&time).unwrap(), Start::Time { time });
        assert!(start("yesterday").is_err());
    }

    #[test]
    fn lines_show_the_transition_and_no_control_characters() {
        let raw = r#"{"specversion":"1.0","id":"1","source":"s","type":"t","time":"2026-11-24T12:00:01.5+00:00",
            "data":{"kind":"job","name":"base\u001b[2Jline","state":"done","previous_state":"running","result":"pass",
            "id":"6a","data":{"platform":"qemu","kernel_revision":{"tree":"mainline","branch":"master"}}}}"#;
        let event = serde_json::from_str(raw).unwrap();
        let raw = serde_json::from_str(raw).unwrap();
        let delivery = EventDelivery { seq: 1, event, raw, node: None, ancestors: None, deliveries: None };
        let line = human_line(&delivery, Paint(false));
        assert!(line.starts_with("12:00:01 job      base[2Jline"), "{line}");
        assert!(line.contains("running→done") && line.contains("mainline/master on qemu"), "{line}");
        assert!(human_line(&delivery, Paint(true)).contains("\x1b[32mpass"));
    }
}
