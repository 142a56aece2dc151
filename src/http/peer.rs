//! Where a request comes from.
//!
//! What `X-Forwarded-*` or `Forwarded` say, whichever of the two our proxies write (`PROXY_HEADERS`), is believed when the
//! connection comes from a trusted proxy (`TRUSTED_PROXIES`), and from nobody else (contract D-44). The other one is what
//! the client says of itself.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::{Extensions, HeaderMap, Version, header, request::Parts};
use axum::middleware::Next;
use axum::response::Response;

use super::answer::{failed, last};
use super::headers;
use crate::app::App;
use crate::auth::own_addresses::Page;
use crate::config::{Network, ProxyHeaders};
use crate::error::{Error, Result};
use crate::ops::Peer;

/// The other end of the connection that a request came on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connected(pub(super) IpAddr);

/// Extracts the [`Peer`] of a request.
pub(super) struct From(pub(super) Arc<Peer>);

impl<S: Sync> FromRequestParts<S> for From {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<From, Infallible> {
        Ok(From(of(&parts.extensions)))
    }
}

/// Where the request with these extensions comes from.
pub(super) fn of(request: &Extensions) -> Arc<Peer> {
    request.get::<Arc<Peer>>().cloned().unwrap_or_default()
}

/// Finds out where a request comes from, for all who ask [`of`]; 400 if it does not say where it goes to.
pub(super) async fn guard(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    if let Err(error) = check_host(request.version(), request.headers()) {
        // Somebody on the way may take it for another request than we do, and what follows for a part of it.
        return last(failed("http", &error));
    }
    let connected = request.extensions().get::<Connected>();
    let connected = connected.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |Connected(address)| *address);
    let proxies = Proxies { trusted: &app.config.trusted_proxies, write: app.config.proxy_headers };
    let (address, base_url) = reached(connected, request.headers(), proxies);
    let own = &app.own_addresses;
    let page = headers::origin(request.headers()).map_or(Page::None, |origin| own.page(origin, &base_url));
    let peer = Peer { address, is_ours: own.has(&base_url), base_url, page };
    request.extensions_mut().insert(Arc::new(peer));
    next.run(request).await
}

/// 400 unless there is one `Host` that may be one (RFC 9112, 3.2).
fn check_host(version: Version, headers: &HeaderMap) -> Result<()> {
    let mut hosts = headers.get_all(header::HOST).into_iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if version < Version::HTTP_11 => Ok(()),
        (Some(one), None) if one.to_str().is_ok_and(|one| one.is_empty() || is_host(one)) => Ok(()),
        _ => Err(Error::bad_request("Host: expected one host, with a port or without")),
    }
}

/// The proxies in front of us.
#[derive(Clone, Copy)]
pub(super) struct Proxies<'a> {
    /// Who is believed.
    pub(super) trusted: &'a [Network],
    /// Where they say it.
    pub(super) write: ProxyHeaders,
}

/// The client's address, and the scheme and host by which it has reached us.
pub(super) fn reached(connected: IpAddr, headers: &HeaderMap, proxies: Proxies<'_>) -> (IpAddr, String) {
    let is_trusted = |address: IpAddr| proxies.trusted.iter().any(|network| network.contains(address));
    let (mut address, mut scheme, mut host) = (connected, None, None);
    if is_trusted(connected) {
        // From the nearest proxy outwards, up to the first hop that no proxy of ours speaks for.
        for hop in hops(headers, proxies.write).iter().rev() {
            (scheme, host) = (hop.scheme, hop.host);
            let Some(hop) = hop.address else { break };
            address = hop;
            if !is_trusted(hop) {
                break;
            }
        }
        if proxies.write == ProxyHeaders::XForwarded {
            scheme = last_of(headers, "x-forwarded-proto");
            host = last_of(headers, "x-forwarded-host");
        }
    }
    let host = host.filter(|host| is_host(host)).or_else(|| last_of(headers, header::HOST.as_str()));
    let scheme =
        if scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")) { "https" } else { "http" };
    (address, format!("{scheme}://{}", host.filter(|host| is_host(host)).unwrap_or("localhost")))
}

/// What one proxy says of whom it got the request from.
struct Hop<'a> {
    address: Option<IpAddr>,
    scheme: Option<&'a str>,
    host: Option<&'a str>,
}

/// All hops, the farthest first.
fn hops(headers: &HeaderMap, write: ProxyHeaders) -> Vec<Hop<'_>> {
    let list = |name: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).map(str::trim).collect::<Vec<_>>()
    };
    match write {
        ProxyHeaders::Forwarded => list("forwarded").into_iter().map(forwarded_hop).collect(),
        ProxyHeaders::XForwarded => {
            let hop = |text: &str| Hop { address: address(text), scheme: None, host: None };
            list("x-forwarded-for").into_iter().map(hop).collect()
        }
    }
}

