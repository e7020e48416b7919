//! stub
use crate::config;
/// stub
#[derive(Debug)]
pub struct Cluster;
/// stub
#[derive(Debug)]
pub enum ClusterEvent {
    /// stub
    DrainStarted {
        /// stub
        connections: usize,
    },
    /// stub
    DrainCompleted {
        /// stub
        closed: usize,
        /// stub
        forced: usize,
        /// stub
        seconds: f64,
    },
}
impl Cluster {
    /// stub
    pub async fn connect(_: &config::Kubernetes) -> Option<Self> {
        None
    }
    /// stub
    pub async fn event(&self, _: ClusterEvent) {}
}
/// stub
pub async fn ensure_secret(_: &str, _: &str) -> anyhow::Result<String> {
    anyhow::bail!("stub")
}
