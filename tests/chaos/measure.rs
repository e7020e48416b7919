//! Figures of a run: how much went through around the fault, how soon all was well again, how long acknowledgements took.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use crate::{
    client::LOBBY,
    history::{Event, Outcome, What},
};

/// What counts as around a fault: so much before it and after it.
const BEFORE: Duration = Duration::from_secs(2);
const AFTER: Duration = Duration::from_secs(5);

pub fn acked_around(events: &[Event], (began, healed): (Duration, Duration)) -> usize {
    let around = began.saturating_sub(BEFORE)..healed + AFTER;
    let acked = |event: &&Event| matches!(&event.what, What::Answer { outcome: Outcome::Stored(_), .. });
    events.iter().filter(acked).filter(|event| around.contains(&event.at)).count()
}

/// From the end of the fault until every client has got, in each of its rooms, a message that was sent after it. `None`: that never came to be.
/// Without the lobby, where little is said.
pub fn recovery(events: &[Event], healed: Duration) -> Option<Duration> {
    let mut waiting: HashMap<&str, HashSet<usize>> = HashMap::new();
    let (mut before, mut spoken) = (HashSet::new(), HashSet::new());
    let mut last = Duration::ZERO;
    for event in events {
        match &event.what {
            What::Join { room, .. } if event.at < healed && room != LOBBY => {
                waiting.entry(room).or_default().insert(event.client);
            }
            What::Send { key, .. } if event.at < healed => {
                before.insert(key.as_str());
            }
            What::Send { room, .. } => {
                spoken.insert(room.as_str());
            }
            What::Receive { room, key, .. } if event.at >= healed && !before.contains(key.as_str()) => {
                let new = waiting.get_mut(room.as_str()).is_some_and(|waiting| waiting.remove(&event.client));
                last = if new { event.at - healed } else { last };
            }
            _ => {}
        }
    }
    let late = waiting.iter().any(|(room, waiting)| spoken.contains(room) && !waiting.is_empty());
    (!late).then_some(last)
}

/// The 99th percentile of the time to an acknowledgement, of messages that were sent within a span.
pub fn slowest_acks(events: &[Event], (from, to): (Duration, Duration)) -> Duration {
    let mut sent: HashMap<&str, Duration> = HashMap::new();
    let mut times = Vec::new();
    for event in events {
        match &event.what {
            What::Send { key, .. } if (from..to).contains(&event.at) => {
                sent.entry(key).or_insert(event.at);
            }
            What::Answer { key, outcome: Outcome::Stored(_) } => {
                times.extend(sent.remove(key.as_str()).map(|at| event.at - at));
            }
            _ => {}
        }
    }
    times.sort();
    times.get(times.len() * 99 / 100).copied().unwrap_or_default()
}

/// The most of these moments, in order, that lie within one second.
pub fn most_in_a_second(moments: &[Duration]) -> usize {
    let from = |n: usize| moments[n..].iter().take_while(|at| **at - moments[n] < Duration::from_secs(1)).count();
    (0..moments.len()).map(from).max().unwrap_or(0)
}

/// How much processor time a process had, and how long it waited for one though it could run.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    pid: u32,
    ran: f64,
    waited: f64,
}

impl Share {
    /// Until now, over the threads that it has; `None`: it has gone.
    pub fn of(pid: u32) -> Option<Self> {
        let (mut ran, mut waited) = (0.0, 0.0);
        for thread in std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
            let text = std::fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            let mut figures = text.split(' ').map(|figure| figure.parse::<f64>().unwrap_or(0.0));
            ran += figures.next().unwrap_or(0.0);
            waited += figures.next().unwrap_or(0.0);
        }
        Some(Self { pid, ran, waited })
    }

    /// What it had since then: how long it ran, and how long it waited.
    fn since(self) -> Option<(f64, f64)> {
        let now = Self::of(self.pid)?;
        Some(((now.ran - self.ran).max(0.0), (now.waited - self.waited).max(0.0)))
    }
}

/// By how much all these processes together took longer since then than on a machine that has nothing else to do; 1 or more.
pub fn slowdown(shares: &[Share]) -> f64 {
    let since: Vec<_> = shares.iter().filter_map(|share| share.since()).collect();
    let (ran, waited): (f64, f64) = since.iter().fold((0.0, 0.0), |sum, share| (sum.0 + share.0, sum.1 + share.1));
    if ran > 0.0 { 1.0 + waited / ran } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Told;

    fn event(at: u64, client: usize, what: What) -> Event {
        Event { at: Duration::from_secs(at), client, what }
    }

    fn send(at: u64, key: &str) -> Event {
        event(at, 0, What::Send { room: "r".into(), key: key.into(), n: None, ephemeral: false })
    }

    fn ack(at: u64, key: &str) -> Event {
        event(at, 0, What::Answer { key: key.into(), outcome: Outcome::Stored(None) })
    }

    fn receive(at: u64, client: usize, key: &str) -> Event {
        event(at, client, What::Receive { room: "r".into(), id: None, key: key.into(), n: None })
    }

    fn join(client: usize) -> Event {
        event(0, client, What::Join { room: "r".into(), after: None, told: Told::Nothing })
    }

    #[test]
    fn recovered_when_the_last_member_has_something_new() {
        let mut events = vec![join(0), join(1), send(1, "old"), send(11, "new"), send(12, "newer")];
        events.extend([receive(11, 0, "new"), receive(14, 1, "old"), receive(15, 1, "newer"), receive(19, 0, "newer")]);
        assert_eq!(recovery(&events, Duration::from_secs(10)), Some(Duration::from_secs(5)));
        events.retain(|event| event.client == 0);
        events.insert(0, join(1));
        assert_eq!(recovery(&events, Duration::from_secs(10)), None, "it never heard of anything");
    }

    #[test]
    fn acknowledgements_around_a_fault() {
        let events: Vec<_> = (0..20).flat_map(|at| [send(at, &at.to_string()), ack(at + 1, &at.to_string())]).collect();
        let span = (Duration::from_secs(5), Duration::from_secs(8));
        assert_eq!(acked_around(&events, span), 10, "from 3 to 12");
        assert_eq!(slowest_acks(&events, span), Duration::from_secs(1));
    }

    #[test]
    fn a_second_begins_anywhere() {
        let moments: Vec<_> = [0, 700, 900, 1500, 1600, 1900, 5000].map(Duration::from_millis).into();
        assert_eq!(most_in_a_second(&moments), 4, "from 700 on");
        assert_eq!(most_in_a_second(&[]), 0);
    }

    #[test]
    fn a_machine_does_not_run_faster_than_it_does() {
        let share = Share::of(std::process::id()).expect("it runs");
        assert!(slowdown(&[share]) >= 1.0);
        assert!(Share::of(u32::MAX).is_none());
    }
}