fn forwarded_hop(element: &str) -> Hop<'_> {
    let mut hop = Hop { address: None, scheme: None, host: None };
    for (name, value) in element.split(';').filter_map(|pair| pair.split_once('=')) {
        let value = value.trim().trim_matches('"');
        match &*name.trim().to_ascii_lowercase() {
            "for" => hop.address = address(value),
            "proto" => hop.scheme = Some(value),
            "host" => hop.host = Some(value),
            _ => {}
        }
    }
    hop
}

/// `10.0.0.1`, `10.0.0.1:80`, `::1`, `[::1]`, `[::1]:80`.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
}

/// The last item of a list: who appends to it is nearer than who wrote what was there.
fn last_of<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let value = headers.get_all(name).into_iter().next_back()?.to_str().ok()?;
    value.rsplit(',').next().map(str::trim).filter(|text| !text.is_empty())
}

/// A host with or without a port, and nothing that would make another URL of it.
fn is_host(text: &str) -> bool {
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || ".-_:[]".contains(c));
    plain && url::Url::parse(&format!("http://{text}")).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    use ProxyHeaders::{Forwarded, XForwarded};

    fn from(write: ProxyHeaders, connected: &str, headers: &[(&'static str, &str)]) -> (String, String) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let proxies = Proxies { trusted: &trusted, write };
        let (address, base_url) = reached(connected.parse().unwrap(), &map, proxies);
        (address.to_string(), base_url)
    }

    fn is(address: &str, base_url: &str) -> (String, String) {
        (address.to_owned(), base_url.to_owned())
    }

    #[test]
    fn strangers_are_not_believed() {
        let headers = [
            ("host", "api:8001"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-host", "evil"),
            ("forwarded", "for=1.2.3.4;host=evil;proto=https"),
        ];
        for write in [XForwarded, Forwarded] {
            assert_eq!(from(write, "192.168.0.1", &headers), is("192.168.0.1", "http://api:8001"));
        }
        for host in ["evil/x@y", ":", "a:b:c", "[", "a:99999"] {
            let from = from(XForwarded, "9.9.9.9", &[("host", host)]);
            assert_eq!(from, is("9.9.9.9", "http://localhost"), "{host}");
        }
    }

    #[test]
    fn trusted_proxies_are() {
        let host = ("host", "inside");
        assert_eq!(from(Forwarded, "10.0.0.1", &[host]), is("10.0.0.1", "http://inside"));
        let forwarded = [
            host,
            ("forwarded", "for=6.6.6.6;host=evil, For=\"[2001:db8::1]:80\";Proto=https;Host=api.example.org"),
        ];
        let claimed = from(Forwarded, "10.0.0.1", &forwarded);
        assert_eq!(
            claimed,
            is("2001:db8::1", "https://api.example.org"),
            "not what the client says of itself"
        );
        let one = [host, ("forwarded", "for=7.7.7.7;proto=https;host=api.example.org")];
        assert_eq!(from(Forwarded, "10.0.0.1", &one), is("7.7.7.7", "https://api.example.org"));
        let listed = [
            host,
            ("x-forwarded-for", "6.6.6.6, 7.7.7.7, 10.0.0.9"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil, api.example.org"),
        ];
        assert_eq!(from(XForwarded, "10.0.0.1", &listed), is("7.7.7.7", "https://api.example.org"));
        let nonsense = [host, ("x-forwarded-for", "nonsense, 10.0.0.9")];
        assert_eq!(from(XForwarded, "10.0.0.1", &nonsense).0, "10.0.0.9");
        let blank = [host, ("x-forwarded-host", "a b")];
        assert_eq!(from(XForwarded, "10.0.0.1", &blank).1, "http://inside");
    }

    #[test]
    fn headers_that_the_proxy_does_not_write_are_the_clients_and_ignored() {
        let both = [
            ("host", "inside"),
            ("forwarded", "for=6.6.6.6;proto=https;host=one.example"),
            ("x-forwarded-for", "7.7.7.7"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "two.example"),
        ];
        assert_eq!(from(XForwarded, "10.0.0.1", &both), is("7.7.7.7", "http://two.example"));
        assert_eq!(from(Forwarded, "10.0.0.1", &both), is("6.6.6.6", "https://one.example"));
        assert_eq!(from(XForwarded, "10.0.0.1", &both[..2]), is("10.0.0.1", "http://inside"));
        assert_eq!(from(Forwarded, "10.0.0.1", &both[2..]), is("10.0.0.1", "http://localhost"));
    }

    #[test]
    fn a_request_names_one_host() {
        let check = |hosts: &[&str], version| {
            let mut map = HeaderMap::new();
            for host in hosts {
                map.append(header::HOST, host.parse().unwrap());
            }
            check_host(version, &map).is_ok()
        };
        for good in ["api:8001", "10.0.0.1", "[::1]:80", "a_b", ""] {
            assert!(check(&[good], Version::HTTP_11), "{good}");
        }
        for bad in [&["a", "b"][..], &["a", "a"], &["a, b"], &["a/b"], &["x@y"], &["a:99999"], &[]] {
            assert!(!check(bad, Version::HTTP_11), "{bad:?}");
        }
        assert!(check(&[], Version::HTTP_10));
    }
}
