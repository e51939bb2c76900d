//! What systemd wants to hear of a service of `Type=notify` (`sd_notify(3)`): datagrams to a socket that the environment
//! names. Written by hand, as the environment is read in one place only.

use std::io;
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tracing::warn;

use super::Pulse;
use crate::config::Environment;

/// The way to the service manager; without one, telling it does nothing.
#[derive(Debug)]
pub struct Systemd {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Systemd {
    /// Takes what the environment says: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`.
    pub fn from_environment(environment: &Environment) -> Self {
        let socket = environment.path("NOTIFY_SOCKET").and_then(|path| {
            let opened = address(path.as_os_str().as_bytes()).and_then(|address| {
                let socket = UnixDatagram::unbound()?;
                // A manager that does not read must not hold the service up.
                socket.set_nonblocking(true)?;
                Ok((socket, address))
            });
            opened.inspect_err(|error| warn!(%error, "the service manager cannot be told how it is")).ok()
        });
        let number = |name| environment.text(name).ok().flatten().and_then(|text| text.trim().parse::<u64>().ok());
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|us| *us > 0 && is_ours && socket.is_some());
        Self { socket, watchdog: watchdog.map(Duration::from_micros) }
    }

    /// Whether there is a service manager to tell.
    pub fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    /// The service can be used.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The configuration is being read again; [`Systemd::ready`] ends that.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let us = now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1_000);
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={us}"));
    }

    /// The service is about to end.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// One line on how it is, for `systemctl status`.
    pub fn status(&self, line: &str) {
        self.send(&format!("STATUS={}", line.replace('\n', " ")));
    }

    /// Shows signs of life as often as the manager wants them, as long as every part of the service does. Returns only
    /// if the manager wants none.
    pub async fn watch(&self, pulse: &Pulse) {
        let Some(within) = self.watchdog else { return };
        let mut turn = tokio::time::interval(within / 2);
        loop {
            turn.tick().await;
            if pulse.is_alive() {
                self.send("WATCHDOG=1");
            }
        }
    }

    fn send(&self, state: &str) {
        let Some((socket, address)) = &self.socket else { return };
        if let Err(error) = socket.send_to_addr(state.as_bytes(), address) {
            warn!(%error, "the service manager cannot be told how it is");
        }
    }
}

/// A path, or a name in the abstract namespace, which begins with `@`.
fn address(name: &[u8]) -> io::Result<SocketAddr> {
    match name {
        #[cfg(target_os = "linux")]
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest),
        [b'/', ..] => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name)),
        _ => Err(io::Error::other("NOTIFY_SOCKET is neither a path nor an abstract name")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 1024];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    fn manager(more: &[(&str, &str)]) -> (tempfile::TempDir, UnixDatagram, Systemd) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let pairs = more.iter().copied().chain([("NOTIFY_SOCKET", path.to_str().unwrap())]);
        let systemd = Systemd::from_environment(&Environment::from_pairs(pairs));
        (folder, socket, systemd)
    }

    #[test]
    fn each_state_is_one_datagram() {
        let (_folder, socket, systemd) = manager(&[]);
        systemd.ready();
        assert_eq!(received(&socket), "READY=1");
        systemd.status("3 teams\nREADY=0");
        assert_eq!(received(&socket), "STATUS=3 teams READY=0");
        systemd.reloading();
        let reloading = received(&socket);
        let us = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(us.parse::<u64>().unwrap() > 0);
        systemd.stopping();
        assert_eq!(received(&socket), "STOPPING=1");
    }

    #[test]
    fn a_name_in_the_abstract_namespace_is_reached_too() {
        let name = format!("jellyjar-test-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let environment = Environment::from_pairs([("NOTIFY_SOCKET", format!("@{name}"))]);
        Systemd::from_environment(&environment).ready();
        assert_eq!(received(&socket), "READY=1");
    }

    #[tokio::test]
    async fn the_watchdog_is_fed_only_while_every_part_is_alive() {
        let (_folder, socket, systemd) = manager(&[("WATCHDOG_USEC", "2000")]);
        let pulse = Pulse::default();
        let beat = pulse.expect("worker", Duration::from_hours(1));
        tokio::select! {
            () = systemd.watch(&pulse) => panic!("it ended"),
            text = tokio::task::spawn_blocking(move || received(&socket)) => assert_eq!(text.unwrap(), "WATCHDOG=1"),
        }
        drop(beat);

        let (_folder, socket, systemd) = manager(&[("WATCHDOG_USEC", "2000")]);
        let _late = pulse.expect("worker", Duration::ZERO);
        assert!(tokio::time::timeout(Duration::from_millis(50), systemd.watch(&pulse)).await.is_err());
        socket.set_nonblocking(true).unwrap();
        assert_eq!(socket.recv(&mut [0; 16]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[tokio::test]
    async fn without_a_manager_or_its_wish_nothing_happens() {
        let none = Systemd::from_environment(&Environment::from_pairs([("WATCHDOG_USEC", "2000")]));
        assert!(!none.is_there());
        none.ready();
        none.watch(&Pulse::default()).await;
        for more in [&[][..], &[("WATCHDOG_USEC", "0")], &[("WATCHDOG_USEC", "2000"), ("WATCHDOG_PID", "1")]] {
            let (_folder, _socket, systemd) = manager(more);
            systemd.watch(&Pulse::default()).await;
        }
        let odd = Systemd::from_environment(&Environment::from_pairs([("NOTIFY_SOCKET", "vsock:2:1234")]));
        assert!(!odd.is_there());
    }
}
