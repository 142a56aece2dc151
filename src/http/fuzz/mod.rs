//! Forms, paths, headers and bodies of requests; whole requests are in [`requests`].

mod requests;

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderValue, header};
use bytes::Bytes;
use futures::FutureExt;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;

use super::peer::Proxies;
use super::prefix::{Target, target};
use super::{feed, files, form, peer, rest, validation};
use crate::config::ProxyHeaders;
use crate::fuzz::{Fuzz, corpus, cuts, headers};
use crate::ops::subscriptions::From as Begin;
use crate::quota::json::Shape;

/// The content type, then the body.
fn form_of(input: &[u8]) -> (HeaderMap, Bytes) {
    let at = input.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (kind, body) = input.split_at(at);
    let mut headers = HeaderMap::new();
    if let Ok(kind) = HeaderValue::from_bytes(kind) {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    (headers, Bytes::copy_from_slice(body.get(1..).unwrap_or_default()))
}

/// All of the body is there, so nothing is waited for.
fn read_form(headers: &HeaderMap, body: Bytes) -> crate::error::Result<Vec<(String, String)>> {
    form::read(headers, body).now_or_never().unwrap()
}

const MULTIPART: &str = "multipart/form-data; boundary=";

fn multipart(boundary: &str, fields: &[(String, String)]) -> String {
    let mut body = format!("{MULTIPART}{boundary}\n");
    for (name, text) in fields {
        body += &format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n");
    }
    body + &format!("--{boundary}--\r\n")
}

fn forms() -> impl Strategy<Value = String> {
    let name = select(vec!["username", "password", "scope", "é", "", "a b"]).prop_map(str::to_owned);
    let text = select(vec!["x", "", "--B", "\r\n", "\r\n--B", "a&b=c", "%41+%zz", "日本", "--B--"])
        .prop_map(str::to_owned);
    let fields = || vec((name.clone(), text.clone()), 0..5);
    let boundary = select(vec!["B", "BB", "\"B\"", "----x", ""]);
    let odd = (
        boundary,
        vec(
            select(vec![
                "--B",
                "\r\n",
                "--",
                "Content-Disposition: form-data; name=",
                "\"a\"",
                ";",
                " filename=\"f\"",
                "Content-Type: text/plain; charset=utf-16",
                ":",
                "x",
                "name*=utf-8''%c3%a9",
                "\\\"",
            ]),
            0..14,
        ),
    )
        .prop_map(|(boundary, parts)| format!("{MULTIPART}{boundary}\n{}", parts.concat()));
    prop_oneof![
        2 => fields().prop_map(|fields| multipart("B", &fields)),
        2 => odd,
        1 => fields().prop_map(|fields| format!("application/x-www-form-urlencoded\n{}",
            url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish())),
        1 => (select(vec!["a&", "a=b&", "--B\r\n", "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n\r\n"]), 0_usize..200)
            .prop_map(|(piece, times)| format!("{MULTIPART}B\n{}", piece.repeat(times))),
    ]
}

#[test]
fn any_form_is_read_as_it_was_written_or_refused() {
    let many = "a=b&".repeat(100);
    Fuzz::new("forms", 10_000)
        .corpus([
            "application/x-www-form-urlencoded\nusername=a+b&password=x%26y%3D%C3%A9",
            "multipart/form-data; boundary=B\n--B\r\nContent-Disposition: form-data; name=\"username\"\r\n\r\na b\r\n--B\r\n\
             Content-Disposition: form-data; name=\"f\"; filename=\"f\"\r\nContent-Type: text/plain\r\n\r\n1\r\n--B--\r\n",
            &format!("\n{many}"),
        ])
        .grammar(forms())
        .run(|input| {
            let (headers, body) = form_of(input);
            let fields = match read_form(&headers, body.clone()) {
                Ok(fields) => fields,
                Err(error) => {
                    assert_eq!(error.status(), 400);
                    return false;
                }
            };
            assert!(fields.len() <= form::MOST_FIELDS);
            let size: usize = fields.iter().map(|(name, text)| name.len() + text.len()).sum();
            assert!(size <= 3 * body.len(), "{size} of {}", body.len());
            // What was read is written in either way and read as the same.
            let plain = |text: &str| !text.contains(['"', '\\']) && !text.contains(char::is_control);
            let boundary = "a-boundary-that-is-in-no-field";
            let again = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&fields).finish();
            assert_eq!(read_form(&HeaderMap::new(), again.into()).ok().as_ref(), Some(&fields));
            if fields.iter().all(|(name, text)| plain(name) && !text.contains(boundary)) {
                let (headers, body) = form_of(multipart(boundary, &fields).as_bytes());
                assert_eq!(read_form(&headers, body).ok().as_ref(), Some(&fields));
            }
            // A part of a multipart body is no whole; of the other kind it is another form.
            let is_multipart = headers.get(header::CONTENT_TYPE).is_some_and(|kind| !kind.is_empty());
            let cut = cuts(input).next().unwrap_or(0) % (body.len() + 1);
            if let (true, Ok(part)) = (is_multipart, read_form(&headers, body.slice(..cut))) {
                assert!(part.len() <= fields.len() + 1);
            }
            !fields.is_empty()
        });
}

