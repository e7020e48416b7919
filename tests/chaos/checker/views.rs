//! Each client's way through each room: what it was told, and what it then got.

use std::collections::{HashMap, HashSet};

use super::{Kind, Promise, Verdict, log::Log, sends::Sends};
use crate::history::{Entry, Event, START, Told, What};

/// What a client saw right before a message, and the message.
#[derive(Debug)]
pub(super) struct Step<'a> {
    pub(super) prev: &'a str,
    pub(super) key: &'a str,
}

/// By room and id: as whoever saw it first saw it.
pub(super) type Successions<'a> = HashMap<&'a str, HashMap<&'a str, Step<'a>>>;

/// Where a client is in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place<'a> {
    /// In no socket.
    #[default]
    Outside,
    /// Whatever comes first is right.
    Anywhere,
    /// Right behind a message that it got.
    Behind(&'a str),
    /// Right behind a position that it was told.
    Told(&'a str),
    /// It asked for what is behind a position, and was told nothing.
    Asked(&'a str),
}

impl<'a> Place<'a> {
    /// Where it is once it was told something.
    fn told(self, after: Option<&'a str>, told: &'a Told) -> Self {
        match (told, after) {
            (Told::Live(Some(id)) | Told::Reset(id) | Told::Recovered { rollback: Some(id) }, _) => Self::Told(id),
            (Told::Recovered { rollback: None }, Some(after)) => Self::Told(after),
            (Told::Recovered { rollback: None }, None) => self, // unasked: it goes on
            (Told::Nothing, Some(after)) => Self::Asked(after),
            (Told::Live(None) | Told::Nothing, _) => Self::Anywhere,
        }
    }

    /// A position that is proven.
    fn known(self) -> Option<&'a str> {
        match self {
            Self::Behind(id) | Self::Told(id) => Some(id),
            Self::Outside | Self::Anywhere | Self::Asked(_) => None,
        }
    }
}

/// Collects what clients saw following what.
pub(super) fn successions(events: &[Event]) -> Successions<'_> {
    let mut seen = Successions::new();
    let mut places: HashMap<usize, HashMap<&str, Place<'_>>> = HashMap::new();
    for event in events {
        let rooms = places.entry(event.client).or_default();
        match &event.what {
            What::Close { .. } => rooms.clear(),
            What::Join { room, after, told } => {
                let place = rooms.entry(room).or_default();
                *place = place.told(after.as_deref(), told);
            }
            What::Receive { room, id: Some(id), key, .. } => {
                let place = rooms.entry(room).or_default();
                if let Some(prev) = place.known() {
                    seen.entry(room).or_default().entry(id).or_insert(Step { prev, key });
                }
                *place = Place::Behind(id);
            }
            _ => {}
        }
    }
    seen
}

/// By room and position: what came first behind it, at each client that was told this position.
pub(super) type Followers<'a> = HashMap<&'a str, HashMap<&'a str, Vec<&'a str>>>;

/// Collects what came behind positions that were told.
pub(super) fn followers(events: &[Event]) -> Followers<'_> {
    let mut seen = Followers::new();
    let mut told: HashMap<(usize, &str), &str> = HashMap::new();
    for event in events {
        match &event.what {
            What::Join { room, after, told: news } => {
                if let Place::Told(position) = Place::Outside.told(after.as_deref(), news) {
                    told.insert((event.client, room), position);
                }
            }
            What::Receive { room, id: Some(id), .. } => {
                if let Some(position) = told.remove(&(event.client, room)) {
                    seen.entry(room).or_default().entry(position).or_default().push(id);
                }
            }
            _ => {}
        }
    }
    seen
}

