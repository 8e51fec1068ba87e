//! TLS for listeners: a certificate from files, or one made on the spot.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};

use crate::config::Mistakes;

/// Where a listener's certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Certificate {
    /// PEM files: the chain, leaf first, and its private key.
    Files {
        /// The certificate chain.
        chain: PathBuf,
        /// The private key: PKCS#8, PKCS#1 or SEC1.
        key: PathBuf,
    },
    /// Made now, gone with the process. Browsers give a page a microphone only over TLS (or on localhost), so this
    /// is what lets a phone try a development server; it must be accepted by hand and authenticates nobody.
    SelfSigned {
        /// DNS names and IP addresses under which the server will be called.
        names: Vec<String>,
    },
}

/// TLS of a listener, as configured; without any key, plain HTTP.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct TlsConfig {
    /// PEM file with the certificate chain, leaf first.
    pub certificate: Option<PathBuf>,
    /// PEM file with its private key.
    pub key: Option<PathBuf>,
    /// Names and addresses for a certificate made at the start, instead of the files.
    pub self_signed: Vec<String>,
}

impl TlsConfig {
    /// Where the certificate comes from; `None` for plain HTTP. `key` is where these keys stand in the file.
    pub fn build(&self, key: &str, mistakes: &mut Mistakes) -> Option<Certificate> {
        match (&self.certificate, &self.key, self.self_signed.as_slice()) {
            (None, None, []) => None,
            (Some(chain), Some(key), []) => Some(Certificate::Files { chain: chain.clone(), key: key.clone() }),
            (None, None, names) => Some(Certificate::SelfSigned { names: names.to_vec() }),
            (Some(_), None, []) => {
                mistakes.push(format!("{key}.key"), "a certificate needs its key");
                None
            }
            (None, Some(_), []) => {
                mistakes.push(format!("{key}.certificate"), "a key needs its certificate");
                None
            }
            (_, _, _) => {
                mistakes.push(format!("{key}.selfSigned"), "files are given already; choose one");
                None
            }
        }
    }
}

/// Why there is no TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing, unreadable or not PEM.
    #[error("cannot read {}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: rustls::pki_types::pem::Error,
    },
    /// The certificate file holds no certificate.
    #[error("{} holds no certificate", .0.display())]
    Empty(PathBuf),
    /// Certificate and key do not belong together, or rustls cannot use them.
    #[error("cannot use the certificate: {0}")]
    Unusable(#[from] rustls::Error),
    /// No self-signed certificate could be made, as for a name that is none.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

/// A server configuration for this certificate: TLS 1.2 and 1.3, HTTP/1.1, no client certificates.
///
/// # Errors
/// If the files cannot be used, or no certificate can be made.
pub fn server_config(certificate: &Certificate) -> Result<Arc<ServerConfig>, TlsError> {
    crate::crypto::install();
    let (chain, key) = match certificate {
        Certificate::Files { chain, key } => from_files(chain, key)?,
        Certificate::SelfSigned { names } => self_signed(names)?,
    };
    let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    // The listeners speak HTTP/1.1 only (see `serve`), and say so before a browser tries more.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// How often the files of a certificate are looked at. Whoever renews one does so weeks before it runs out.
const LOOK: Duration = Duration::from_secs(10);

/// As [`server_config`], of files that may be replaced: connections that are made from then on get the new certificate, and
/// those that are there go on with theirs.
///
/// # Errors
/// If the files cannot be used.
pub fn renewable(chain: &Path, key: &Path) -> Result<(Arc<ServerConfig>, Renewal), TlsError> {
    crate::crypto::install();
    let files = Files { chain: chain.to_owned(), key: key.to_owned() };
    let read = files.read()?;
    let current = Arc::new(Current(RwLock::new(Arc::new(read.certified()?))));
    let mut config = ServerConfig::builder().with_no_client_auth().with_cert_resolver(current.clone());
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((Arc::new(config), Renewal { files, read, current }))
}

/// The certificate that new connections get.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().clone())
    }
}

/// What keeps a certificate as its files are.
#[derive(Debug)]
pub struct Renewal {
    files: Files,
    /// What is served.
    read: Read,
    current: Arc<Current>,
}

/// Whether there was anything new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewed {
    /// Another certificate is served from now on.
    Yes,
    /// The files say what they said.
    No,
}

#[derive(Debug, Clone)]
struct Files {
    chain: PathBuf,
    key: PathBuf,
}

