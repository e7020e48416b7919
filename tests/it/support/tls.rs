//! Certificates of an own authority, and an HTTPS server that has one, with one answer to everything.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tempfile::TempDir;

/// Signs, and keeps what it signed in files.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

/// A certificate and its key, in files.
pub struct Certified {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA");
        let folder = TempDir::new().expect("a folder");
        std::fs::write(folder.path().join("ca.crt"), issuer.pem()).expect("written");
        Self { issuer, folder }
    }

    /// Its own certificate: whom to trust.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// For a host name or an IP address.
    pub fn certify(&self, name: &str) -> Certified {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.distinguished_name = DistinguishedName::new(); // the usual one is the authority's too
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let write = |kind: &str, pem: String| {
            let path = self.folder.path().join(format!("{name}.{kind}"));
            std::fs::write(&path, pem).expect("written");
            path
        };
        Certified { certificate: write("crt", certificate.pem()), key: write("key", key.serialize_pem()) }
    }
}

/// Serves until the test ends.
pub struct Https {
    pub address: SocketAddr,
    authority: Authority,
}

impl Https {
    /// For `localhost`, with this body as its answer.
    pub fn start(body: String) -> Self {
        let authority = Authority::new();
        let Certified { certificate, key } = authority.certify("localhost");
        let certificate = CertificateDer::from_pem_file(certificate).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(key).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let config = config.with_safe_default_protocol_versions().expect("TLS").with_no_client_auth();
        let config = Arc::new(config.with_single_cert(vec![certificate], key).expect("a pair"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let connection = ServerConnection::new(config.clone()).expect("a connection");
                let _ = answer(StreamOwned::new(connection, socket), &body); // whoever does not trust it goes away
            }
        });
        Self { address, authority }
    }

    /// Whom to trust, in a file.
    pub fn authority(&self) -> PathBuf {
        self.authority.file()
    }

    pub fn url(&self) -> String {
        format!("https://localhost:{}/keys", self.address.port())
    }
}

fn answer(mut stream: StreamOwned<ServerConnection, std::net::TcpStream>, body: &str) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        request.push(byte[0]);
    }
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())?;
    stream.conn.send_close_notify();
    stream.flush()
}
