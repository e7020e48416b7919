//! The command line of each scenario, and what is wrong with it.

use std::{fs, net::IpAddr, path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use http::Uri;

use super::plan::{Pass, Plan};

/// One scenario of load on a service that runs already.
#[derive(Debug, Subcommand)]
pub(crate) enum Scenario {
    /// One room (or a few) in which one member (or a few) talks and everybody listens.
    Fanout {
        /// Of each room.
        #[arg(long, default_value_t = 1)]
        talkers: usize,
        #[command(flatten)]
        options: Options,
    },
    /// Many rooms in which all members talk.
    Rooms(Options),
    /// Sockets that only stay open.
    Idle(Options),
    /// All sockets at once, as fast as they get in or at a rate; then all leave, and again.
    Storm {
        /// How often all come.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        #[command(flatten)]
        options: Options,
    },
    /// Talk on the first URL, listen on the others: what the way between nodes takes.
    Cross(Options),
    /// Talk while the service is rolled: who was closed how and when, how long they were away, and whether they missed anything.
    Drain(Options),
    /// Talk, silence and coming and going for a long time, with a line for each interval and what has grown at the end.
    Soak {
        /// Share of the sockets that leave and come back in a minute, in percent.
        #[arg(long, default_value_t = 10.0, value_name = "PERCENT")]
        churn: f64,
        /// Between two lines.
        #[arg(long, default_value = "1m", value_parser = humantime::parse_duration)]
        interval: Duration,
        #[command(flatten)]
        options: Options,
    },
}

/// What all scenarios have.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The service, such as `ws://chat.example:8080` or `wss://…`; several: the sockets are spread over them.
    #[arg(long = "url", required = true, value_name = "URL", value_parser = url)]
    urls: Vec<String>,
    /// Path of a room's socket.
    #[arg(long, default_value = "/api/chat-api/ws/{room}")]
    path: String,
    /// Sockets in all [default: depends on the scenario].
    #[arg(long)]
    sockets: Option<usize>,
    /// Rooms; each has as many of the sockets [default: depends on the scenario].
    #[arg(long)]
    rooms: Option<usize>,
    /// What the names of the rooms begin with; the rest is new for each run.
    #[arg(long, default_value = "load")]
    room_prefix: String,
    /// Messages a second in all [default: depends on the scenario].
    #[arg(long)]
    rate: Option<f64>,
    /// Sockets opened a second in all; 0: as fast as they get in [default: 200; storm: 0].
    #[arg(long)]
    ramp: Option<f64>,
    /// How long they talk, or stay [default: 30s; drain: 2m; soak: 10m].
    #[arg(long, value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Length of a message's payload, in bytes of JSON; at least about 50.
    #[arg(long, default_value_t = 100)]
    payload_bytes: usize,
    /// Token of all sockets.
    #[arg(long, env = "CHAT_LOAD_TOKEN", hide_env_values = true, conflicts_with_all = ["token_file", "mint"])]
    token: Option<String>,
    /// File with tokens, one a line; the sockets take them in turn.
    #[arg(long, value_name = "FILE", conflicts_with = "mint")]
    token_file: Option<PathBuf>,
    /// A user and a token for each socket, minted with the service's own secret: `CHAT_AUTH__SECRET`, `CHAT_AUTH__SECRET_FILE` or `--config`.
    #[arg(long)]
    mint: bool,
    /// The service's configuration file, for `--mint`.
    #[arg(long, env = "CHAT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Plain sockets in place of sessions: no acknowledgements, no resumption; for other servers too.
    #[arg(long)]
    plain: bool,
    /// What a plain socket sends, with `{message}` for a JSON string that has to come back somewhere in a frame to each member of the room.
    #[arg(long, default_value = r#"{"payload":{message}}"#, requires = "plain")]
    frame: String,
    /// Processes with sockets; each has one thread.
    #[arg(long, default_value_t = 1)]
    processes: usize,
    /// Addresses of this machine to connect from, in turn: each has about 28,000 ports.
    #[arg(long, value_delimiter = ',', value_name = "ADDRESSES")]
    source_addresses: Vec<IpAddr>,
    /// Longest wait for a socket, an acknowledgement or the last deliveries.
    #[arg(long, default_value = "20s", value_parser = humantime::parse_duration)]
    patience: Duration,
    /// Metrics of the service, such as `http://chat-api-0:9090/metrics`: its memory and CPU are reported too.
    #[arg(long, value_name = "URL")]
    metrics: Vec<Uri>,
    /// Write the report to this file as well.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What is to be done.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) name: &'static str,
    pub(super) plan: Plan,
    pub(super) duration: Duration,
    /// Between two lines of the report; none: no lines.
    pub(super) interval: Option<Duration>,
    /// How often all sockets come and leave without talking.
    pub(super) rounds: Option<usize>,
    pub(super) metrics: Vec<Uri>,
    pub(super) json: Option<PathBuf>,
}

/// Where a scenario differs from the others.
#[derive(Clone, Copy)]
struct Shape {
    sockets: usize,
    rooms: Option<usize>,
    /// None: all.
    talkers: Option<usize>,
    rate: f64,
    ramp: f64,
    duration: Duration,
}

