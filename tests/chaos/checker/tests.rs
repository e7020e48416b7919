//! Runs that never were: what is right passes, and each thing that can go wrong is found under its name.

use std::time::Duration;

use super::{Kind, Promise, Verdict, check};
use crate::history::{
    Entry, Event, Logs, Outcome, START,
    Told::{self, Live, Nothing, Recovered, Reset},
    What,
};

const KEPT: Promise = Promise { log_lost: false, log_trimmed: false };
const LOST: Promise = Promise { log_lost: true, ..KEPT };
const TRIMMED: Promise = Promise { log_trimmed: true, ..KEPT };

/// Messages `k1`, `k2`, … stand at `1-1`, `1-2`, … of the room `r`; client 0 sends them, counted.
#[derive(Default)]
struct Run {
    events: Vec<Event>,
    log: Vec<Entry>,
}

fn id(seq: usize) -> String {
    if seq == 0 { START.into() } else { format!("1-{seq}") }
}

impl Run {
    fn push(mut self, client: usize, what: What) -> Self {
        self.events.push(Event { at: Duration::ZERO, client, what });
        self
    }

    fn send(self, key: &str, n: Option<u64>) -> Self {
        self.push(0, What::Send { room: "r".into(), key: key.into(), n, ephemeral: false })
    }

    fn answer(self, key: &str, outcome: Outcome) -> Self {
        self.push(0, What::Answer { key: key.into(), outcome })
    }

    fn acked(self, key: &str, id: &str) -> Self {
        self.answer(key, Outcome::Stored(Some(id.into())))
    }

    fn stored(mut self, id: &str, key: &str) -> Self {
        self.log.push(Entry { id: id.into(), key: key.into() });
        self
    }

    /// `k<from>` to `k<to>` are sent, acknowledged and stored.
    fn published(mut self, from: usize, to: usize) -> Self {
        for seq in from..=to {
            let key = format!("k{seq}");
            self = self.send(&key, Some(seq as u64)).acked(&key, &id(seq)).stored(&id(seq), &key);
        }
        self
    }

    fn join(self, client: usize, after: Option<usize>, told: Told) -> Self {
        self.push(client, What::Join { room: "r".into(), after: after.map(id), told })
    }

    fn close(self, client: usize) -> Self {
        self.push(client, What::Close { code: None })
    }

    fn get_at(self, client: usize, id: &str, key: &str, n: u64) -> Self {
        let (id, key) = (Some(id.into()), key.into());
        self.push(client, What::Receive { room: "r".into(), id, key, n: Some(n) })
    }

    fn get(mut self, client: usize, seqs: impl IntoIterator<Item = usize>) -> Self {
        for seq in seqs {
            self = self.get_at(client, &id(seq), &format!("k{seq}"), seq as u64);
        }
        self
    }

    fn judge(&self, promise: Promise) -> Verdict {
        check(&self.events, &Logs::from([("r".into(), vec![self.log.clone(), self.log.clone()])]), promise)
    }

    #[track_caller]
    fn right(&self, promise: Promise) -> Verdict {
        let verdict = self.judge(promise);
        assert!(verdict.violations.is_empty(), "{}", verdict.summary());
        verdict
    }

    #[track_caller]
    fn wrong(&self, promise: Promise, kind: Kind) -> Verdict {
        let verdict = self.judge(promise);
        assert!(verdict.kinds().contains_key(&kind), "{kind:?} is not in {}", verdict.summary());
        verdict
    }
}

/// A client that came from the start, lost its socket, and resumed.
fn resumed() -> Run {
    Run::default()
        .published(1, 9)
        .join(1, Some(0), Recovered { rollback: None })
        .get(1, 1..=4)
        .close(1)
        .join(1, Some(4), Recovered { rollback: None })
        .get(1, 5..=9)
}

#[test]
fn a_run_in_which_all_is_well() {
    let verdict = resumed().join(2, None, Live(Some(id(7)))).get(2, 8..=9).right(KEPT);
    let counts = verdict.counts;
    assert_eq!((counts.sent, counts.acked, counts.received, counts.reconnects, counts.recovered), (9, 9, 11, 1, 2));
}

