//! The servers as processes of their own: chat-api, the reference, Redis. Each is gone when its guard goes.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;

use crate::{
    cpu::{self, Cores},
    crowd::PATIENCE,
};

/// Of the listener for clients, and of the one for metrics.
type Addresses = (SocketAddr, SocketAddr);

/// Between two looks at a Redis that starts.
const PAUSE: Duration = Duration::from_millis(20);

/// A server that listens.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
    /// A node's listener for metrics; of the others the same as `address`.
    pub(crate) management: SocketAddr,
}

impl Process {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Memory that it has in use now, in bytes. What the kernel keeps for its sockets is not in it.
    pub(crate) fn resident_bytes(&self) -> anyhow::Result<f64> {
        let path = format!("/proc/{}/status", self.id());
        let status = fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        let kib: f64 = line.with_context(|| format!("no resident memory in {path}"))?.parse()?;
        Ok(kib * 1024.0)
    }

    /// The reference, on the server's core, with these arguments.
    pub(crate) fn reference(arguments: [&str; 2], cores: Cores) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("reference").args(arguments);
        Self::start(command, &[cores.server], cores, plain).context("the reference")
    }

    /// The peer with one worker, on the server's core; axum's own read buffer if none is given.
    pub(crate) fn peer(program: &Path, read_buffer: Option<usize>, cores: Cores) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.env_clear().env("TOKIO_WORKER_THREADS", "1");
        if let Some(bytes) = read_buffer {
            command.arg("--read-buffer").arg(bytes.to_string());
        }
        Self::start(command, &[cores.server], cores, plain).with_context(|| program.display().to_string())
    }

    /// A node with one worker, on the server's core. Everything is as by default, but for the rates of one client, which are checked as always
    /// and never reached, and `settings`: variables that a measurement needs, `REDIS_URL` among them.
    pub(crate) fn chat_api(program: &Path, settings: &[(&str, &str)], cores: Cores) -> anyhow::Result<Self> {
        Self::chat_api_on(program, settings, &[cores.server], cores)
    }

    /// The same with a worker on each of these cores.
    pub(crate) fn chat_api_on(
        program: &Path,
        settings: &[(&str, &str)],
        workers: &[usize],
        cores: Cores,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.env_clear().env("TOKIO_WORKER_THREADS", workers.len().to_string());
        command.env("CHAT_SERVER__ADDRESS", "127.0.0.1:0").env("CHAT_SERVER__MANAGEMENT_ADDRESS", "127.0.0.1:0");
        command.env("CHAT_LOG__FORMAT", "json").env("CHAT_DRAIN__DELAY", "0s").env("CHAT_DRAIN__WINDOW", "0s");
        command.env("CHAT_LIMITS__MESSAGES_PER_SECOND", "1000000").env("CHAT_LIMITS__BYTES_PER_SECOND", "1GiB");
        command
            .env("CHAT_LIMITS__UPGRADES_PER_SECOND", "1000000")
            .env("CHAT_LIMITS__LOBBY_MESSAGES_PER_SECOND", "1000000");
        command.envs(settings.iter().copied());
        let listening = |line: &str| {
            let line: Value = serde_json::from_str(line).ok()?;
            let address = |name| line.get(name)?.as_str()?.parse().ok();
            if line.get("message")? == "listening" { Some((address("public")?, address("management")?)) } else { None }
        };
        Self::start(command, workers, cores, listening).with_context(|| program.display().to_string())
    }

    /// Starts a server and waits until it has said where it listens.
    fn start(
        mut command: Command,
        on: &[usize],
        cores: Cores,
        listening: impl Fn(&str) -> Option<Addresses> + Send + 'static,
    ) -> anyhow::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = cpu::spawn_on(on, cores.client, &mut command).context("cannot start it")?;
        let output = child.stdout.take().context("its output")?;
        let nowhere = SocketAddr::from(([0; 4], 0));
        let mut process = Self { child, address: nowhere, management: nowhere };
        (process.address, process.management) = first(output, listening)?;
        Ok(process)
    }

    /// A Redis that keeps nothing on disk, on that core.
    pub(crate) fn redis(core: usize, cores: Cores) -> anyhow::Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?; // free again by the time Redis takes it
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port"]).arg(address.port().to_string());
        command.args(["--save", "", "--appendonly", "no", "--loglevel", "warning"]);
        command.arg("--dir").arg(std::env::temp_dir());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = match cpu::spawn_on(&[core], cores.client, &mut command) {
            Ok(child) => child,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                bail!("redis-server is not installed: `make tools` installs it, `--only local` does without")
            }
            Err(error) => return Err(error).context("cannot start redis-server"),
        };
        let mut redis = Self { child, address, management: address };
        let start = Instant::now();
        while !answers(address) {
            if let Some(status) = redis.child.try_wait()? {
                bail!("redis-server ended: {status}");
            }
            if start.elapsed() > PATIENCE {
                bail!("redis-server does not answer");
            }
            thread::sleep(PAUSE);
        }
        Ok(redis)
    }
}

/// A line that is an address and nothing else.
fn plain(line: &str) -> Option<Addresses> {
    line.parse().ok().map(|address| (address, address))
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program that was named, or the one of that name beside this one.
pub(crate) fn program(named: Option<&PathBuf>, name: &str) -> anyhow::Result<PathBuf> {
    Ok(match named {
        Some(program) => program.clone(),
        None => std::env::current_exe()?.with_file_name(name),
    })
}

/// Allows this process, and the servers that it starts, so many open files. The usual soft limit is 1024.
pub(crate) fn raise_file_limit(files: u64) -> anyhow::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < files) {
        ensure!(
            maximum.is_none_or(|maximum| maximum >= files),
            "{files} open files are needed, {} are allowed: raise the limit (`ulimit -Hn`)",
            maximum.unwrap_or_default()
        );
        setrlimit(Resource::Nofile, Rlimit { current: Some(files), maximum })?;
    }
    Ok(())
}

fn answers(address: SocketAddr) -> bool {
    let ask = || -> io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"PING\r\n")?;
        let mut pong = [0; 5];
        stream.read_exact(&mut pong)?;
        Ok(&pong == b"+PONG")
    };
    ask().unwrap_or(false)
}

/// The addresses in the first line that has them. The lines behind it are read too, so that the server never waits for us to do so.
fn first(
    output: ChildStdout,
    listening: impl Fn(&str) -> Option<Addresses> + Send + 'static,
) -> anyhow::Result<Addresses> {
    let (found, addresses) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let Some(addresses) = listening(&line) {
                let _ = found.send(addresses);
            }
        }
    });
    match addresses.recv_timeout(PATIENCE) {
        Ok(addresses) => Ok(addresses),
        Err(RecvTimeoutError::Timeout) => bail!("does not listen after {PATIENCE:?}"),
        Err(RecvTimeoutError::Disconnected) => bail!("ended before it listened"),
    }
}
