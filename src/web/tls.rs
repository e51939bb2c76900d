//! TLS for the public listener: a certificate and its key, read again when they change.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::time::sleep;

use super::certificate::not_after;
use crate::digest::Digest;
use crate::worker::Signal;

/// The most that is read of one file, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// How often the files are looked at. They are read and compared: times of files lie, and links are swapped.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Why a certificate and its key cannot be used. No message holds what is in the files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}, the {what} of the public listener; check that it exists and that you may read it", path = path.display())]
    Read {
        /// `certificate` or `key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path} holds no usable {what} (PEM); name the file that your certificate authority's tool wrote", path = path.display())]
    Content {
        /// `certificate chain` or `private key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// Key and certificate are not of the same pair, or of a kind that is not supported.
    #[error("the key {key} does not fit the certificate {certificate}; name files of the same pair", key = key.display(), certificate = certificate.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What the TLS library said.
        source: rustls::Error,
    },
    /// The TLS library refused its own settings.
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
}

/// The certificate in use, and where it comes from.
pub struct Tls {
    files: Files,
    pair: Arc<Pair>,
    /// What was in the files when they were last judged, well or badly.
    seen: Mutex<Digest>,
    /// Why the files cannot be used now, while the pair in use is an older one.
    failure: Mutex<Option<String>>,
    server: Arc<ServerConfig>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// What is shown to those who connect.
struct Pair(RwLock<Arc<CertifiedKey>>);

/// When the first certificate of a chain expires; `None` where none tells.
fn expiry(pair: &CertifiedKey) -> Option<Timestamp> {
    pair.cert.iter().filter_map(|certificate| not_after(certificate)).min()
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pair")
    }
}

impl ResolvesServerCert for Pair {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// The content of both files.
struct Content {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Content {
    fn digest(&self) -> Digest {
        let both = [*Digest::of(&self.certificate).as_bytes(), *Digest::of(&self.key).as_bytes()];
        Digest::of(both.as_flattened())
    }
}

impl Files {
    fn read(&self) -> Result<Content, TlsError> {
        Ok(Content { certificate: read("certificate", &self.certificate)?, key: read("key", &self.key)? })
    }

    fn judge(&self, content: &Content, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let chain = CertificateDer::pem_slice_iter(&content.certificate).collect::<Result<Vec<_>, _>>();
        let chain = chain.ok().filter(|chain| !chain.is_empty());
        let chain =
            chain.ok_or_else(|| TlsError::Content { what: "certificate chain", path: self.certificate.clone() })?;
        // The source is left out: it might repeat what stands in the file.
        let key = PrivateKeyDer::from_pem_slice(&content.key)
            .map_err(|_| TlsError::Content { what: "private key", path: self.key.clone() })?;
        CertifiedKey::from_der(chain, key, provider).map_err(|source| TlsError::Pair {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            source,
        })
    }
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut bytes))
        .map_err(|source| TlsError::Read { what, path: path.to_owned(), source })?;
    Ok(bytes)
}