#[test]
fn lost_and_stored_in_vain() {
    let run = resumed().send("k10", Some(10)).acked("k10", &id(10));
    let verdict = run.wrong(KEPT, Kind::Lost);
    assert_eq!(verdict.counts.lost, 1);
    run.wrong(LOST, Kind::Lost);
    let uncounted = resumed().send("plain", None).acked("plain", "1-10");
    uncounted.wrong(KEPT, Kind::Lost);
    assert_eq!(uncounted.right(LOST).counts.forfeited, 1);
    resumed().send("k10", Some(10)).answer("k10", Outcome::Unknown).right(KEPT);
    let refused = Run::default().send("a", None).answer("a", Outcome::Refused).stored("1-1", "a");
    refused.wrong(KEPT, Kind::Phantom);
    let once_more = refused.send("a", None).answer("a", Outcome::Unknown);
    once_more.right(KEPT);
}

#[test]
fn twice_in_the_log_or_at_a_client() {
    let twice = Run::default().published(1, 3).stored("1-4", "k2");
    assert_eq!(twice.wrong(KEPT, Kind::Duplicate).counts.duplicated, 1);
    Run::default().published(1, 3).stored("1-3", "other").wrong(KEPT, Kind::Duplicate);
    let verdict = resumed().get(1, [9]).wrong(KEPT, Kind::Duplicate);
    assert_eq!(verdict.counts.duplicated, 1);
    // The same over two sockets: the resume gave what the client had.
    let run = Run::default().published(1, 3).join(1, Some(0), Recovered { rollback: None }).get(1, 1..=2).close(1);
    run.join(1, Some(2), Recovered { rollback: None }).get(1, 2..=3).wrong(KEPT, Kind::Duplicate);
}

#[test]
fn missed_and_out_of_order() {
    let joined = || Run::default().published(1, 9).join(1, Some(0), Recovered { rollback: None });
    joined().get(1, [1, 2, 3, 5, 6, 7, 8, 9]).wrong(KEPT, Kind::Missed);
    joined().get(1, [1, 2, 4, 3, 5, 6, 7, 8, 9]).wrong(KEPT, Kind::Order);
    joined().get(1, 1..=8).wrong(KEPT, Kind::Behind);
    joined().wrong(KEPT, Kind::Behind);
    joined().get(1, 1..=9).get_at(1, "1-10", "k10", 10).wrong(KEPT, Kind::Phantom);
}

#[test]
fn the_log_has_each_senders_order() {
    let run = Run::default().send("a", None).send("b", None).stored("1-1", "b").stored("1-2", "a");
    run.wrong(KEPT, Kind::Order);
    let run = Run::default().send("a", Some(1)).send("b", Some(2)).send("c", Some(3));
    run.stored("1-1", "a").stored("1-2", "c").wrong(KEPT, Kind::Order);
    // What a lost socket left behind may come late, unless it is counted.
    let late = |n: fn(u64) -> Option<u64>| {
        let run = Run::default().push(0, What::Open).send("a", n(1)).push(0, What::Open).send("b", n(2));
        run.stored("1-1", "b").stored("1-2", "a")
    };
    late(|_| None).right(KEPT);
    late(Some).wrong(KEPT, Kind::Order);
}

#[test]
fn an_acknowledgement_says_where() {
    let run = Run::default().published(1, 2).send("a", None).acked("a", "1-7").stored("1-3", "a");
    run.wrong(KEPT, Kind::Untrue);
    let run = Run::default().published(1, 2).send("a", None).acked("a", "1-2").stored("1-3", "a");
    run.wrong(KEPT, Kind::Fork);
}

#[test]
fn leaks() {
    let foreign = What::Send { room: "other".into(), key: "secret".into(), n: None, ephemeral: false };
    let run = resumed().push(3, foreign);
    let got = |id: Option<&str>, room: &str| What::Receive {
        room: room.into(),
        id: id.map(str::to_owned),
        key: "secret".into(),
        n: None,
    };
    let named = |events: Vec<Event>| Run { events, log: resumed().log };
    named(run.events.clone()).push(1, got(Some("1-77"), "r")).wrong(KEPT, Kind::Leak);
    named(run.events.clone()).push(1, got(Some("1-1"), "other")).wrong(KEPT, Kind::Leak);
    named(run.events.clone()).push(1, got(None, "other")).wrong(KEPT, Kind::Leak);
    named(run.events).stored("1-10", "secret").wrong(KEPT, Kind::Leak);
    resumed().close(1).get(1, [9]).wrong(KEPT, Kind::Leak);
    resumed().get_at(1, "1-10", "unheard of", 1).wrong(KEPT, Kind::Phantom);
}

