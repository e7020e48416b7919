//! The files that TLS to Redis needs: authorities, and this node's own certificate and key.

use std::{fmt, path::Path};

use redis::{ClientTlsConfig, TlsCertificates};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use crate::config;

/// Why the files cannot be used: what was expected of one, and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub struct CertificateError {
    /// The configuration key to change.
    pub key: &'static str,
    problem: String,
}

/// What the files hold, known to be good. Equal if they hold the same.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Certificates {
    authorities: Option<Vec<u8>>,
    own: Option<(Vec<u8>, Vec<u8>)>,
}

impl Certificates {
    /// Reads the files that are set; small ones, so it may be called in a task.
    ///
    /// # Errors
    /// The first that is missing, no PEM, or does not fit the others.
    pub fn read(config: &config::Redis) -> Result<Self, CertificateError> {
        let authorities = config.tls_ca_file.as_deref().map(|path| read("redis.tls_ca_file", path)).transpose()?;
        let own = match (&config.tls_cert_file, &config.tls_key_file) {
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                Some((read("redis.tls_cert_file", certificate)?, read("redis.tls_key_file", key)?))
            }
            (Some(_), None) => return Err(error("redis.tls_key_file", "the key of redis.tls_cert_file, which is set")),
            (None, Some(_)) => {
                return Err(error("redis.tls_cert_file", "the certificate of redis.tls_key_file, which is set"));
            }
        };
        let certificates = Self { authorities, own };
        certificates.check()?;
        Ok(certificates)
    }

    /// The driver would find out at each connect, or take a file without a certificate for one.
    fn check(&self) -> Result<(), CertificateError> {
        let mut roots = RootCertStore::empty();
        for authority in chain("redis.tls_ca_file", self.authorities.as_deref())? {
            roots.add(authority).map_err(|problem| not_pem("redis.tls_ca_file", problem))?;
        }
        if let Some((certificate, key)) = &self.own {
            let chain = chain("redis.tls_cert_file", Some(certificate))?;
            let fits = PrivateKeyDer::from_pem_slice(key).map_err(|problem| problem.to_string()).and_then(|key| {
                let client = ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key);
                client.map_err(|problem| problem.to_string())
            });
            let expected = |problem| format!("the private key of redis.tls_cert_file in PEM form: {problem}");
            fits.map_err(|problem| error("redis.tls_key_file", expected(problem)))?;
        }
        Ok(())
    }

    /// As the driver takes them.
    pub(super) fn for_driver(&self) -> TlsCertificates {
        let own = self.own.clone();
        TlsCertificates {
            client_tls: own.map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key }),
            root_cert: self.authorities.clone(),
        }
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificates")
    }
}

fn error(key: &'static str, problem: impl Into<String>) -> CertificateError {
    CertificateError { key, problem: problem.into() }
}

fn not_pem(key: &'static str, problem: impl fmt::Display) -> CertificateError {
    error(key, format!("certificates in PEM form: {problem}"))
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, CertificateError> {
    std::fs::read(path).map_err(|problem| error(key, format!("a file that can be read: {problem}")))
}

/// The certificates in a PEM text, one at least; none if there is no text.
fn chain(key: &'static str, pem: Option<&[u8]>) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let Some(pem) = pem else { return Ok(Vec::new()) };
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|problem| not_pem(key, problem))?;
    if chain.is_empty() { Err(not_pem(key, "there is none in it")) } else { Ok(chain) }
}
