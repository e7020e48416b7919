//! The last counter of each sender, for the log in memory. In Redis these are keys that expire by themselves.

use std::collections::HashMap;

use super::{Draft, Sender, Turn};
use crate::protocol::{Count, MessageId, RoomName, UserId};

/// Senders below which nobody is looked at for having expired.
const FEW: usize = 1024;
/// Most senders that are remembered.
const MOST: usize = 100_000;

/// Who counts, and where: a sender's id is its user's own, and each room has its own sequence.
type Key = (RoomName, Option<UserId>, Sender);

#[derive(Debug, Clone, Copy)]
struct Last {
    n: u64,
    id: MessageId,
    until_ms: i64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Senders {
    last: HashMap<Key, Last>,
    /// With so many the expired ones are dropped.
    sweep_at: usize,
}

impl Senders {
    /// Whether the draft is to be stored, and the position of what it repeats, if that is the last.
    pub(super) fn turn(&self, draft: &Draft, now_ms: i64) -> (Turn, Option<MessageId>) {
        let Some(key) = key(draft) else { return (Turn::Next, None) };
        let last = self.last.get(&key).filter(|last| now_ms < last.until_ms);
        let count = draft.counted.as_ref().map_or(Count { n: 0, base: 0 }, |counted| counted.count);
        let turn = Turn::of(count, last.map_or(0, |last| last.n));
        (turn, last.filter(|last| last.n == count.n).map(|last| last.id))
    }

    /// The draft was stored at `id`.
    pub(super) fn stored(&mut self, draft: &Draft, id: MessageId, now_ms: i64) {
        let (Some(key), Some(counted)) = (key(draft), &draft.counted) else { return };
        let keep_ms = i64::try_from(counted.keep.as_millis()).unwrap_or(i64::MAX);
        self.last.insert(key, Last { n: counted.count.n, id, until_ms: now_ms.saturating_add(keep_ms) });
        if self.last.len() >= self.sweep_at.max(FEW) {
            self.last.retain(|_, last| now_ms < last.until_ms);
            if self.last.len() > MOST {
                // Senders that were heard last are the ones that may repeat themselves: the older half goes.
                let mut ends: Vec<i64> = self.last.values().map(|last| last.until_ms).collect();
                let middle = ends.len() / 2;
                let (_, median, _) = ends.select_nth_unstable(middle);
                let median = *median;
                self.last.retain(|_, last| last.until_ms > median);
            }
            self.sweep_at = self.last.len() * 2;
        }
    }
}

fn key(draft: &Draft) -> Option<Key> {
    let counted = draft.counted.as_ref()?;
    Some((draft.room.clone(), draft.user.clone(), counted.sender.clone()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::value::RawValue;

    use super::*;
    use crate::{broadcaster::Counted, protocol::ClientId};

    fn draft(sender: &str, n: u64) -> Draft {
        Draft {
            room: RoomName::lobby(),
            kind: "chat".into(),
            client: ClientId::random(),
            user: None,
            payload: RawValue::from_string("1".into()).unwrap(),
            counted: Some(Counted {
                sender: Sender::Client(sender.into()),
                count: Count { n, base: n },
                keep: Duration::from_secs(2),
            }),
            ephemeral: false,
            trace: None,
            received: crate::broadcaster::Stamp::now(),
        }
    }

    #[test]
    fn senders_are_remembered_for_a_while_and_do_not_pile_up() {
        let mut senders = Senders::default();
        let id = MessageId { epoch: 1, seq: 1 };
        senders.stored(&draft("s", 1), id, 0);
        assert_eq!(senders.turn(&draft("s", 1), 1999), (Turn::Again, Some(id)));
        assert_eq!(senders.turn(&draft("s", 1), 2000), (Turn::Next, None));
        assert_eq!(senders.turn(&draft("t", 1), 0), (Turn::Next, None));
        for n in 0..50_000 {
            senders.stored(&draft(&n.to_string(), 1), id, n * 2);
            assert!(senders.last.len() <= 3000);
        }
        for n in 0..300_000 {
            senders.stored(&draft(&n.to_string(), 1), id, 200_000 + n / 1000);
            assert!(senders.last.len() <= 2 * MOST);
        }
    }
}