#[test]
fn recovered_was_not_true() {
    let run = || Run::default().published(1, 9).join(1, Some(0), Recovered { rollback: None }).get(1, 1..=4).close(1);
    run().join(1, Some(4), Recovered { rollback: None }).get(1, 7..=9).wrong(KEPT, Kind::Untrue);
    run().join(1, Some(4), Reset(id(6))).get(1, 7..=9).wrong(KEPT, Kind::Untrue);
    run().join(1, Some(4), Recovered { rollback: Some(id(2)) }).get(1, 3..=9).wrong(KEPT, Kind::Untrue);
    run().join(1, Some(4), Recovered { rollback: Some(id(4)) }).get(1, 5..=9).right(KEPT);
    // Told so in between, though nothing has changed: it goes on where it is.
    let told = || run().join(1, Some(4), Recovered { rollback: None }).get(1, 5..=6);
    told().join(1, None, Recovered { rollback: None }).get(1, 7..=9).right(KEPT);
    told().join(1, None, Recovered { rollback: None }).get(1, 8..=9).wrong(KEPT, Kind::Missed);
}

#[test]
fn plain_sockets_resume_untold() {
    let run =
        || Run::default().published(1, 9).join(1, Some(0), Nothing).get(1, 1..=4).close(1).join(1, Some(4), Nothing);
    run().get(1, 5..=9).right(KEPT);
    run().get(1, 6..=9).wrong(KEPT, Kind::Missed);
    run().get(1, 1..=9).wrong(KEPT, Kind::Duplicate);
    run().get(1, 1..=9).wrong(LOST, Kind::Duplicate);
}

/// The log forked: 4 and 5 were acknowledged and seen, then gone; they came again behind a new 4.
fn forked() -> Run {
    let mut run = Run::default().published(1, 5).join(1, Some(0), Recovered { rollback: None }).get(1, 1..=5);
    run.log.truncate(3);
    run = run.push(0, What::Gap { room: "r".into(), last_n: 3 });
    for n in 4..=5 {
        let (key, id) = (format!("k{n}"), format!("2-{n}"));
        run = run.send(&key, Some(n)).acked(&key, &id).stored(&id, &key);
    }
    run
}

fn after_the_fork(run: Run, client: usize) -> Run {
    run.get_at(client, "2-4", "k4", 4).get_at(client, "2-5", "k5", 5)
}

#[test]
fn a_fork_that_everybody_was_told_of() {
    let told = || forked().join(1, None, Recovered { rollback: Some(id(3)) });
    let verdict = after_the_fork(told(), 1).right(LOST);
    assert_eq!((verdict.counts.affected, verdict.counts.rollbacks, verdict.counts.gaps), (1, 1, 1));
    after_the_fork(forked().close(1).join(1, Some(5), Reset(id(3))), 1).right(LOST);
    after_the_fork(forked(), 1).wrong(LOST, Kind::Untold);
    after_the_fork(forked().close(1).join(1, Some(5), Recovered { rollback: None }), 1).wrong(LOST, Kind::Untrue);
    forked().wrong(LOST, Kind::Untold);
    let far = forked().join(1, None, Recovered { rollback: Some(id(2)) }).get(1, [3]);
    after_the_fork(far, 1).wrong(LOST, Kind::Untrue);
    // Somebody who was not in the lost part has nothing to be told, and something else to resume.
    let other = forked().join(1, None, Recovered { rollback: Some(id(3)) });
    let other = other.join(2, Some(0), Recovered { rollback: None }).get(2, 1..=3).close(2);
    let other = other.join(2, Some(3), Recovered { rollback: None });
    after_the_fork(after_the_fork(other, 2), 1).right(LOST);
    // One position, two messages.
    let reused = forked().join(1, None, Recovered { rollback: Some(id(3)) }).get_at(1, "1-4", "k5", 5);
    reused.wrong(LOST, Kind::Fork);
}

/// A log that was restarted names the place behind 4 anew, before anything is there.
#[test]
fn a_position_that_is_no_messages() {
    let run = || {
        let run = Run::default().published(1, 9).join(1, Some(0), Recovered { rollback: None }).get(1, 1..=4).close(1);
        run.join(2, None, Live(Some("2-4".into()))).close(2)
    };
    let resumed = |run: Run, client: usize, after: &str| {
        let after = Some(after.to_owned());
        run.push(client, What::Join { room: "r".into(), after, told: Recovered { rollback: None } })
    };
    let both = || resumed(resumed(run(), 1, &id(4)), 2, "2-4").get(1, 5..=9);
    both().get(2, 5..=9).right(KEPT);
    let another = || both().get(2, 5..=9).join(3, None, Live(Some("2-4".into())));
    another().get(3, 5..=9).right(KEPT);
    another().get(3, 6..=9).wrong(KEPT, Kind::Untrue);
}

