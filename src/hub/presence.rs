//! Who is in a room, as far as one node knows: who of its own is there, what it has told the broadcaster of them, and what the room's sessions
//! have been told. Decides what is to be said and when; says nothing itself: that is `attendance`'s.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::{
    broadcaster::Attendance,
    protocol::{Event, Frame, Occupant, RoomName, Roster},
};

/// Least time between two rounds of one room, so at most one event.
pub(super) const PACE: Duration = Duration::from_secs(1);

/// Somebody's time in the room on this node.
#[derive(Debug)]
struct Stay {
    connections: u32,
    /// The broadcaster knows.
    announced: bool,
    /// Without connections: counts as there until then.
    until: Option<Instant>,
}

/// What the broadcaster knows of this node in the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Nothing, and nothing was said.
    Unknown,
    /// What was said.
    Known,
    /// Something was said, and nobody knows what became of it.
    Unsure,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Presence {
    stays: HashMap<Occupant, Stay>,
    standing: Standing,
    /// A report is under way. The next one waits for its answer, so that they reach the broadcaster in their order.
    reporting: bool,
    /// A report had no answer: it may reach the broadcaster yet, after a later one.
    overdue: bool,
    /// Over all nodes, as the broadcaster said last.
    known: Option<Roster>,
    /// As the room's sessions were told.
    told: Option<Roster>,
    next: Option<Instant>,
}

impl Presence {
    pub(super) fn new() -> Self {
        Self {
            stays: HashMap::new(),
            standing: Standing::Unknown,
            reporting: false,
            overdue: false,
            known: None,
            told: None,
            next: None,
        }
    }

    /// A connection of `occupant` has come.
    pub(super) fn enter(&mut self, occupant: Occupant) {
        let stay = self.stays.entry(occupant).or_insert(Stay { connections: 0, announced: false, until: None });
        stay.connections += 1;
        stay.until = None;
    }

    /// A connection of `occupant` has gone.
    pub(super) fn leave(&mut self, occupant: &Occupant, until: Instant) {
        if let Some(stay) = self.stays.get_mut(occupant) {
            stay.connections = stay.connections.saturating_sub(1);
            stay.until = (stay.connections == 0).then_some(until);
        }
    }

    /// Whether the broadcaster knows of somebody here: there is a lease to be renewed.
    pub(super) fn is_known(&self) -> bool {
        self.standing == Standing::Known
    }

    /// The broadcaster knows nothing of this node any more: everybody is said again.
    pub(super) fn forgotten(&mut self) {
        if self.is_known() {
            self.standing = Standing::Unsure;
        }
    }

    /// Everybody over all nodes, as the broadcaster says.
    pub(super) fn learn(&mut self, roster: Roster) {
        self.known = Some(roster);
    }

    /// Whether a round may begin; the next one not before a while.
    pub(super) fn begin_round(&mut self, now: Instant) -> bool {
        let due = self.next.is_none_or(|next| next <= now);
        if due {
            self.next = Some(now + PACE);
        }
        due
    }

    /// What the broadcaster is to be told, if anything; [`Self::reported`] or [`Self::unanswered`] follows.
    pub(super) fn report(&mut self, now: Instant, lease: Duration) -> Option<Attendance> {
        if self.reporting {
            return None;
        }
        let whole = self.standing != Standing::Known;
        let (mut joined, mut left) = (Vec::new(), Vec::new());
        self.stays.retain(|occupant, stay| {
            let gone = stay.until.is_some_and(|until| until <= now);
            // Who came and went within a round was never there.
            let fleeting = stay.connections == 0 && !stay.announced;
            if gone && stay.announced && !whole {
                left.push(occupant.clone());
            } else if !gone && !fleeting && (whole || !stay.announced) {
                joined.push(occupant.clone());
                stay.announced = true;
            }
            !gone && !fleeting
        });
        let quiet = joined.is_empty() && left.is_empty() && self.standing != Standing::Unsure;
        if quiet {
            return None;
        }
        self.standing = Standing::Unsure; // until the answer
        self.reporting = true;
        let lease = if self.stays.is_empty() { Duration::ZERO } else { lease };
        Some(Attendance { joined, left, whole, lease })
    }

    /// The broadcaster has taken the report; `None`: it wants to be told everybody.
    pub(super) fn reported(&mut self, roster: Option<Roster>) {
        self.reporting = false;
        let Some(roster) = roster else { return };
        self.standing = if self.stays.is_empty() { Standing::Unknown } else { Standing::Known };
        self.learn(roster);
    }

    /// Nobody knows what became of the report.
    pub(super) fn unanswered(&mut self) {
        self.reporting = false;
        self.overdue = true;
    }

    /// After a while, when what was overdue has arrived or never will: says everybody once more.
    pub(super) fn make_sure(&mut self) {
        if self.overdue && self.is_known() {
            self.overdue = false;
            self.standing = Standing::Unsure;
        }
    }

    /// The news for the room's sessions.
    pub(super) fn news(&mut self, room: &RoomName) -> Option<Frame> {
        let (known, told) = (self.known.as_ref()?, self.told.as_ref());
        if told == Some(known) {
            return None;
        }
        let listed = told.filter(|told| told.here.is_some() && known.here.is_some());
        let event = Event::Presence {
            room: room.as_str(),
            joined: listed.map(|told| known.without(told)).unwrap_or_default(),
            left: listed.map(|told| told.without(known)).unwrap_or_default(),
            here: if listed.is_some() { None } else { known.here.as_deref() },
            count: known.count,
        };
        let frame = event.frame();
        self.told = Some(known.clone());
        Some(frame)
    }

