//! Many webhooks at once, and clients that trickle beside them: nothing is lost, nobody is harmed, memory is bounded.
//! How fast that may go is measured by `benches/webhooks`.

use std::io::{ErrorKind, Write as _};
use std::net::{SocketAddr, TcpStream};

use super::*;

/// The most that the service may have resident.
const LIMIT_KIB: u64 = 150 << 10;

/// A client that sends a head or a body byte by byte.
struct Slow(TcpStream);

impl Slow {
    /// Connects, and sends how one of three kinds begins: a head, a body, and a body of which much comes at once.
    fn start(kind: usize, address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        let head = "POST /webhooks/default HTTP/1.1\r\nhost: test\r\n";
        let first = match kind % 3 {
            0 => format!("{head}x-slow: "),
            1 => format!("{head}content-length: 8192\r\n\r\n"),
            _ => format!("{head}content-length: 1048576\r\n\r\n{}", "x".repeat(64 << 10)),
        };
        stream.write_all(first.as_bytes()).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        Self(stream)
    }

    /// Sends a byte, and listens for a moment; gives whether the service has cut it off.
    fn is_cut(&mut self) -> bool {
        if self.0.write_all(b"x").is_err() {
            return true;
        }
        match self.0.peek(&mut [0]) {
            Ok(_) => true,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "`--nocapture` shows what was measured")]
fn a_crowd_of_slow_clients_is_cut_off_while_others_are_served_and_nothing_is_lost() {
    let world = world();
    let times = "header_timeout = \"3s\"\nmin_body_rate = \"256 KiB\"\n";
    world.settings(&SERVE.replace("[serve]\n", &format!("[serve]\n{times}")));
    let mail = events(1500, 1, (10, 2000));
    let serve = Serve::start(&world);
    let sender = serve.sender();
    let mut crowd: Vec<Slow> = (0..200).map(|number| Slow::start(number, sender.address())).collect();
    let accepted = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (took, refused) = post_at_once(sender, &mail, &accepted);
            assert_eq!((took.len(), refused.len()), (mail.len(), 0), "others came to harm");
        });
        until("all slow clients are cut off", || {
            crowd.retain_mut(|one| !one.is_cut());
            crowd.is_empty()
        });
    });
    until_archived(&world.archive(), &ids(&mail));
    let (_, metrics) = serve.ask("/metrics");
    let counted = format!("jellyjar_webhooks_total{{team=\"default\",result=\"accepted\"}} {}\n", mail.len());
    assert!(metrics.contains(&counted), "{counted} is not among the metrics:\n{metrics}");
    let ended = serve.stop(&world);
    eprintln!("200 slow clients, {} webhooks: {} KiB at most", mail.len(), ended.peak_kib);
    assert!((1..LIMIT_KIB).contains(&ended.peak_kib), "{} KiB", ended.peak_kib);
    is_archived_once(&world, &mail);
}
