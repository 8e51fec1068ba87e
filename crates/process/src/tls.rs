//! TLS for listeners: a certificate from files, or one made on the spot.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

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

type ChainAndKey = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn from_files(chain: &PathBuf, key: &PathBuf) -> Result<ChainAndKey, TlsError> {
    let wrong = |path: &PathBuf| {
        let path = path.clone();
        move |error| TlsError::File { path, error }
    };
    let certificates =
        CertificateDer::pem_file_iter(chain).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(wrong(chain))?;
    if certificates.is_empty() {
        return Err(TlsError::Empty(chain.clone()));
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
    use super::*;

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
}
