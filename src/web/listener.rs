//! A listener: takes connections, bounds their number, and ends them in order.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;

use super::connection::{self, Times};
use super::quiet::Quiet;
use super::{Handler, Tls};
use crate::config::ServeConfig;
use crate::worker::Signal;

/// The connections that the operations listener serves at once.
const MAX_OPERATIONS_CONNECTIONS: usize = 64;
/// How long to wait when the system gives no more connections, for want of descriptors for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The open files that a process needs besides connections.
#[cfg(unix)]
const OTHER_FILES: u64 = 512;

/// Why nothing can be taken at an address.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}; set {setting} to an address of this machine and a port that is free")]
pub struct ListenError {
    /// The address.
    pub address: SocketAddr,
    /// The setting it came from.
    pub setting: &'static str,
    /// What the system said.
    pub source: io::Error,
}

/// How many connections a listener has. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Connections {
    free: Arc<Semaphore>,
    most: usize,
    /// Not what is missing of the free ones: the next connection has its place before it is there.
    open: Arc<AtomicUsize>,
}

/// Counts as a connection until it is dropped.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(connections: &Connections) -> Self {
        connections.open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&connections.open))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connections {
    fn new(most: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(most)), most, open: Arc::default() }
    }

    /// The connections that are served now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Whether more have to wait.
    pub fn is_full(&self) -> bool {
        self.free.available_permits() == 0
    }
}

/// An address where connections are taken. From [`Listener::public`] on they queue, until [`Listener::serve`] runs.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    connections: Connections,
    times: Times,
    tls: Option<Arc<Tls>>,
    quiet: Quiet<&'static str>,
}

impl Listener {
    /// Begins to listen for webhooks, and makes room for as many open files as connections may need.
    ///
    /// # Errors
    /// If the address is not ours or taken.
    pub async fn public(config: &ServeConfig, tls: Option<Arc<Tls>>) -> Result<Self, ListenError> {
        raise_file_limit(config.max_connections);
        Self::bind(config.listen, "`serve.listen` (--listen)", config.max_connections, config, tls).await
    }

    /// Begins to listen for operators.
    ///
    /// # Errors
    /// If the address is not ours or taken.
    pub async fn operations(config: &ServeConfig) -> Result<Self, ListenError> {
        let setting = "`serve.ops_listen` (--ops-listen)";
        Self::bind(config.ops_listen, setting, MAX_OPERATIONS_CONNECTIONS, config, None).await
    }

    async fn bind(
        address: SocketAddr,
        setting: &'static str,
        max_connections: usize,
        config: &ServeConfig,
        tls: Option<Arc<Tls>>,
    ) -> Result<Self, ListenError> {
        let failed = |source| ListenError { address, setting, source };
        let socket = TcpListener::bind(address).await.map_err(failed)?;
        let times = Times { header_timeout: config.header_timeout, idle_timeout: config.idle_timeout };
        let address = socket.local_addr().map_err(failed)?;
        let connections = Connections::new(max_connections);
        Ok(Self { socket, address, connections, times, tls, quiet: Quiet::new() })
    }

    /// The address in use; where port 0 was asked for, with the port that was given.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its connections, to be counted while it serves.
    pub fn connections(&self) -> Connections {
        self.connections.clone()
    }

    /// Serves until `stop` is set; then takes no more connections, lets requests in flight end within `grace`, and cuts
    /// what is left. Returns how many were cut.
    pub async fn serve<H: Handler>(self, handler: Arc<H>, stop: Signal, grace: Duration) -> usize {
        let mut connections = JoinSet::new();
        while let Some((stream, slot)) = self.accept(&stop).await {
            while let Some(ended) = connections.try_join_next() {
                tell_panic(ended);
            }
            let (handler, times, stop) = (Arc::clone(&handler), self.times, stop.clone());
            let tls = self.tls.clone();
            let counted = Counted::new(&self.connections);
            connections.spawn(async move {
                attend(stream, tls, handler, times, stop).await;
                drop((slot, counted));
            });
        }
        // Closes the socket: who connects now is refused at once, and may try elsewhere.
        drop(self.socket);
        let end = Instant::now() + grace;
        while let Ok(Some(ended)) = timeout_at(end, connections.join_next()).await {
            tell_panic(ended);
        }
        let cut = connections.len();
        connections.shutdown().await;
        cut
    }

    /// The next connection, once there is a place for it; `None` when `stop` is set.
    async fn accept(&self, stop: &Signal) -> Option<(TcpStream, OwnedSemaphorePermit)> {
        loop {
            if self.connections.is_full() && self.quiet.ask("full", Instant::now()).is_some() {
                tracing::warn!(connections = self.connections.most, "all connections are in use; more wait");
            }
            let slot = tokio::select! {
                biased;
                () = stop.wait() => return None,
                slot = Arc::clone(&self.connections.free).acquire_owned() => slot.ok()?,
            };
            let accepted = tokio::select! {
                biased;
                () = stop.wait() => return None,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => return Some((stream, slot)),
                // The peer went away while it was waiting.
                Err(error) if is_of_peer(&error) => {}
                Err(error) => {
                    if self.quiet.ask("accept", Instant::now()).is_some() {
                        tracing::warn!(%error, "connections cannot be taken at {}; trying again", self.address);
                    }
                    tokio::select! {
                        () = stop.wait() => return None,
                        () = sleep(ACCEPT_PAUSE) => {}
                    }
                }
            }
        }
    }
}

/// Serves one connection, through TLS where that is set.
async fn attend<H: Handler>(stream: TcpStream, tls: Option<Arc<Tls>>, handler: Arc<H>, times: Times, stop: Signal) {
    // Answers are small: waiting to fill packets would only delay them. A socket that cannot do it works, too.
    _ = stream.set_nodelay(true);
    let Some(tls) = tls else { return connection::serve(stream, handler, times, stop).await };
    let handshake = TlsAcceptor::from(tls.server()).accept(stream);
    let stream = tokio::select! {
        () = stop.wait() => return,
        stream = timeout(times.header_timeout, handshake) => stream,
    };
    match stream {
        Ok(Ok(stream)) => connection::serve(stream, handler, times, stop).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

/// A defect of this program ends one connection only, but must be seen.
fn tell_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection ended by a defect of this program");
    }
}

/// Whether an error of `accept` is about the connection that was to be accepted, not about us.
fn is_of_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Raises the soft limit of open files as far as the hard one allows, if connections may need that.
#[cfg(unix)]
fn raise_file_limit(max_connections: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let needed = max_connections as u64 + OTHER_FILES;
    let limit = getrlimit(Resource::Nofile);
    let Some(soft) = limit.current.filter(|soft| *soft < needed) else { return };
    let possible = limit.maximum.map_or(needed, |hard| hard.min(needed));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(possible), maximum: limit.maximum });
    if raised.is_err() || possible < needed {
        tracing::warn!(
            "{max_connections} connections need {needed} open files, and this process may have {}; raise the limit \
             (LimitNOFILE= of systemd, ulimit -n), or lower `serve.max_connections`",
            if raised.is_ok() { possible } else { soft },
        );
    }
}

#[cfg(not(unix))]
fn raise_file_limit(_max_connections: usize) {}
