//! Where the server under load is, and from which of this machine's addresses to go there.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use tokio::net::{TcpSocket, TcpStream};
use url::Url;

/// Sockets from one address to one port: Linux has 28,231 ports for it unless told otherwise.
const SOCKETS: u32 = 20_000;
/// Files that are wanted beside the sockets.
const OTHER_FILES: u64 = 64;

/// A server's address.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// `host:port`, as in HTTP's `Host`.
    pub(super) authority: String,
    /// The path of the given address.
    pub(super) path: String,
    address: SocketAddr,
    made: AtomicU32,
}

impl Endpoint {
    /// Reads an address such as `http://127.0.0.1:8001` or `redis://127.0.0.1:6379`.
    pub(super) async fn new(url: &str) -> Result<Endpoint> {
        let url = Url::parse(url).with_context(|| format!("--url {url}"))?;
        if matches!(url.scheme(), "https" | "wss" | "rediss") {
            bail!(
                "--url {url}: load goes over plain connections only; measure without the proxy that does TLS"
            );
        }
        let host = url.host_str().with_context(|| format!("--url {url}: no host"))?;
        let port = url.port_or_known_default().with_context(|| format!("--url {url}: no port"))?;
        let authority = format!("{host}:{port}");
        let address = tokio::net::lookup_host((host.trim_matches(['[', ']']), port)).await;
        let address = address.with_context(|| format!("--url {url}"))?.next();
        let address = address.with_context(|| format!("--url {url}: the name has no address"))?;
        Ok(Endpoint { authority, path: url.path().to_owned(), address, made: AtomicU32::new(0) })
    }

    /// The port.
    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    /// A connection. On loopback from 127.0.0.1, .2 and so on, since ports of one address run out.
    pub(super) async fn connect(&self) -> Result<TcpStream> {
        let made = self.made.fetch_add(1, Ordering::Relaxed);
        let source = Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + made / SOCKETS % 250);
        let stream = match self.address {
            SocketAddr::V4(address) if address.ip().is_loopback() && source != Ipv4Addr::LOCALHOST => {
                let socket = TcpSocket::new_v4()?;
                socket.bind((source, 0).into())?;
                socket.connect(self.address).await
            }
            _ => TcpStream::connect(self.address).await,
        };
        let stream = stream.with_context(|| format!("no connection to {}", self.address))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// Lets the process open so many sockets, as far as the system allows it.
pub(super) fn allow_sockets(count: usize) -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let wanted = count as u64 + OTHER_FILES;
    let now = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= wanted);
    if enough(now.current) {
        return Ok(());
    }
    // More than the hard limit only root may have, and not everywhere.
    let maximum = if enough(now.maximum) { now.maximum } else { Some(wanted) };
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).with_context(|| {
        let most = now.maximum.unwrap_or_default();
        format!("{count} sockets need {wanted} open files, and this machine allows {most} (ulimit -Hn)")
    })
}
