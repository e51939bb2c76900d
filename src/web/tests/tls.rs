//! Webhooks through TLS.

use std::path::Path;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::client::{Client, webhook};
use super::*;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls");
const BODY: &[u8] = b"{}";

fn install(folder: &Path, name: &str) {
    for kind in ["certificate", "key"] {
        std::fs::copy(format!("{FIXTURES}/{name}.{kind}.pem"), folder.join(kind)).unwrap();
    }
}

/// Connects as one who trusts the certificate of a name, and no other.
async fn connect(address: SocketAddr, trusted: &str) -> std::io::Result<Client<TlsStream<TcpStream>>> {
    let mut roots = RootCertStore::empty();
    let path = format!("{FIXTURES}/{trusted}.certificate.pem");
    roots.add(CertificateDer::from_pem_file(path).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    Ok(Client::over(TlsConnector::from(Arc::new(config)).connect(name, stream).await?))
}

async fn deliver(client: &mut Client<TlsStream<TcpStream>>) -> u16 {
    client.send(&webhook("default", SECRET, BODY)).await;
    client.reply().await.unwrap().status
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_connections_while_old_ones_go_on() {
    let folder = tempfile::tempdir().unwrap();
    install(folder.path(), "first");
    let tls = Tls::load(&folder.path().join("certificate"), &folder.path().join("key")).unwrap();
    let world = World::with(config(), Some(Arc::clone(&tls)), Duration::ZERO).await;
    let mut old = connect(world.address, "first").await.unwrap();
    assert_eq!(old.stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert_eq!(deliver(&mut old).await, 200);

    install(folder.path(), "second");
    assert!(tls.refresh().unwrap());
    assert!(connect(world.address, "first").await.is_err());
    assert_eq!(deliver(&mut connect(world.address, "second").await.unwrap()).await, 200);
    assert_eq!(deliver(&mut old).await, 200);

    std::fs::write(folder.path().join("certificate"), "no certificate").unwrap();
    assert!(tls.refresh().is_err());
    assert_eq!(deliver(&mut connect(world.address, "second").await.unwrap()).await, 200);
}

#[tokio::test]
async fn who_does_not_speak_tls_or_never_ends_a_handshake_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    install(folder.path(), "first");
    let tls = Tls::load(&folder.path().join("certificate"), &folder.path().join("key")).unwrap();
    let config = ServeConfig { header_timeout: Duration::from_millis(200), ..config() };
    let world = World::with(config, Some(tls), Duration::ZERO).await;
    let mut plain = Client::connect(world.address).await;
    plain.send(&webhook("default", SECRET, BODY)).await;
    assert!(plain.reply().await.is_none());
    let mut slow = Client::connect(world.address).await;
    slow.send(b"\x16\x03\x01").await;
    assert!(slow.is_closed().await);
    assert_eq!(world.kept.bodies(), []);
}
