//! URLs as nodes hold them: parsed and written back as browsers do (WHATWG), so that the same address is always the
//! same text (contract 2.5).

use url::Url;

/// Longest URL in characters; signed download links of storage services have about 2,000.
pub(super) const MAX_CHARS: usize = 8192;

/// Why a text is not a URL that a node may hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// Not a URL; the reason.
    Parse(String),
    /// A URL of another scheme than http and https.
    Scheme,
    /// Longer than [`MAX_CHARS`].
    Long,
}

/// The normalised form of an absolute URL of any scheme.
pub(super) fn any(text: &str) -> Result<String, Bad> {
    parse(text).map(String::from)
}

/// The normalised form of an http or https URL.
pub(super) fn http(text: &str) -> Result<String, Bad> {
    let url = parse(text)?;
    match url.scheme() {
        "http" | "https" => Ok(url.into()),
        _ => Err(Bad::Scheme),
    }
}

fn parse(text: &str) -> Result<Url, Bad> {
    if text.len() > MAX_CHARS {
        return Err(Bad::Long);
    }
    if text.is_empty() {
        return Err(Bad::Parse("input is empty".into()));
    }
    let url = Url::parse(text).map_err(|error| Bad::Parse(error.to_string()))?;
    // What is escaped becomes longer, and has to be good when it comes back.
    if url.as_str().len() > MAX_CHARS { Err(Bad::Long) } else { Ok(url) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each example of contract 2.5.
    #[test]
    fn urls_are_normalised() {
        let cases = [
            ("https://example.com", "https://example.com/"),
            ("HTTP://Ex.com:80/A b", "http://ex.com/A%20b"),
            ("https://x:443/a", "https://x/a"),
            ("http://x\\a\\b", "http://x/a/b"),
            ("http://x/a/../b/./c", "http://x/b/c"),
            ("http://x/{}\"<>`|^", "http://x/%7B%7D%22%3C%3E%60|^"),
            ("http://\u{fc}.de/", "http://xn--tda.de/"),
            (" http://a \n", "http://a/"),
            ("http:h", "http://h/"),
            ("http://x/%2B+", "http://x/%2B+"),
        ];
        for (given, stored) in cases {
            assert_eq!(http(given).as_deref(), Ok(stored), "{given}");
            assert_eq!(http(stored).as_deref(), Ok(stored), "normalising twice changes nothing: {given}");
        }
    }

    #[test]
    fn what_is_not_a_url_is_refused() {
        let parse = |reason: &str| Err(Bad::Parse(reason.to_owned()));
        assert_eq!(http("http://"), parse("empty host"));
        assert_eq!(http("http://a:99999"), parse("invalid port number"));
        assert_eq!(http("nope"), parse("relative URL without a base"));
        assert_eq!(http(""), parse("input is empty"));
        assert_eq!(http("ftp://x/y"), Err(Bad::Scheme));
        assert_eq!(http("javascript:alert(1)"), Err(Bad::Scheme));
        assert_eq!(http(&format!("http://x/{}", "a".repeat(MAX_CHARS))), Err(Bad::Long));
        let half = "{".repeat(MAX_CHARS / 2);
        assert_eq!(http(&format!("http://x/{half}")), Err(Bad::Long), "with what it is escaped to");
    }

    #[test]
    fn repositories_may_have_other_schemes_but_must_be_absolute() {
        for url in ["ssh://git@x/y.git", "git://x/y", "file:///srv/linux"] {
            assert_eq!(any(url).as_deref(), Ok(url));
        }
        assert_eq!(any("git@host:x"), Err(Bad::Parse("relative URL without a base".into())));
    }
}
