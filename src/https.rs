//! How this process connects to others over HTTP(S): one TLS stack, the machine's certificate authorities.

use std::sync::Arc;

use anyhow::Context as _;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};

/// Reads the machine's certificates only where they are needed: an image may have none.
///
/// # Errors
/// When they are needed and there are none.
pub fn connector(tls: bool) -> anyhow::Result<HttpsConnector<HttpConnector>> {
    connector_over(HttpConnector::new(), tls)
}

/// The same over connections with settings of their own, such as the address that they come from.
///
/// # Errors
/// When certificates are needed and there are none.
pub fn connector_over(mut http: HttpConnector, tls: bool) -> anyhow::Result<HttpsConnector<HttpConnector>> {
    http.enforce_http(false);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = HttpsConnectorBuilder::new();
    let builder = if tls {
        builder
            .with_provider_and_native_roots(provider)
            .context("no certificate authorities to trust: mount some and name the file in SSL_CERT_FILE")?
    } else {
        let nobody = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        builder.with_tls_config(nobody.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
    };
    Ok(builder.https_or_http().enable_http1().wrap_connector(http))
}