/// Follows every client through every room.
pub(super) fn check(
    events: &[Event],
    logs: &HashMap<&str, Log>,
    sends: &Sends<'_>,
    promise: Promise,
    verdict: &mut Verdict,
) {
    let observed = successions(events);
    let empty = Log::default();
    let mut views: HashMap<(usize, &str), View<'_>> = HashMap::new();
    let mut rooms_of: HashMap<usize, Vec<&str>> = HashMap::new();
    for event in events {
        let client = event.client;
        let (What::Join { room, .. } | What::Receive { room, .. } | What::Page { room, .. }) = &event.what else {
            if let What::Close { .. } = event.what {
                for room in rooms_of.get(&client).into_iter().flatten() {
                    views.entry((client, *room)).and_modify(|view| view.place = Place::Outside);
                }
            }
            continue;
        };
        let log = logs.get(room.as_str()).unwrap_or(&empty);
        let view = views.entry((client, room)).or_insert_with(|| {
            rooms_of.entry(client).or_default().push(room);
            View {
                client,
                room,
                log,
                promise,
                place: Place::Outside,
                member: false,
                last: None,
                got: HashSet::new(),
                order: Vec::new(),
                again: false,
            }
        });
        match &event.what {
            What::Join { after, told, .. } => view.join(after.as_deref(), told, verdict),
            What::Receive { id, key, n, .. } => {
                if view.belongs(key, *n, id.is_none(), sends, verdict)
                    && let Some(id) = id
                {
                    let step = observed.get(room.as_str()).and_then(|room| room.get(id.as_str()));
                    view.receive(id, key, step, verdict);
                }
            }
            What::Page { entries, .. } => view.page(entries, verdict),
            _ => {}
        }
    }
    let mut views: Vec<_> = views.into_values().collect();
    views.sort_by_key(|view| (view.client, view.room));
    views.iter().for_each(|view| view.end(verdict));
}

/// One client in one room.
struct View<'a> {
    client: usize,
    room: &'a str,
    log: &'a Log,
    promise: Promise,
    place: Place<'a>,
    member: bool,
    /// Its position, also while it is outside.
    last: Option<&'a str>,
    got: HashSet<&'a str>,
    /// The same in the order in which they came.
    order: Vec<&'a str>,
    /// A plain socket starts over from what the log has: what it has comes again.
    again: bool,
}

impl<'a> View<'a> {
    fn add(&self, kind: Kind, text: &str, verdict: &mut Verdict) {
        verdict.add(kind, format!("client {} in `{}`: {text}", self.client, self.room));
    }

    fn join(&mut self, after: Option<&'a str>, told: &'a Told, verdict: &mut Verdict) {
        let place = self.place.told(after, told);
        if let (Some(asked), Some(last)) = (after, self.last)
            && asked != last
        {
            self.add(Kind::Missed, &format!("asked for what is behind {asked}, though it is at {last}"), verdict);
        }
        let from = after.or(self.last).filter(|from| *from != START);
        match told {
            Told::Reset(id) if !self.promise.log_trimmed => {
                if let Some(from) = from.filter(|from| self.log.reach(from).is_some()) {
                    self.add(
                        Kind::Untrue,
                        &format!("told to start over at {id}, though the log has its position {from}"),
                        verdict,
                    );
                }
            }
            Told::Recovered { rollback: Some(back) } => self.roll_back(back, verdict),
            // It asked for nothing: on another node, live may begin before what it saw on the last one.
            Told::Live(_) => self.got.clear(),
            _ => {}
        }
        self.again = false;
        self.member = true;
        self.place = place;
        self.last = place.known().or(self.last);
    }

    /// It has to forget what it got behind `back`: that has to be gone from the log.
    fn roll_back(&self, back: &str, verdict: &mut Verdict) {
        let Some(reach) = self.log.reach(back) else { return };
        let kept = self.order.iter().rev().find(|id| self.log.reach(id).is_some_and(|at| at > reach));
        if let Some(kept) = kept {
            self.add(
                Kind::Untrue,
                &format!("told to go back to {back}, though the log still has {kept} behind it"),
                verdict,
            );
        }
    }

    /// Whether a message may come to this client in this room at all.
    fn belongs(&self, key: &str, n: Option<u64>, ephemeral: bool, sends: &Sends<'_>, verdict: &mut Verdict) -> bool {
        let Some(sent) = sends.get(key) else {
            self.add(Kind::Phantom, &format!("got {key}, which nobody sent"), verdict);
            return false;
        };
        if sent.room != self.room {
            self.add(Kind::Leak, &format!("got {key}, which client {} sent to `{}`", sent.client, sent.room), verdict);
            return false;
        }
        if self.place == Place::Outside {
            self.add(Kind::Leak, &format!("got {key}, but is not in the room"), verdict);
            return false;
        }
        if sent.n != n || sent.ephemeral != ephemeral {
            let was = (sent.n, sent.ephemeral);
            self.add(
                Kind::Untrue,
                &format!("got {key} as {:?}, sent as {was:?} (n, ephemeral)", (n, ephemeral)),
                verdict,
            );
        }
        true
    }

