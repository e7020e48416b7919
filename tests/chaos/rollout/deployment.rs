//! A Deployment as its controller runs it: pods, and one rollout of them within the steps that the strategy allows.

use std::{sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::sleep};

use super::{
    chart::{Addresses, Release},
    front::Front,
    pod::{Ending, Place, Pod},
};
use crate::support::eventually;

const TICK: Duration = Duration::from_millis(50);

pub struct Deployment {
    release: Arc<Release>,
    /// One for each pod, those of the rollout too.
    places: Vec<Place>,
    /// The next place that is free.
    started: usize,
    pub pods: Vec<Pod>,
}

impl Deployment {
    /// All pods of the first generation, available.
    pub async fn start(release: Release) -> Self {
        let places = (0..2 * release.replicas).map(|_| Place::reserve()).collect();
        let mut this = Self { release: Arc::new(release), places, started: 0, pods: Vec::new() };
        for _ in 0..this.release.replicas {
            let pod = this.another().await;
            this.pods.push(pod);
        }
        eventually("all pods are available", || async { this.available(&this.pods) == this.pods.len() }).await;
        this
    }

    async fn another(&mut self) -> Pod {
        let place = &self.places[self.started];
        self.started += 1;
        Pod::start(&self.release, format!("chat-{}", self.started), place).await
    }

    /// Of all pods, those to come too.
    pub fn addresses(&self) -> Vec<Addresses> {
        self.places.iter().map(|place| place.addresses).collect()
    }

    fn available(&self, pods: &[Pod]) -> usize {
        pods.iter().filter(|pod| pod.is_ready(self.release.min_ready())).count()
    }

    /// Replaces all pods and tells the front which are ready. Returns how the old ones ended.
    pub async fn roll(&mut self, front: &mut Front) -> Vec<Ending> {
        let ((surge, unavailable), replicas) = (self.release.steps(), self.release.replicas);
        let (mut old, mut ending) = (std::mem::take(&mut self.pods), JoinSet::new());
        while !old.is_empty() || self.available(&self.pods) < replicas {
            let all = old.len() + self.pods.len();
            if self.pods.len() < replicas && all < replicas + surge {
                let pod = self.another().await;
                self.pods.push(pod);
            } else if !old.is_empty() && self.available(&old) + self.available(&self.pods) + unavailable > replicas {
                ending.spawn(old.remove(0).end(self.release.clone()));
            }
            let pods = || old.iter().chain(&self.pods);
            front.endpoints(pods().filter(|pod| pod.is_ready(Duration::ZERO)).map(|pod| pod.node.public).collect());
            for pod in pods() {
                assert_eq!(pod.restart(), None, "kubelet would restart {} for this probe", pod.name);
            }
            sleep(TICK).await;
        }
        ending.join_all().await
    }
}