#[test]
fn any_path_leads_somewhere_and_a_redirect_stays_here() {
    let part = select(vec![
        "/",
        "//",
        "latest",
        "v0",
        "v1",
        "v0.1",
        "node",
        "..",
        ".",
        "\\",
        "@",
        "example.org",
        "é",
        "%2f",
        ":",
        "*",
    ]);
    let paths = vec(part, 0..9).prop_map(|parts| parts.concat());
    Fuzz::new("paths", 20_000)
        .corpus(["/latest/node/1", "/v0//x/", "//example.org/", "/latest/", "*"])
        .grammar(paths)
        .run(|input| {
            let Ok(path) = std::str::from_utf8(input) else { return false };
            let Ok(uri) = path.parse::<axum::http::Uri>() else { return false };
            match target(uri.path()) {
                Target::Path(path) => {
                    assert!(path.parse::<axum::http::Uri>().is_ok());
                    assert!(!path.contains("//"), "{path}");
                    assert_eq!(target(&path), Target::Path(path.clone()), "it leads there itself");
                    true
                }
                Target::Redirect(path) => {
                    assert!(
                        path.starts_with('/') && !path.starts_with("//") && !path.starts_with("/\\"),
                        "{path}"
                    );
                    assert!(HeaderValue::try_from(&path).is_ok());
                    assert!(!path.ends_with('/'));
                    true
                }
                Target::Unsupported(version) => {
                    assert!(version.starts_with('v') && version.len() <= path.len());
                    false
                }
            }
        });
}

#[test]
fn any_forwarding_header_names_an_address_and_a_harmless_url() {
    let proxy: IpAddr = "10.0.0.1".parse().unwrap();
    let stranger: IpAddr = "9.9.9.9".parse().unwrap();
    let trusted = ["10.0.0.0/8".parse().unwrap()];
    let value = select(vec![
        "for=",
        "host=",
        "proto=",
        "https",
        ";",
        ",",
        " ",
        "\"",
        "[2001:db8::1]:80",
        "10.0.0.9",
        "7.7.7.7",
        "api.example.org",
        "evil/x@y",
        "_hidden",
        "unknown",
        ":",
        "[",
        "é",
    ]);
    let name = select(vec!["Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Host"]);
    let line = (name, vec(value, 0..9)).prop_map(|(name, values)| format!("{name}: {}\n", values.concat()));
    let lines = vec(line, 0..5).prop_map(|lines| lines.concat());
    Fuzz::new("forwarding headers", 15_000)
        .corpus([
            "Host: inside\nForwarded: for=6.6.6.6;host=evil, For=\"[2001:db8::1]:80\";Proto=https;Host=api.example.org",
            "Host::",
            "Host: inside\nX-Forwarded-For: 6.6.6.6, 7.7.7.7, 10.0.0.9\nX-Forwarded-Proto: https\nX-Forwarded-Host: a, b",
        ])
        .grammar(lines)
        .run(|input| {
            let headers = headers(input);
            let mut only_host = HeaderMap::new();
            for host in headers.get_all(header::HOST) {
                only_host.append(header::HOST, host.clone());
            }
            let reached = |from: IpAddr, headers: &HeaderMap, write: ProxyHeaders| {
                peer::reached(from, headers, Proxies { trusted: &trusted, write })
            };
            let from_stranger = reached(stranger, &headers, ProxyHeaders::Forwarded);
            assert_eq!(from_stranger, (stranger, reached(stranger, &only_host, ProxyHeaders::Forwarded).1));
            let believed =
                [ProxyHeaders::Forwarded, ProxyHeaders::XForwarded].map(|write| reached(proxy, &headers, write));
            for (_, url) in believed.iter().chain([&from_stranger]) {
                let host = url.split_once("://").map(|(_, host)| host).unwrap();
                assert!(!host.is_empty() && !host.contains(['/', '@', '?', '#', '\\', ' ', '"']), "{url}");
                // Letters are mailed with it.
                let read = url::Url::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
                assert!(read.has_host() && read.path() == "/" && read.username().is_empty(), "{url}");
            }
            believed.iter().any(|(address, _)| *address != proxy)
        });
}

#[test]
fn any_body_that_is_no_json_is_told_with_its_place() {
    Fuzz::new("bodies", 10_000).corpus(corpus::messages()).corpus(["\"é\" x", "[1,\n 2 3]", "8f5b6c1"]).run(
        |input| {
            let bare = rest::is_bare(input);
            let Ok(text) = std::str::from_utf8(input) else { return false };
            match serde_json::from_str::<Value>(text) {
                Ok(_) => assert!(!bare),
                Err(error) => {
                    let error = validation::not_json(text, &error);
                    let item = &error.detail()[0];
                    let at = item["loc"][1].as_u64().unwrap();
                    assert!(at <= text.chars().count() as u64, "{item}");
                    assert!(item["ctx"]["error"].as_str().is_some_and(|reason| !reason.is_empty()));
                }
            }
            rest::parse(input, Shape::Message).is_ok()
        },
    );
}

/// `Last-Event-ID` and `from` of a feed, names of files.
#[test]
fn any_word_of_a_feed_or_a_file_is_read_or_refused() {
    let corpus = ["0123456789abcdef0123456789abcdef:7", "now", "2026-01-01T00:00:00", "a.css", "../x.png"];
    Fuzz::new("words in URLs", 20_000).corpus(corpus).run(|input| {
        let text = String::from_utf8_lossy(input);
        let from = feed::read_from(&text);
        match &from {
            Ok(Begin::Position(position)) => {
                let (epoch, seq) = text.rsplit_once(':').unwrap();
                assert_eq!((&*position.epoch, Some(position.seq)), (epoch, seq.parse().ok()));
            }
            Ok(_) => {}
            Err(error) => assert_eq!(error.status(), 400),
        }
        let plain = files::is_plain(&text, "css");
        assert!(!plain || !text.contains(['/', '\\', '\0', '%']));
        from.is_ok() || plain
    });
}
