//! `kernelci-live serve`: starts the server, tells where it is, and ends it well.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};

use super::log;
use crate::app::App;
use crate::auth::bootstrap::FirstAdmin;
use crate::config::Config;
use crate::ops::channels;
use crate::quota::descriptors;
use crate::{background, http, purge};

/// Runs until Ctrl-C or SIGTERM, or until something has broken without which it would only seem to run.
pub(super) async fn run(config: Config) -> Result<()> {
    let ended = tokio::select! {
        ended = serve(config) => ended,
        broken = background::broken() => bail!("{broken}"),
    };
    // What ends because something else has broken says that.
    match &ended {
        Err(_) => match tokio::time::timeout(Duration::from_millis(100), background::broken()).await {
            Ok(broken) => bail!("{broken}"),
            Err(_) => ended,
        },
        Ok(()) => ended,
    }
}

async fn serve(mut config: Config) -> Result<()> {
    log::start(&config)?;
    config.secrets.read()?;
    config.check()?;
    descriptors::make_room(&mut config.quotas);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let listener =
        listen(config.listen).with_context(|| format!("cannot listen on {} (LISTEN)", config.listen))?;
    let (app, first_admin) = App::build(config).await?;
    greet(&app, &listener, first_admin.as_ref())?;

    tracing::info!("serving");

    purge::spawn(&app);
    let log = app.log.clone();
    background::spawn("channels", async move { channels::tell_of_strangers(&*log).await });
    let server = background::spawn("connections", http::serve(listener, app.clone()));
    tokio::select! {
        _ = interrupt.recv() => tracing::info!("interrupted: draining sessions"),
        _ = terminate.recv() => tracing::info!("terminated: draining sessions"),
    }
    let abort = server.abort_handle();
    let requests = async { drop(server.await) };
    tokio::select! {
        () = app.shut_down(requests) => {}
        _ = interrupt.recv() => tracing::warn!("interrupted again: not waiting for sessions"),
    }
    abort.abort();
    tracing::info!("ended");
    Ok(())
}

/// Connections that may wait to be accepted, as far as the kernel allows (`net.core.somaxconn`): whoever comes behind
/// them has to ask again, a second later.
const BACKLOG: u32 = 4_096;

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Tells on standard output where everything is; the first admin's generated password is told here and nowhere else.
fn greet(app: &App, listener: &TcpListener, first_admin: Option<&FirstAdmin>) -> Result<()> {
    let address = listener.local_addr()?;
    let facts = app.store.facts();
    let mut out = std::io::stdout().lock();
    writeln!(out, "kernelci-live {} on {}", env!("CARGO_PKG_VERSION"), facts.kind)?;
    writeln!(out, "  dashboard  http://{address}/")?;
    writeln!(out, "  docs       http://{address}/latest/docs")?;
    writeln!(out, "  websocket  ws://{address}/latest/ws")?;
    if !facts.atomic_hierarchies {
        writeln!(out, "  note       MongoDB is a standalone server: writes of several nodes are not atomic")?;
    }
    if let Some(admin) = first_admin {
        match &admin.generated_password {
            Some(password) => {
                writeln!(out, "  admin      {} with password {password} (shown only now)", admin.username)?;
            }
            None => {
                writeln!(out, "  admin      {} with the password of KCI_INITIAL_PASSWORD", admin.username)?
            }
        }
    }
    out.flush()?;
    Ok(())
}
