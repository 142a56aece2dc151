//! Good inputs: what the documentation shows.

use serde_json::Value;

/// Stands for the id of something.
pub(crate) const ID: &str = "68f0aa11bb22cc33dd44ee55";
const EPOCH: &str = "0123456789abcdef0123456789abcdef";

/// The steps of all examples in the documentation.
fn steps() -> Vec<Value> {
    let examples: Value = serde_json::from_str(include_str!("../../web/examples.json")).unwrap();
    let examples = examples.as_array().unwrap().iter();
    examples.flat_map(|example| example["steps"].as_array().unwrap().clone()).collect()
}

/// Something in the place of what an example leaves open.
fn filled(text: &str) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, name)) = rest.split_once('<') {
        let Some((name, behind)) = name.split_once('>') else { break };
        filled.push_str(before);
        filled.push_str(if name == "epoch" { EPOCH } else { ID });
        rest = behind;
    }
    filled + rest
}

/// What sessions send.
pub(crate) fn messages() -> Vec<String> {
    let sent = steps().into_iter().filter_map(|step| Some(filled(&step.get("send")?.to_string())));
    sent.chain([r#"{"jsonrpc":"2.0","id":null,"method":"node.count"}"#.to_owned()]).collect()
}

/// What servers send.
pub(crate) fn answers() -> Vec<String> {
    steps().into_iter().filter_map(|step| Some(filled(&step.get("receive")?.to_string()))).collect()
}

/// HTTP requests, as they go over the wire; with `token`, if the example has one.
pub(crate) fn requests(token: &str) -> Vec<String> {
    let mut requests = Vec::new();
    for step in steps() {
        let Some(request) = step.get("request") else { continue };
        let text = |name: &str| request[name].as_str().unwrap_or_default();
        let mut lines =
            vec![format!("{} {} HTTP/1.1", text("method"), filled(text("path"))), "Host: x".into()];
        for (name, value) in request["headers"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().replace("<token>", token);
            lines.push(format!("{name}: {}", filled(&value)));
        }
        let form = request["form"].as_object().map(|form| {
            let fields = form.iter().map(|(name, value)| (name, value.as_str().unwrap_or_default()));
            url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
        });
        let kind = if form.is_some() { "application/x-www-form-urlencoded" } else { "application/json" };
        let body = form.or_else(|| request.get("json").map(|body| filled(&body.to_string())));
        if let Some(body) = &body {
            lines.extend([format!("Content-Type: {kind}"), format!("Content-Length: {}", body.len())]);
        }
        requests.push(format!("{}\r\n\r\n{}", lines.join("\r\n"), body.unwrap_or_default()));
    }
    requests
}

#[test]
fn the_examples_are_found() {
    assert!(messages().len() > 10 && answers().len() > 10 && requests("x").len() > 10);
    assert!(messages().iter().all(|message| crate::rpc::read(message).is_ok() && !message.contains('<')));
}