impl Scenario {
    /// Fails with what is wrong with the command line.
    pub(super) fn run(self) -> Result<Run, String> {
        let usual = Shape {
            sockets: 100,
            rooms: Some(20),
            talkers: None,
            rate: 50.0,
            ramp: 200.0,
            duration: Duration::from_secs(30),
        };
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        match self {
            Self::Fanout { talkers, options } => {
                options.run("fanout", Shape { rooms: Some(1), talkers: Some(talkers), rate: 10.0, ..usual })
            }
            Self::Rooms(options) => options.run("rooms", usual),
            Self::Idle(options) => {
                options.run("idle", Shape { sockets: 1000, rooms: None, talkers: Some(0), rate: 0.0, ..usual })
            }
            Self::Storm { rounds, options } => {
                let shape = Shape { sockets: 1000, rooms: None, talkers: Some(0), rate: 0.0, ramp: 0.0, ..usual };
                Ok(Run { rounds: Some(rounds.max(1)), ..options.run("storm", shape)? })
            }
            Self::Cross(options) => {
                if options.urls.len() < 2 {
                    return Err(
                        "cross needs two URLs: `--url` for the node to talk to, and another for the one to listen on"
                            .into(),
                    );
                }
                let shape = Shape { sockets: 20, rooms: Some(10), talkers: Some(1), ..usual };
                let mut run = options.run("cross", shape)?;
                if run.plan.members < 2 {
                    return Err("cross needs two sockets in each room".into());
                }
                run.plan.cross = true;
                Ok(run)
            }
            Self::Drain(options) => options.run("drain", Shape { duration: minutes(2), ..usual }),
            Self::Soak { churn, interval, options } => {
                if !(0.0..=1000.0).contains(&churn) {
                    return Err("--churn is a share in percent, 0 to 1000".into());
                }
                let mut run =
                    options.run("soak", Shape { sockets: 200, rooms: Some(40), duration: minutes(10), ..usual })?;
                run.plan.churn = run.plan.sockets() as f64 * churn / 100.0 / 60.0;
                run.interval = Some(interval.max(Duration::from_secs(1)));
                Ok(run)
            }
        }
    }
}

impl Options {
    fn run(self, name: &'static str, shape: Shape) -> Result<Run, String> {
        let sockets = self.sockets.unwrap_or(shape.sockets);
        let few = if sockets.is_multiple_of(5) { sockets / 5 } else { 1 };
        let rooms = self.rooms.unwrap_or_else(|| match shape.rooms {
            Some(rooms) if sockets.is_multiple_of(rooms) => rooms,
            Some(_) => 1,
            None => few,
        });
        if sockets == 0 || rooms == 0 || !sockets.is_multiple_of(rooms) {
            return Err(format!(
                "--sockets {sockets} is no multiple of --rooms {rooms}: all rooms have as many sockets"
            ));
        }
        let members = sockets / rooms;
        let rate = self.rate.unwrap_or(shape.rate);
        let talkers = if rate > 0.0 { shape.talkers.unwrap_or(members).min(members) } else { 0 };
        let ramp = self.ramp.unwrap_or(shape.ramp);
        if !rate.is_finite() || !ramp.is_finite() || rate < 0.0 || ramp < 0.0 {
            return Err("--rate and --ramp are numbers of 0 or more".into());
        }
        if !(1..=256).contains(&self.processes) || self.processes > sockets {
            return Err("--processes is at least 1, and at most 256 or the number of sockets".into());
        }
        if !self.path.starts_with('/') {
            return Err("--path begins with `/`".into());
        }
        if self.plain && talkers > 0 && !self.frame.contains("{message}") {
            return Err("--frame has no `{message}` in it".into());
        }
        let pass = self.pass()?;
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let plan = Plan {
            run: uuid::Uuid::new_v4().simple().to_string(),
            urls: self.urls,
            path: self.path,
            room_prefix: self.room_prefix,
            settle_ms: if self.plain && talkers > 0 { 1000 } else { 0 },
            frame: self.plain.then_some(self.frame),
            rooms,
            members,
            talkers,
            cross: false,
            rate,
            payload_bytes: self.payload_bytes,
            ramp,
            churn: 0.0,
            patience_ms: millis(self.patience),
            pass,
            sources: self.source_addresses,
            workers: self.processes,
        };
        let duration = self.duration.unwrap_or(shape.duration);
        Ok(Run { name, plan, duration, interval: None, rounds: None, metrics: self.metrics, json: self.json })
    }

    fn pass(&self) -> Result<Pass, String> {
        if self.mint {
            return Ok(Pass::Minted(self.config.clone()));
        }
        if let Some(token) = &self.token {
            return Ok(Pass::Tokens(vec![token.clone()]));
        }
        let Some(file) = &self.token_file else { return Ok(Pass::Nothing) };
        let text = fs::read_to_string(file).map_err(|error| format!("--token-file {}: {error}", file.display()))?;
        let tokens: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
        if tokens.is_empty() {
            return Err(format!("--token-file {}: there is no token in it", file.display()));
        }
        Ok(Pass::Tokens(tokens))
    }
}

/// `ws://host:port`, without a path.
fn url(text: &str) -> Result<String, String> {
    let text = text.trim_end_matches('/');
    let uri: Uri = text.parse().map_err(|error| format!("{error}"))?;
    match uri.scheme_str() {
        Some("ws" | "wss") if uri.host().is_some_and(|host| !host.is_empty()) => {}
        _ => return Err("expected `ws://host:port` or `wss://host`".into()),
    }
    if uri.path_and_query().is_some_and(|path| path.as_str() != "/") {
        return Err("expected no path behind the host: that is `--path`".into());
    }
    Ok(text.to_owned())
}