#[test]
fn the_lost_part_had_one_order_too() {
    let mut run = Run::default().published(1, 5);
    run.log.truncate(1);
    for (client, seqs) in [(1, [1, 2, 3, 4, 5]), (2, [1, 2, 4, 3, 5])] {
        run = run.join(client, Some(0), Recovered { rollback: None }).get(client, seqs);
        run = run.join(client, None, Recovered { rollback: Some(id(1)) });
    }
    run.wrong(LOST, Kind::Order);
}

#[test]
fn a_plain_socket_starts_over_when_the_log_lost_its_position() {
    let run = forked().join(2, Some(0), Nothing).get(2, 1..=5).close(2).join(2, Some(5), Nothing).get(2, 1..=3);
    after_the_fork(run, 2).close(1).join(1, Some(5), Reset("2-5".into())).right(LOST);
}

/// Only 6 to 9 are left of the log; client 1 was there all the time.
fn trimmed() -> Run {
    let mut run = Run::default().published(1, 9).join(1, Some(0), Recovered { rollback: None }).get(1, 1..=9);
    run.log.drain(..5);
    run
}

#[test]
fn a_log_that_was_trimmed() {
    let run = || trimmed().join(2, Some(0), Recovered { rollback: None }).get(2, 1..=3).close(2);
    let page = |from: usize| What::Page {
        room: "r".into(),
        entries: (from..=8).map(|seq| Entry { id: id(seq), key: format!("k{seq}") }).collect(),
    };
    run().join(2, Some(3), Reset(id(8))).push(2, page(6)).get(2, [9]).right(TRIMMED);
    run().join(2, Some(3), Recovered { rollback: None }).get(2, 6..=9).wrong(TRIMMED, Kind::Untrue);
    run().join(2, Some(3), Reset(id(7))).push(2, page(6)).get(2, [8, 9]).wrong(TRIMMED, Kind::Missed);
    let plain = || trimmed().join(2, Some(0), Nothing).get(2, 1..=3).close(2).join(2, Some(3), Nothing);
    plain().get(2, 6..=9).right(TRIMMED);
    plain().get(2, [6, 8, 9]).wrong(TRIMMED, Kind::Missed);
    trimmed().send("k10", Some(10)).acked("k10", &id(10)).wrong(TRIMMED, Kind::Lost);
}

#[test]
fn nodes_that_differ() {
    let run = resumed();
    let mut other = run.log.clone();
    other.pop();
    let verdict = check(&run.events, &Logs::from([("r".into(), vec![run.log.clone(), other])]), KEPT);
    assert!(verdict.kinds().contains_key(&Kind::Fork), "{}", verdict.summary());
}

/// Each of a long run's deliveries, changed in each way: never unnoticed.
#[test]
fn no_single_change_goes_unnoticed() {
    let run = resumed().join(2, Some(0), Nothing).get(2, 1..=9).right(KEPT);
    assert_eq!(run.counts.received, 18);
    let events = resumed().join(2, Some(0), Nothing).get(2, 1..=9).events;
    let log = resumed().log;
    let deliveries: Vec<_> = (0..events.len()).filter(|at| matches!(events[*at].what, What::Receive { .. })).collect();
    let judge = |events: Vec<Event>| Run { events, log: log.clone() }.judge(KEPT);
    for at in deliveries {
        let mut dropped = events.clone();
        dropped.remove(at);
        let mut doubled = events.clone();
        doubled.insert(at, events[at].clone());
        let mut leaked = events.clone();
        leaked.insert(at, Event { client: 7, ..events[at].clone() });
        for changed in [dropped, doubled, leaked] {
            assert!(!judge(changed).violations.is_empty(), "{:?}", events[at]);
        }
        if matches!(events.get(at + 1), Some(Event { what: What::Receive { .. }, client, .. }) if *client == events[at].client)
        {
            let mut swapped = events.clone();
            swapped.swap(at, at + 1);
            assert!(!judge(swapped).violations.is_empty(), "{:?}", events[at]);
        }
    }
}
