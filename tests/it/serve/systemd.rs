//! What a service manager hears, on a socket as systemd's.

use std::os::unix::net::UnixDatagram;

use super::*;

/// The next thing that is said and is no mere sign of life.
fn next(socket: &UnixDatagram, alive: &mut u32) -> String {
    let mut buffer = [0; 1024];
    loop {
        let length = socket.recv(&mut buffer).unwrap();
        let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
        if text != "WATCHDOG=1" {
            return text;
        }
        *alive += 1;
    }
}

#[test]
fn a_service_manager_hears_when_it_is_ready_alive_reloading_and_stopping() {
    let world = world();
    let path = world.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_mins(2))).unwrap();
    let mut command = Serve::command(&world);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
    let serve = Serve::start_with(&world, command);
    let mut alive = 0;
    assert_eq!(next(&socket, &mut alive), "READY=1");
    serve.process.hang_up();
    let reloading = next(&socket, &mut alive);
    let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap_or_else(|| panic!("{reloading}"));
    assert!(time.parse::<u64>().unwrap() > 0);
    assert_eq!(next(&socket, &mut alive), "READY=1");
    let before = alive;
    let mut buffer = [0; 1024];
    for _ in 0..3 {
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"WATCHDOG=1");
    }
    serve.process.terminate();
    assert_eq!(next(&socket, &mut alive), "STOPPING=1");
    assert!(alive >= before);
    let ended = serve.process.wait();
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    world.check(&ended);
}
