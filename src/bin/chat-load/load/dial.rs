//! Opening a socket: which address from and to, with what token, and what is said to a refusal.

use std::{collections::HashMap, fmt, net::IpAddr, time::Duration};

use anyhow::Context as _;
use chat_api::{
    auth,
    config::{self, Auth, Config},
    https,
};
use http::{HeaderMap, HeaderValue, Uri, header};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Error, client::IntoClientRequest as _, handshake::client::Request, protocol::WebSocketConfig},
};
use tower::ServiceExt as _;

use super::plan::{Pass, Plan};

/// A socket, over TLS or not.
pub(super) type Socket = WebSocketStream<TokioIo<MaybeHttpsStream<TokioIo<TcpStream>>>>;

/// Per socket: there are many, and their messages are small.
const READ_BUFFER: usize = 4096;
/// How long a minted token counts, at most.
const TOKEN_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// See the module.
pub(super) struct Dialler {
    /// One for each address to connect from.
    connectors: Vec<HttpsConnector<HttpConnector>>,
    /// For tokens that are minted.
    auth: Option<Auth>,
    patience: Duration,
}

/// Why there is no socket.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Answered over HTTP.
    Http { status: u16, code: String, detail: String, retry_after: Option<Duration> },
    /// Below HTTP.
    Unreachable(String),
    /// No token to show.
    Token(String),
    /// No answer in time.
    Silent,
}

impl Refusal {
    /// Whether it is of use to try again.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Http { status, .. } => matches!(status, 429 | 500..),
            Self::Unreachable(_) | Self::Silent => true,
            Self::Token(_) => false,
        }
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        if let Self::Http { retry_after, .. } = self { *retry_after } else { None }
    }

    /// What it is counted as.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Http { status, code, .. } => format!("{status} {code}").trim_end().to_owned(),
            Self::Unreachable(text) => text.clone(),
            Self::Token(_) => "no token".to_owned(),
            Self::Silent => "no answer in time".to_owned(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { status: 404, detail, .. } => {
                write!(f, "404: no chat at this path (`--path` names another one) {detail}")
            }
            Self::Http { status: 401, detail, .. } => {
                write!(f, "401: give `--token`, `--token-file` or `--mint`: {detail}")
            }
            Self::Http { status, code, detail, .. } => write!(f, "{status} {code}: {detail}"),
            Self::Unreachable(text) | Self::Token(text) => f.write_str(text),
            Self::Silent => f.write_str("no answer in time"),
        }
    }
}

impl Dialler {
    pub(super) fn new(plan: &Plan) -> anyhow::Result<Self> {
        let tls = plan.urls.iter().any(|url| url.starts_with("wss:"));
        let patience = Duration::from_millis(plan.patience_ms);
        let connector = |source: Option<IpAddr>| {
            let mut http = HttpConnector::new();
            http.set_local_address(source);
            http.set_nodelay(true);
            https::connector_over(http, tls)
        };
        let connectors = if plan.sources.is_empty() {
            vec![connector(None)?]
        } else {
            plan.sources.iter().map(|source| connector(Some(*source))).collect::<Result<_, _>>()?
        };
        let auth = match &plan.pass {
            Pass::Minted(file) => {
                let config = Config::load(file.as_deref(), config::environment());
                Some(config.context("tokens are minted with the service's own configuration")?.auth)
            }
            _ => None,
        };
        Ok(Self { connectors, auth, patience })
    }

    /// Upgrades a socket, or its successor after so many losses, with the position from which it takes its room up.
    pub(super) async fn dial(
        &self,
        plan: &Plan,
        socket: usize,
        losses: usize,
        after: Option<&str>,
    ) -> Result<Socket, Refusal> {
        let url = plan.urls.get(plan.url_of(socket, losses)).map_or("", String::as_str);
        let (request, uri) =
            self.request(plan, url, socket, after).map_err(|error| Refusal::Token(format!("{error:#}")))?;
        let open = async {
            let source = plan.source_of(socket);
            let connector = self.connectors.get(source).cloned().ok_or(Refusal::Silent)?;
            let stream = connector.oneshot(uri).await.map_err(|error| Refusal::Unreachable(root(&*error)))?;
            let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER).write_buffer_size(0);
            match client_async_with_config(request, TokioIo::new(stream), Some(config)).await {
                Ok((socket, _)) => Ok(socket),
                Err(Error::Http(answer)) => Err(refused(answer.status().as_u16(), answer.headers(), answer.body())),
                Err(error) => Err(Refusal::Unreachable(error.to_string())),
            }
        };
        timeout(self.patience, open).await.unwrap_or(Err(Refusal::Silent))
    }

    fn request(&self, plan: &Plan, url: &str, socket: usize, after: Option<&str>) -> anyhow::Result<(Request, Uri)> {
        let path = plan.path.replace("{room}", &plan.room_name(plan.room_of(socket)));
        let query = after.map(|id| format!("?after={id}")).unwrap_or_default();
        let mut request = format!("{url}{path}{query}").into_client_request()?;
        if plan.frame.is_none() {
            request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("chat.v1"));
        }
        if let Some(token) = self.token(&plan.pass, socket)? {
            let value = HeaderValue::try_from(format!("Bearer {token}")).context("no token has such characters")?;
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        // `ws` and `wss` are unknown to whoever connects.
        Ok((request, format!("http{}", url.strip_prefix("ws").unwrap_or_default()).parse()?))
    }

    fn token(&self, pass: &Pass, socket: usize) -> anyhow::Result<Option<String>> {
        Ok(match (pass, &self.auth) {
            (Pass::Tokens(tokens), _) => tokens.get(socket % tokens.len().max(1)).cloned(),
            (_, Some(auth)) => {
                Some(auth::mint(auth, &format!("load-{socket}"), TOKEN_TTL.min(auth.max_token_age), None)?)
            }
            _ => None,
        })
    }
}

fn refused(status: u16, headers: &HeaderMap, body: &Option<Vec<u8>>) -> Refusal {
    let problem: HashMap<String, Value> =
        body.as_deref().and_then(|body| serde_json::from_slice(body).ok()).unwrap_or_default();
    let text = |name: &str| problem.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let seconds = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    Refusal::Http { status, code: text("code"), detail: text("detail"), retry_after: seconds.map(Duration::from_secs) }
}

/// What lies at the bottom of an error: "connection refused" rather than "client error".
fn root(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