impl Tls {
    /// Reads certificate and key. Blocks on files.
    ///
    /// # Errors
    /// If they cannot be read or do not belong together.
    pub fn load(certificate: &Path, key: &Path) -> Result<Arc<Self>, TlsError> {
        let files = Files { certificate: certificate.to_owned(), key: key.to_owned() };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let content = files.read()?;
        let pair = Arc::new(Pair(RwLock::new(Arc::new(files.judge(&content, &provider)?))));
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Pair>::clone(&pair));
        // HTTP/2 is not offered: webhooks gain nothing by it, and it would be a second set of bounds to keep.
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        let (seen, failure) = (Mutex::new(content.digest()), Mutex::default());
        Ok(Arc::new(Self { files, pair, seen, failure, server: Arc::new(server) }))
    }

    /// Reads the files again and takes the pair over if it has changed and can be used; who is connected stays so.
    /// Returns whether it was taken over. Blocks on files.
    ///
    /// # Errors
    /// If the files cannot be read or do not belong together: the pair in use stays. What is as bad as it was at the
    /// last call is no error again.
    pub fn refresh(&self) -> Result<bool, TlsError> {
        let refreshed = self.look();
        let failure = match &refreshed {
            Ok(false) => return refreshed,
            Ok(true) => None,
            Err(error) => Some(error.to_string()),
        };
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
        refreshed
    }

    fn look(&self) -> Result<bool, TlsError> {
        let content = match self.files.read() {
            Ok(content) => content,
            Err(error) => {
                return if self.is_news(Digest::of(error.to_string().as_bytes())) { Err(error) } else { Ok(false) };
            }
        };
        if !self.is_news(content.digest()) {
            return Ok(false);
        }
        let judged = self.files.judge(&content, self.server.crypto_provider())?;
        *self.pair.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(judged);
        Ok(true)
    }

    /// When the pair in use expires, or a certificate above it, whichever comes first; `None` where it does not tell.
    pub fn expires_at(&self) -> Option<Timestamp> {
        expiry(&self.pair.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Why what is in the files now cannot be used, if it cannot.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what was found, and whether it is other than before.
    fn is_news(&self, found: Digest) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *seen, found) != found
    }

    /// Looks at the files again and again, until `stop` is set.
    pub async fn watch(self: Arc<Self>, stop: Signal) {
        loop {
            tokio::select! {
                () = stop.wait() => return,
                () = sleep(LOOK_AGAIN) => {}
            }
            let tls = Arc::clone(&self);
            match tokio::task::spawn_blocking(move || tls.refresh()).await {
                Ok(Ok(true)) => {
                    let expires_at = self.expires_at().map(tracing::field::display);
                    tracing::info!(expires_at, "the certificate of the public listener was read again");
                }
                Ok(Ok(false)) => {}
                Ok(Err(error)) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(
                        error,
                        "the certificate of the public listener changed and cannot be used; the old one stays"
                    );
                }
                Err(error) => tracing::error!(%error, "reading the certificate ended by a defect of this program"),
            }
        }
    }

    /// The settings for one handshake.
    pub(super) fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls");

    /// A folder with the pair of a name as `c` and `k`.
    fn install(folder: &Path, certificate: &str, key: &str) {
        std::fs::copy(format!("{FIXTURES}/{certificate}.certificate.pem"), folder.join("c")).unwrap();
        std::fs::copy(format!("{FIXTURES}/{key}.key.pem"), folder.join("k")).unwrap();
    }

    fn shown(tls: &Tls) -> Vec<u8> {
        tls.pair.0.read().unwrap().cert[0].to_vec()
    }

    #[test]
    fn a_pair_is_taken_over_once_it_is_whole_and_told_as_bad_once() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        install(folder, "first", "first");
        let tls = Tls::load(&folder.join("c"), &folder.join("k")).unwrap();
        let first = shown(&tls);
        assert!(!tls.refresh().unwrap(), "nothing has changed");

        install(folder, "second", "first");
        assert!(matches!(tls.refresh(), Err(TlsError::Pair { .. })));
        assert!(!tls.refresh().unwrap(), "it was told");
        assert_eq!(shown(&tls), first);

        std::fs::remove_file(folder.join("k")).unwrap();
        assert!(matches!(tls.refresh(), Err(TlsError::Read { what: "key", .. })));
        assert!(!tls.refresh().unwrap(), "it was told");

        install(folder, "second", "second");
        assert!(tls.failure().is_some());
        assert!(tls.refresh().unwrap());
        assert_ne!(shown(&tls), first);
        assert_eq!(tls.failure(), None);
        assert_eq!(tls.expires_at(), Some("2126-10-30T03:44:50Z".parse().unwrap()));
        install(folder, "expired", "first");
        assert!(tls.refresh().unwrap(), "an expired one is shown all the same");
        assert_eq!(tls.expires_at(), Some("2026-01-01T12:34:56Z".parse().unwrap()));
    }

    #[test]
    fn files_that_hold_something_else_are_refused_without_showing_it() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        for (certificate, key) in [("hush", "hush"), ("", ""), ("-----BEGIN CERTIFICATE-----\nhush\n", "hush")] {
            std::fs::write(folder.join("c"), certificate).unwrap();
            std::fs::write(folder.join("k"), key).unwrap();
            let error = Tls::load(&folder.join("c"), &folder.join("k")).unwrap_err();
            assert!(matches!(error, TlsError::Content { what: "certificate chain", .. }), "{error:?}");
            assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
        }
        install(folder, "first", "first");
        std::fs::write(folder.join("k"), "-----BEGIN PRIVATE KEY-----\naHVzaA==\n-----END PRIVATE KEY-----\n").unwrap();
        let error = Tls::load(&folder.join("c"), &folder.join("k")).unwrap_err();
        assert!(matches!(error, TlsError::Pair { .. }), "{error:?}");
    }
}
