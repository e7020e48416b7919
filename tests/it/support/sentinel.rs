//! Sentinels that watch a master: redis-server processes with a configuration of their own, which they rewrite.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use super::{
    Redis, eventually,
    redis::{command, free_port},
};

/// The name under which they know the master.
pub const MASTER: &str = "chat";

pub struct Sentinels {
    _folder: TempDir,
    processes: Vec<Child>,
    pub addresses: Vec<SocketAddr>,
}

impl Sentinels {
    /// Three over `master` and its one replica; they fail over when two of them have missed the master for a second.
    pub async fn start(master: &Redis) -> Self {
        let ports = [free_port(), free_port(), free_port()];
        let sentinels = Self::launch(master.address().port(), ports.map(|port| (port, format!("port {port}"))), 2);
        eventually("each sentinel knows the replica and the other two", || sentinels.complete()).await;
        sentinels
    }

    /// One over the master at a port, listening as its settings say; nobody is asked whether it is up.
    pub fn alone(master: u16, port: u16, settings: String) -> Self {
        Self::launch(master, [(port, settings)], 1)
    }

    fn launch(master: u16, members: impl IntoIterator<Item = (u16, String)>, quorum: u32) -> Self {
        let folder = TempDir::new().expect("a folder");
        let (mut processes, mut addresses) = (Vec::new(), Vec::new());
        for (port, listening) in members {
            let file = folder.path().join(format!("{port}.conf"));
            let settings = format!(
                "{listening}\nbind 127.0.0.1\ndir {}\nlogfile \"\"\n\
                 sentinel monitor {MASTER} 127.0.0.1 {master} {quorum}\n\
                 sentinel down-after-milliseconds {MASTER} 1000\n\
                 sentinel failover-timeout {MASTER} 5000\n",
                folder.path().display(),
            );
            std::fs::write(&file, settings).expect("the folder can be written");
            let child = Command::new("redis-server").arg(&file).arg("--sentinel").stdout(Stdio::null()).spawn();
            processes.push(child.expect("redis-server is installed: run `make tools`"));
            addresses.push(SocketAddr::from(([127, 0, 0, 1], port)));
        }
        Self { _folder: folder, processes, addresses }
    }

    async fn complete(&self) -> bool {
        for address in &self.addresses {
            let Ok(reply) = command(*address, &["SENTINEL", "MASTER", MASTER]).await else { return false };
            let words: Vec<_> = reply.lines().filter(|line| !line.starts_with(['$', '*'])).collect();
            let value = |name| words.iter().position(|word| *word == name).and_then(|at| words.get(at + 1)).copied();
            if value("num-slaves") != Some("1") || value("num-other-sentinels") != Some("2") {
                return false;
            }
        }
        true
    }

    /// Where they say that the master is, if they agree.
    pub async fn master(&self) -> Option<SocketAddr> {
        let mut found = Vec::new();
        for address in &self.addresses {
            let reply = command(*address, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]).await.ok()?;
            let words: Vec<_> = reply.lines().filter(|line| !line.starts_with(['$', '*'])).collect();
            found.push(format!("{}:{}", words.first()?, words.get(1)?).parse::<SocketAddr>().ok()?);
        }
        found.iter().all(|address| *address == found[0]).then(|| found[0])
    }
}

impl Drop for Sentinels {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
