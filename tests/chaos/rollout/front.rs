//! What stands before the pods: Debian's HAProxy with the configuration that deploy/ ships, or Debian's nginx with its default timeouts.
//!
//! HAProxy looks for itself which pods are ready. nginx is told, as an ingress controller tells it: a new list, and a reload.

use std::{
    fmt::Write as _,
    fs::File,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::{chart::Addresses, pod::Place};
use crate::support::{eventually, repository};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Haproxy,
    Nginx,
}

pub struct Front {
    pub address: SocketAddr,
    kind: Kind,
    endpoints: Vec<SocketAddr>,
    process: Child,
    folder: TempDir,
    _place: Place,
}

impl Front {
    /// `pods`: all that there will ever be; `endpoints`: those that are ready now.
    pub async fn start(kind: Kind, pods: &[Addresses], endpoints: Vec<SocketAddr>) -> Self {
        let (folder, place) = (TempDir::new().expect("a folder"), Place::reserve());
        let (address, log) = (place.addresses.public, File::create(folder.path().join("log")).expect("a file"));
        let file = folder.path().join("front.conf");
        let (program, text) = match kind {
            Kind::Haproxy => ("haproxy", haproxy(address, pods)),
            Kind::Nginx => ("nginx", nginx(address, folder.path(), &endpoints)),
        };
        std::fs::write(&file, text).expect("written");
        let mut command = Command::new(debian(program));
        match kind {
            Kind::Haproxy => command.arg("-db").arg("-f").arg(&file),
            Kind::Nginx => command.arg("-p").arg(folder.path()).arg("-e").arg("stderr").arg("-c").arg(&file),
        };
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file")).stderr(log);
        let process = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}: run `make tools`"));
        let mut this = Self { address, kind, endpoints, process, folder, _place: place };
        eventually("the front listens", || {
            let ended = this.process.try_wait().expect("a child");
            assert!(ended.is_none(), "{program}: {}", this.log());
            async move { TcpStream::connect(address).await.is_ok() }
        })
        .await;
        if kind == Kind::Haproxy {
            let down = |n: &usize| this.log().contains(&format!("/pod-{n} is DOWN"));
            let absent: Vec<_> = (0..pods.len()).filter(|n| !this.endpoints.contains(&pods[*n].public)).collect();
            eventually("HAProxy knows who is not there", || async { absent.iter().all(down) }).await;
        }
        this
    }

    /// These pods are ready now.
    pub fn endpoints(&mut self, endpoints: Vec<SocketAddr>) {
        if self.kind == Kind::Nginx && endpoints != self.endpoints {
            let text = nginx(self.address, self.folder.path(), &endpoints);
            std::fs::write(self.folder.path().join("front.conf"), text).expect("written");
            self.signal("HUP");
        }
        self.endpoints = endpoints;
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn signal(&self, signal: &str) {
        let _ = Command::new("kill").arg(format!("-{signal}")).arg(self.process.id().to_string()).status();
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        // Not a kill: nginx takes its workers with it.
        self.signal("TERM");
        let _ = self.process.wait();
        if std::thread::panicking() {
            let log = self.log();
            let last: Vec<_> = log.lines().rev().filter(|line| !line.contains(" 101 ")).take(40).collect();
            eprintln!("--- log of {:?}, newest first ---\n{}", self.kind, last.join("\n"));
        }
    }
}

/// Where Debian has it; not everybody's PATH goes there.
fn debian(program: &str) -> PathBuf {
    let path = PathBuf::from("/usr/sbin").join(program);
    if path.exists() { path } else { program.into() }
}

/// deploy/haproxy.cfg with these addresses instead of the names that a compose file gives.
fn haproxy(address: SocketAddr, pods: &[Addresses]) -> String {
    let shipped = std::fs::read_to_string(repository("deploy/haproxy.cfg")).expect("deploy/haproxy.cfg");
    let (mut text, mut servers, mut binds) = (String::new(), 0, 0);
    for line in shipped.lines() {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["bind", ":8080"] => {
                binds += 1;
                let _ = writeln!(text, "    bind {address}");
            }
            ["server", _, target] if target.ends_with(":8080") => {
                if servers == 0 {
                    for (n, Addresses { public, management }) in pods.iter().enumerate() {
                        let _ = writeln!(text, "    server pod-{n} {public} port {}", management.port());
                    }
                }
                servers += 1;
            }
            _ => text += &format!("{line}\n"),
        }
    }
    assert!((binds, servers) == (1, 3), "deploy/haproxy.cfg has {binds} addresses and {servers} servers");
    text
}

/// nginx.conf beside this file, for these pods.
fn nginx(address: SocketAddr, folder: &Path, endpoints: &[SocketAddr]) -> String {
    let servers: Vec<_> = endpoints.iter().map(|endpoint| format!("        server {endpoint};")).collect();
    let text = include_str!("nginx.conf").replace("@folder", &folder.display().to_string());
    text.replace("@address", &address.to_string()).replace("@servers", &servers.join("\n"))
}
