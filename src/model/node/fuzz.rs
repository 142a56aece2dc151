//! URLs that nodes hold, as strangers write them.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::urls;
use crate::fuzz::Fuzz;

#[test]
fn any_text_is_a_url_that_stays_as_it_is_or_refused() {
    let part = select(vec![
        "http:", "https:", "//", "/", "x", "é", "%zz", "%00", "?", "#", "[", "::1", "]", "@", ":80", "..",
        "\\", " ", "data:", "0x7f.1", "xn--", "\u{ad}", "|", "a.b",
    ]);
    let grammar = vec(part, 1..9).prop_map(|parts| parts.concat());
    let long = format!("http://x/{}", "{".repeat(4000));
    Fuzz::new("URLs", 12_000)
        .corpus(["https://example.com/a?b=c#d", "HTTP://Ex.com:80/A b", &long])
        .grammar(grammar)
        .run(|input| {
            let text = String::from_utf8_lossy(input);
            let url = urls::http(&text);
            if let Ok(url) = &url {
                assert_eq!(urls::http(url).as_ref(), Ok(url));
                assert!(url.starts_with("http") && !url.contains(char::is_whitespace));
            }
            if let Ok(url) = urls::any(&text) {
                assert_eq!(urls::any(&url), Ok(url));
            }
            url.is_ok()
        });
}