/// A chain and its key, as the files had them.
struct Read {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl fmt::Debug for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Read").field("certificates", &self.chain.len()).finish_non_exhaustive()
    }
}

impl Files {
    fn read(&self) -> Result<Read, TlsError> {
        let (chain, key) = from_files(&self.chain, &self.key)?;
        Ok(Read { chain, key })
    }
}

impl Read {
    /// Certificate and key, which have to belong together.
    fn certified(&self) -> Result<CertifiedKey, TlsError> {
        let provider = CryptoProvider::get_default().ok_or(rustls::Error::General("no cryptography".to_owned()))?;
        Ok(CertifiedKey::from_der(self.chain.clone(), self.key.clone_key(), provider)?)
    }
}

impl Renewal {
    /// Reads the files and serves what they say, if that is new and can be used.
    ///
    /// # Errors
    /// What is wrong with them; what was served is served on.
    pub fn renew(&mut self) -> Result<Renewed, TlsError> {
        let read = self.files.read()?;
        if read.chain == self.read.chain && read.key == self.read.key {
            return Ok(Renewed::No);
        }
        *self.current.0.write() = Arc::new(read.certified()?);
        self.read = read;
        Ok(Renewed::Yes)
    }

    /// Looks again and again, until it is dropped. What is wrong is logged once; two files that are being replaced one after
    /// the other do not fit for a moment.
    pub async fn follow(mut self) {
        let mut told = None;
        loop {
            tokio::time::sleep(LOOK).await;
            let looked = tokio::task::spawn_blocking(move || {
                let renewed = self.renew();
                (self, renewed)
            });
            // Only a runtime that ends loses it.
            let Ok((renewal, renewed)) = looked.await else { return };
            self = renewal;
            match renewed {
                Ok(Renewed::No) => {}
                Ok(Renewed::Yes) => {
                    told = None;
                    tracing::info!(chain = %self.files.chain.display(), "another certificate is served");
                }
                Err(error) => {
                    let text = error.to_string();
                    if told.as_ref() != Some(&text) {
                        tracing::error!(error = text, "the certificate stays as it was");
                        told = Some(text);
                    }
                }
            }
        }
    }
}

type ChainAndKey = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn from_files(chain: &Path, key: &Path) -> Result<ChainAndKey, TlsError> {
    let wrong = |path: &Path| {
        let path = path.to_owned();
        move |error| TlsError::File { path, error }
    };
    let certificates =
        CertificateDer::pem_file_iter(chain).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(wrong(chain))?;
    if certificates.is_empty() {
        return Err(TlsError::Empty(chain.to_owned()));
    }
    Ok((certificates, PrivateKeyDer::from_pem_file(key).map_err(wrong(key))?))
}

