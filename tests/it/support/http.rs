//! A plain HTTP client.

use std::net::SocketAddr;

use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, body::Bytes, client::conn::http1, header::HeaderMap};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

pub async fn get(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Answer {
    send(address, Method::GET, path, headers, String::new()).await
}

pub async fn send(address: SocketAddr, method: Method, path: &str, headers: &[(&str, &str)], body: String) -> Answer {
    let socket = TcpStream::connect(address).await.expect("the node listens");
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.expect("HTTP");
    let driver = tokio::task::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header("host", address.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response =
        sender.send_request(request.body(Full::new(Bytes::from(body))).expect("a request")).await.expect("an answer");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    driver.abort();
    Answer { status, headers, body: String::from_utf8_lossy(&body).into_owned() }
}