    /// The news did not get through: the next are everybody.
    pub(super) fn untold(&mut self) {
        self.told = None;
    }

    /// Who is there for a session that comes now: as the others were told, so that it understands the news that follows, and itself.
    pub(super) fn roster_for(&self, occupant: &Occupant) -> Option<Roster> {
        self.told.clone().map(|told| told.with(occupant))
    }

    /// Whether nothing is left to be said, now or later.
    pub(super) fn is_settled(&self) -> bool {
        self.stays.is_empty() && self.standing == Standing::Unknown
    }

    /// Whether something has to be looked at again soon.
    pub(super) fn is_pending(&self) -> bool {
        let waits = |stay: &Stay| !stay.announced || stay.until.is_some();
        self.standing == Standing::Unsure || self.known != self.told || self.stays.values().any(waits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::UserId;

    const LEASE: Duration = Duration::from_secs(60);
    const LINGER: Duration = Duration::from_secs(15);

    fn user(name: &str) -> Occupant {
        Occupant::User(UserId::new(name).unwrap())
    }

    fn change(joined: &[&str], left: &[&str], whole: bool) -> Option<Attendance> {
        let users = |names: &[&str]| names.iter().map(|name| user(name)).collect();
        Some(Attendance { joined: users(joined), left: users(left), whole, lease: LEASE })
    }

    #[test]
    fn a_user_is_there_from_the_first_tab_to_a_while_after_the_last() {
        let (mut presence, start) = (Presence::new(), Instant::now());
        presence.enter(user("alice"));
        presence.enter(user("alice"));
        assert_eq!(presence.report(start, LEASE), change(&["alice"], &[], true));
        presence.reported(Some(Roster::of(vec![user("alice")], 9)));
        presence.leave(&user("alice"), start + LINGER);
        presence.enter(user("bob"));
        assert_eq!(presence.report(start, LEASE), change(&["bob"], &[], false));
        presence.reported(Some(Roster::default()));
        presence.leave(&user("alice"), start + LINGER);
        assert_eq!(presence.report(start, LEASE), None, "lingers");
        presence.enter(user("alice"));
        assert_eq!(presence.report(start + LINGER, LEASE), None, "came back: nobody noticed");
        presence.leave(&user("alice"), start + LINGER);
        assert!(presence.is_pending());
        assert_eq!(presence.report(start + LINGER, LEASE), change(&[], &["alice"], false));
        presence.reported(Some(Roster::default()));
        presence.leave(&user("bob"), start);
        let last = presence.report(start, LEASE).unwrap();
        assert_eq!((last.left, last.lease), (vec![user("bob")], Duration::ZERO));
        presence.reported(Some(Roster::default()));
        assert!(presence.is_settled());
    }

    #[test]
    fn what_may_be_lost_is_said_again_in_whole() {
        let (mut presence, start) = (Presence::new(), Instant::now());
        presence.enter(user("alice"));
        presence.report(start, LEASE).unwrap();
        presence.enter(user("bob"));
        assert_eq!(presence.report(start, LEASE), None, "one at a time");
        presence.leave(&user("bob"), start);
        presence.unanswered();
        assert_eq!(presence.report(start, LEASE), change(&["alice"], &[], true), "no answer came");
        presence.reported(Some(Roster::default()));
        assert_eq!(presence.report(start, LEASE), None);
        presence.make_sure();
        assert_eq!(presence.report(start, LEASE), change(&["alice"], &[], true), "the first may have come last");
        presence.reported(Some(Roster::default()));
        presence.make_sure();
        assert_eq!(presence.report(start, LEASE), None, "once is enough");
        presence.forgotten();
        assert_eq!(presence.report(start, LEASE), change(&["alice"], &[], true));
        presence.reported(Some(Roster::default()));
        presence.leave(&user("alice"), start);
        presence.report(start, LEASE).unwrap();
        presence.unanswered();
        assert!(!presence.is_settled(), "no answer came");
        let nobody = presence.report(start, LEASE).unwrap();
        assert!(nobody.whole && nobody.joined.is_empty() && nobody.lease.is_zero());
        presence.unanswered();
        presence.enter(user("fleeting"));
        presence.leave(&user("fleeting"), start + LINGER);
        presence.report(start, LEASE).unwrap();
        presence.reported(Some(Roster::default()));
        assert!(presence.is_settled());
    }

    #[test]
    fn sessions_are_told_the_difference() {
        let room = RoomName::new("r").unwrap();
        let mut presence = Presence::new();
        let mut news = |users: &[&str]| {
            presence.learn(Roster::of(users.iter().map(|name| user(name)).collect(), 2));
            let frame = presence.news(&room).map(|frame| String::from_utf8_lossy(frame.json_text()).into_owned());
            frame.unwrap_or_default().replace(r#"{"type":"presence","room":"r","#, "")
        };
        assert_eq!(news(&["a"]), r#""here":[{"from":"a"}],"count":1}"#);
        assert_eq!(news(&["a"]), "");
        assert_eq!(news(&["b", "c"]), r#""joined":[{"from":"b"},{"from":"c"}],"left":[{"from":"a"}],"count":2}"#);
        assert_eq!(news(&["b", "c", "d"]), r#""count":3}"#);
        assert_eq!(news(&["b"]), r#""here":[{"from":"b"}],"count":1}"#);
        assert_eq!(presence.roster_for(&user("z")), Some(Roster::of(vec![user("b"), user("z")], 2)));
    }
}
