//! A proxy that can stop forwarding, and end nothing: as one that has failed over, or a machine behind a broken network.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// See the module. What it has accepted lives until either end closes it.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Connections that were accepted before this are silent.
    silent_before: AtomicU64,
    accepted: AtomicU64,
    refuses: AtomicBool,
}

impl Proxy {
    /// Starts one before a server.
    pub(crate) fn start(server: impl ToSocketAddrs) -> Self {
        let server = server.to_socket_addrs().unwrap().next().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let proxy = Self { address, shared: Arc::clone(&shared) };
        // Ends with the tests' process.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.refuses.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(server) else { continue };
                let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
                let ways = [
                    (client.try_clone().unwrap(), server.try_clone().unwrap()),
                    (server.try_clone().unwrap(), client.try_clone().unwrap()),
                ];
                for (from, to) in ways {
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || forward(from, to, number, &shared));
                }
            }
        });
        proxy
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Forwards nothing more on the connections that there are; new ones are served.
    pub(crate) fn fall_silent(&self) {
        self.shared.silent_before.store(self.shared.accepted.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// Ends new connections at once, or serves them again.
    pub(crate) fn refuse(&self, refuses: bool) {
        self.shared.refuses.store(refuses, Ordering::SeqCst);
    }
}

/// Forwards one way of a connection until it ends. What comes once it is silent is lost.
fn forward(mut from: TcpStream, mut to: TcpStream, number: u64, shared: &Shared) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(length) = from.read(&mut piece)
        && length > 0
    {
        if number >= shared.silent_before.load(Ordering::SeqCst) && to.write_all(&piece[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
