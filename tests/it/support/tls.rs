//! An HTTPS server with a certificate of its own authority, and one answer to everything.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ServerConfig, ServerConnection, StreamOwned, crypto::aws_lc_rs, pki_types::PrivateKeyDer};
use tempfile::NamedTempFile;

/// Serves until the test ends.
pub struct Https {
    pub address: SocketAddr,
    /// Whom to trust, in a file.
    pub authority: NamedTempFile,
}

impl Https {
    /// For `localhost`, with this body as its answer.
    pub fn start(body: String) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA");
        let key = KeyPair::generate().expect("a key");
        let certificate = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        let certificate = certificate.signed_by(&key, &authority).expect("a certificate");
        let file = NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), authority.pem()).expect("written");

        let private = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let config = config.with_safe_default_protocol_versions().expect("TLS").with_no_client_auth();
        let config = Arc::new(config.with_single_cert(vec![certificate.der().clone()], private).expect("a pair"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let connection = ServerConnection::new(config.clone()).expect("a connection");
                let _ = answer(StreamOwned::new(connection, socket), &body); // whoever does not trust it goes away
            }
        });
        Self { address, authority: file }
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