fn self_signed(names: &[String]) -> Result<ChainAndKey, TlsError> {
    let made = rcgen::generate_simple_self_signed(names)?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    Ok((vec![made.cert.der().clone()], key.into()))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::serve::{Listener, ServeLimits};

    fn files(chain: &str, key: &str) -> (Certificate, PathBuf) {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("streamfleet-tls-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("chain.pem"), chain).unwrap();
        std::fs::write(folder.join("key.pem"), key).unwrap();
        (Certificate::Files { chain: folder.join("chain.pem"), key: folder.join("key.pem") }, folder)
    }

    #[test]
    fn self_signed_for_names_and_addresses() {
        let names = ["localhost", "192.0.2.1", "::1"].map(str::to_owned).to_vec();
        let config = server_config(&Certificate::SelfSigned { names }).unwrap();
        assert_eq!(config.alpn_protocols, [b"http/1.1".to_vec()]);
    }

    #[test]
    fn files_are_read_and_their_faults_named() {
        let one = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let two = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (one_cert, one_key, two_key) =
            (one.cert.pem(), one.signing_key.serialize_pem(), two.signing_key.serialize_pem());
        let check = |chain: &str, key: &str, expected: &str| {
            let (certificate, folder) = files(chain, key);
            let outcome = server_config(&certificate).map_or_else(|error| error.to_string(), |_| "good".to_owned());
            std::fs::remove_dir_all(folder).unwrap();
            assert!(outcome.contains(expected), "{outcome} instead of {expected}");
        };
        check(&one_cert, &one_key, "good");
        check(&one_cert, &two_key, "cannot use the certificate");
        check("", &one_key, "holds no certificate");
        check(&one_cert, "", "cannot read");
        check("-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n", &one_key, "cannot read");
        let gone = Certificate::Files { chain: "/nonexistent/a".into(), key: "/nonexistent/b".into() };
        assert!(server_config(&gone).unwrap_err().to_string().starts_with("cannot read /nonexistent/a"));
    }

    /// A client that trusts one certificate, and what it gets for a request.
    async fn ask(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin)) -> std::io::Result<String> {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await?;
        let mut head = [0; 15];
        stream.read_exact(&mut head).await?;
        // The rest of the answer stays where it is: what comes next is not read.
        Ok(String::from_utf8_lossy(&head).into_owned())
    }

    async fn connect(at: SocketAddr, trusted: &CertificateDer<'static>) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(trusted.clone()).unwrap();
        let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let name = "localhost".try_into().unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(at).await?).await
    }

    #[tokio::test]
    async fn a_certificate_is_replaced_under_connections() {
        let make = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (one, two) = (make(), make());
        let (certificate, folder) = files(&one.cert.pem(), &one.signing_key.serialize_pem());
        let Certificate::Files { chain, key } = certificate else { panic!("{certificate:?}") };
        let (config, mut renewal) = renewable(&chain, &key).unwrap();
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap().with_tls(config);
        let at = listener.address();
        let routes = axum::Router::new().route("/", axum::routing::get(async || ""));
        let stop = CancellationToken::new();
        let served = listener.serve(routes, ServeLimits::default(), stop.clone(), Duration::ZERO);
        let serving = tokio::task::JoinSet::from_iter([served]);
        let mut old = connect(at, one.cert.der()).await.unwrap();
        assert_eq!(ask(&mut old).await.unwrap(), "HTTP/1.1 200 OK");
        assert_eq!(renewal.renew().unwrap(), Renewed::No);

        std::fs::write(&chain, two.cert.pem()).unwrap();
        assert!(renewal.renew().is_err(), "the key is still the other one's");
        connect(at, one.cert.der()).await.unwrap();
        std::fs::write(&key, two.signing_key.serialize_pem()).unwrap();
        assert_eq!(renewal.renew().unwrap(), Renewed::Yes);
        assert!(connect(at, one.cert.der()).await.is_err());
        assert_eq!(ask(&mut connect(at, two.cert.der()).await.unwrap()).await.unwrap(), "HTTP/1.1 200 OK");
        ask(&mut old).await.expect("who was there is served on");

        std::fs::write(&chain, "nonsense").unwrap();
        assert!(renewal.renew().unwrap_err().to_string().contains("chain.pem"));
        connect(at, two.cert.der()).await.unwrap();
        drop(serving);
        std::fs::remove_dir_all(folder).unwrap();
    }

    /// A Secret is mounted as links to files in a folder that is itself a link, which is replaced: what the paths lead to changes, and
    /// neither path does.
    #[test]
    fn a_mounted_secret_is_followed() {
        use std::os::unix::fs::symlink;
        crate::crypto::install();
        let make = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let folder = std::env::temp_dir().join(format!("streamfleet-tls-mounted-{}", std::process::id()));
        let write = |version: &str| {
            let made = make();
            std::fs::create_dir_all(folder.join(version)).unwrap();
            std::fs::write(folder.join(version).join("tls.crt"), made.cert.pem()).unwrap();
            std::fs::write(folder.join(version).join("tls.key"), made.signing_key.serialize_pem()).unwrap();
            symlink(version, folder.join("..new")).unwrap();
            std::fs::rename(folder.join("..new"), folder.join("..data")).unwrap();
            made.cert.der().clone()
        };
        let first = write("..2026_01_01");
        for file in ["tls.crt", "tls.key"] {
            symlink(format!("..data/{file}"), folder.join(file)).unwrap();
        }
        let (_, mut renewal) = renewable(&folder.join("tls.crt"), &folder.join("tls.key")).unwrap();
        let served = |renewal: &Renewal| renewal.current.0.read().cert[0].clone();
        assert_eq!((renewal.renew().unwrap(), served(&renewal)), (Renewed::No, first));
        let second = write("..2026_02_01");
        std::fs::remove_dir_all(folder.join("..2026_01_01")).unwrap();
        assert_eq!((renewal.renew().unwrap(), served(&renewal)), (Renewed::Yes, second.clone()));
        // A volume that is gone for a moment changes nothing.
        std::fs::remove_file(folder.join("..data")).unwrap();
        assert!(renewal.renew().is_err());
        assert_eq!(served(&renewal), second);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
