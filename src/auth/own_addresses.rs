//! Our own addresses: under which names people reach this server, and which web pages are ours. One notion, for what
//! mailed links begin with, for pages that may send credentials, and for requests that bring secrets.
//!
//! They are known if `PUBLIC_BASE_URL` or `OWN_HOSTS` says them. Then whoever gets a browser to reach us by another
//! name (a name of theirs that leads to our address) has a foreign page. Addresses in numbers and `localhost` are always
//! ours: no page comes from there that we did not serve, since nobody else can have them lead here.

use url::{Host, Url};

use crate::config::Config;

/// Where a request comes from, as far as browsers tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// From no page: a program, or a page of ours that was only looked at.
    None,
    /// From a page of ours, or of a listed origin.
    Trusted,
    /// From another page.
    Foreign,
}

/// What the settings say of our addresses.
#[derive(Debug)]
pub struct OwnAddresses {
    /// `PUBLIC_BASE_URL`, without a slash at its end, and what it is parsed.
    public: Option<(String, Url)>,
    /// All names that are known to be ours, in lower case; empty if none is.
    hosts: Vec<String>,
    /// `ALLOWED_ORIGINS`.
    listed: Vec<String>,
}

impl OwnAddresses {
    /// From settings that have been checked.
    pub fn new(config: &Config) -> OwnAddresses {
        let parsed = |base: &String| Some((base.trim_end_matches('/').to_owned(), Url::parse(base).ok()?));
        let public = config.public_base_url.as_ref().and_then(parsed);
        let host = public.as_ref().and_then(|(_, url)| url.host_str()).map(str::to_owned);
        let further = config.own_hosts.iter().map(|host| host.0.clone());
        OwnAddresses {
            hosts: host.into_iter().chain(further).collect(),
            listed: config.allowed_origins.clone(),
            public,
        }
    }

    /// Whether a request that came to this address (`https://host[:port]`) came to one of ours; always if none is known.
    pub fn has(&self, base_url: &str) -> bool {
        match Url::parse(base_url).as_ref().map(Url::host) {
            _ if self.hosts.is_empty() => true,
            Ok(Some(Host::Ipv4(_) | Host::Ipv6(_))) => true,
            Ok(Some(Host::Domain(name))) => {
                name == "localhost"
                    || name.ends_with(".localhost")
                    || self.hosts.iter().any(|own| own == name)
            }
            _ => false,
        }
    }

    /// What links to us begin with, for somebody who has reached us at `base_url`.
    pub fn links(&self, base_url: &str) -> String {
        match (&self.public, self.hosts.first()) {
            (Some((public, _)), _) => public.clone(),
            // Nobody gets us to write a link to somewhere else.
            (None, Some(own)) if !self.has(base_url) => {
                let scheme = base_url.split_once("://").map_or("http", |(scheme, _)| scheme);
                format!("{scheme}://{own}")
            }
            _ => base_url.to_owned(),
        }
    }

    /// Whose page this is (`Origin`), in a request that came to `base_url`.
    pub fn page(&self, origin: &str, base_url: &str) -> Page {
        if self.lists(origin) || self.is_own(origin, base_url) { Page::Trusted } else { Page::Foreign }
    }

    /// Whether the origin is one of `ALLOWED_ORIGINS`.
    pub fn lists(&self, origin: &str) -> bool {
        self.listed.iter().any(|listed| listed == origin)
    }

    /// Whether any origin is listed.
    pub fn lists_any(&self) -> bool {
        !self.listed.is_empty()
    }

    fn is_own(&self, origin: &str, base_url: &str) -> bool {
        let Ok(page) = Url::parse(origin) else { return false };
        if self.public.as_ref().is_some_and(|(_, public)| public.origin() == page.origin()) {
            return true;
        }
        // Behind a proxy that takes HTTPS and does not tell, we do not know the scheme.
        let reached = base_url.split_once("://").map(|(_, host)| format!("{}://{host}", page.scheme()));
        let reached = reached.and_then(|url| Url::parse(&url).ok());
        reached.is_some_and(|url| url.origin() == page.origin()) && self.has(base_url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(public: Option<&str>, hosts: &[&str]) -> OwnAddresses {
        let public = public.map(|base| (base.to_owned(), Url::parse(base).unwrap()));
        let host = public.as_ref().and_then(|(_, url)| url.host_str()).map(str::to_owned);
        let hosts = host.into_iter().chain(hosts.iter().map(|&host| host.to_owned())).collect();
        OwnAddresses { public, hosts, listed: vec!["https://ok.example".into()] }
    }

    #[test]
    fn pages_of_the_address_that_was_reached_and_of_the_public_one_are_ours() {
        let unknown = own(None, &[]);
        let known = own(Some("https://api.example.org"), &["inside.example"]);
        for (own, origin, reached, trusted) in [
            (&unknown, "https://ok.example", "http://x", true),
            (&unknown, "http://x:8001", "http://x:8001", true),
            (&unknown, "https://X", "http://x", true),
            (&unknown, "https://x", "http://x:443", true),
            (&unknown, "http://x:8002", "http://x:8001", false),
            (&unknown, "http://y", "http://x", false),
            (&unknown, "null", "http://x", false),
            (&unknown, "file://x", "http://x", false),
            (&unknown, "", "http://x", false),
            (&known, "https://api.example.org", "http://10.0.0.7:8001", true),
            (&known, "http://api.example.org", "http://10.0.0.7:8001", false),
            (&known, "https://inside.example:8443", "http://inside.example:8443", true),
            (&known, "http://10.0.0.7:8001", "http://10.0.0.7:8001", true),
            (&known, "http://[::1]:8001", "http://[::1]:8001", true),
            (&known, "http://localhost:8001", "http://localhost:8001", true),
            (&known, "http://evil.example", "http://evil.example", false),
            (&known, "https://ok.example", "http://evil.example", true),
        ] {
            let page = own.page(origin, reached);
            assert_eq!(page == Page::Trusted, trusted, "{origin} at {reached}");
        }
    }

    #[test]
    fn links_lead_to_us_whatever_a_request_says() {
        assert_eq!(own(None, &[]).links("http://x:8001"), "http://x:8001");
        assert_eq!(own(Some("https://api.example.org"), &[]).links("http://x"), "https://api.example.org");
        let known = own(None, &["one.example", "two.example"]);
        assert_eq!(known.links("https://two.example"), "https://two.example");
        assert_eq!(known.links("https://evil.example"), "https://one.example");
    }
}