    fn receive(&mut self, id: &'a str, key: &str, step: Option<&Step<'_>>, verdict: &mut Verdict) {
        if let Place::Asked(after) = self.place {
            let next = self.log.reach(after).is_some_and(|reach| self.log.reach(id) == Some(reach + 1));
            let lost = self.log.reach(after).is_none() && (self.promise.log_lost || !self.log.is_whole());
            if !next && (lost || self.promise.log_trimmed) {
                self.again = true;
                self.place = Place::Anywhere;
            }
        }
        if !self.got.insert(id) && !self.again {
            verdict.counts.duplicated += 1;
            return self.add(Kind::Duplicate, &format!("got {key} at {id} again"), verdict);
        }
        match self.place {
            Place::Behind(prev) | Place::Told(prev) | Place::Asked(prev) => self.follows(prev, id, key, step, verdict),
            Place::Anywhere | Place::Outside => {}
        }
        self.order.push(id);
        self.place = Place::Behind(id);
        self.last = Some(id);
    }

    /// Whether a message is the one after `prev`.
    fn follows(&self, prev: &str, id: &str, key: &str, step: Option<&Step<'_>>, verdict: &mut Verdict) {
        match (self.log.reach(prev), self.log.reach(id)) {
            (Some(before), Some(at)) if at == before + 1 => {}
            (Some(before), Some(at)) if at > before => {
                let missed = self.log.excerpt(before, at - 1);
                let kind = if matches!(self.place, Place::Told(_)) { Kind::Untrue } else { Kind::Missed };
                self.add(kind, &format!("got {key} at {id} right after {prev}, without {missed}"), verdict);
            }
            (Some(_), Some(_)) => {
                self.add(Kind::Order, &format!("got {key} at {id} after {prev}, behind which it stands"), verdict);
            }
            // What the log lost, or had before it was trimmed: at least all clients have to have seen the same.
            (_, None) if self.promise.log_lost || !self.log.is_whole() => {
                if let Some(step) = step.filter(|step| step.prev != prev) {
                    let other = step.prev;
                    self.add(
                        Kind::Order,
                        &format!("got {key} at {id} after {prev}, and another client after {other}"),
                        verdict,
                    );
                }
            }
            (_, None) => self.add(Kind::Phantom, &format!("got {key} at {id}, which the log does not have"), verdict),
            (None, Some(1)) if !self.promise.log_lost && !self.log.is_whole() => {}
            (None, Some(_)) => {
                let kind = if matches!(self.place, Place::Told(_)) { Kind::Untrue } else { Kind::Untold };
                self.add(kind, &format!("got {key} at {id} after {prev}, which the log does not have"), verdict);
            }
        }
    }

    /// A page of history that ends at the position it was told.
    fn page(&mut self, entries: &'a [Entry], verdict: &mut Verdict) {
        for pair in entries.windows(2) {
            let (before, at) = (self.log.reach(&pair[0].id), self.log.reach(&pair[1].id));
            if let (Some(before), Some(at)) = (before, at)
                && at != before + 1
            {
                let (one, other) = (&pair[0].id, &pair[1].id);
                self.add(Kind::Missed, &format!("its history has {other} right after {one}"), verdict);
            }
        }
        if let (Some(last), Place::Told(told)) = (entries.last(), self.place)
            && last.id != told
            && self.log.reach(&last.id) != self.log.reach(told)
        {
            self.add(Kind::Missed, &format!("its history ends at {}, and live begins after {told}", last.id), verdict);
        }
    }

    fn end(&self, verdict: &mut Verdict) {
        if !self.member {
            return; // it was never here, and got what leaked
        }
        verdict.counts.affected +=
            usize::from(self.promise.log_lost && self.order.iter().any(|id| self.log.reach(id).is_none()));
        let top = self.log.entries().last().map_or(START, |entry| entry.id.as_str());
        match self.last {
            Some(last) if self.log.reach(last).is_none() && top != START => {
                self.add(
                    Kind::Untold,
                    &format!("ends at {last}, which the log does not have, and was not told"),
                    verdict,
                );
            }
            Some(last) if self.log.reach(last) < Some(self.log.entries().len()) => {
                let missing = self.log.entries().len() - self.log.reach(last).unwrap_or(0);
                self.add(Kind::Behind, &format!("ends at {last}; the log goes on to {top}, {missing} more"), verdict);
            }
            None if top != START => {
                self.add(Kind::Behind, &format!("got nothing; the log ends at {top}"), verdict);
            }
            _ => {}
        }
    }
}
