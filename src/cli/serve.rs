//! `kernelci-live serve`: starts the server, tells where it is, and ends it well.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::log;
use crate::app::{self, App};
use crate::auth::bootstrap::FirstAdmin;
use crate::config::Config;
use crate::error::Error;
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
    let ends = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let begun = tokio::select! {
        begun = begin(config, &listener) => begun?,
        () = ends => {
            tracing::info!("ended before it served");
            return Ok(());
        }
    };
    let (app, first_admin) = begun;
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

/// Builds the app; waits for the store, and answers meanwhile.
async fn begin(config: Config, listener: &TcpListener) -> Result<(Arc<App>, Option<FirstAdmin>)> {
    let (waiting, told) = watch::channel("the server is starting".to_owned());
    let tell = |error: &Error| {
        let why = "the store cannot be reached, or takes no writes yet; the server's log has more";
        if waiting.send_replace(why.to_owned()) != why {
            tracing::warn!(%error, "waiting for the store (STARTUP_WAIT_SECONDS)");
        }
    };
    let building = async {
        app::wait_for_store(&config, tell).await?;
        App::build(config.clone()).await
    };
    tokio::select! {
        built = building => built,
        never = http::starting::serve(listener, told) => match never {},
    }
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
