//! Who is in a room, as Redis keeps it: see `attend` in `presence.lua`.

use std::time::Duration;

use serde::Deserialize;

use super::{
    Keys,
    function::{Call, Function},
};
use crate::{
    broadcaster::Attendance,
    protocol::{ClientId, Occupant, RoomName, Roster, UserId},
};

/// What `presence.lua` gives, and publishes on the room's channel.
#[derive(Deserialize)]
struct Wire {
    here: Here,
}

#[derive(Deserialize)]
struct Here {
    count: usize,
    list: Option<Vec<String>>,
}

/// How a roster begins, and no message.
const HEAD: &[u8] = br#"{"v":1,"here":"#;

/// The roster in a publication; `None`: it is something else.
pub(super) fn decode(bytes: &[u8]) -> Option<Roster> {
    if !bytes.starts_with(HEAD) {
        return None;
    }
    let Wire { here } = serde_json::from_slice(bytes).ok()?;
    let mut list: Option<Vec<Occupant>> = here.list.map(|list| list.iter().filter_map(|text| occupant(text)).collect());
    list.iter_mut().for_each(|list| list.sort_unstable());
    Some(Roster { count: here.count, here: list })
}

/// Says who has come to a room and gone from it.
pub(super) fn attend(keys: &Keys, node: &str, room: &RoomName, attendance: &Attendance, most: usize) -> Call {
    let Attendance { joined, left, whole, lease } = attendance;
    let mut call = if joined.is_empty() { Function::Recede.call() } else { Function::Attend.call() };
    call.arg(2).arg(keys.here(room)).arg(keys.channel(room));
    call.arg(node).arg(lease.as_millis() as u64).arg(most).arg(u8::from(*whole)).arg(joined.len());
    for occupant in joined.iter().chain(left) {
        call.arg(field(occupant));
    }
    call
}

/// Says that the node still has somebody in some rooms, and nothing more.
pub(super) fn renew(keys: &Keys, node: &str, rooms: &[RoomName], lease: Duration, most: usize) -> Call {
    let mut call = Function::Renew.call();
    call.arg(2 * rooms.len());
    for room in rooms {
        call.arg(keys.here(room)).arg(keys.channel(room));
    }
    call.arg(node).arg(lease.as_millis() as u64).arg(most);
    call
}

/// Asks who is in a room.
pub(super) fn roster(keys: &Keys, room: &RoomName, most: usize) -> Call {
    let mut call = Function::Roster.call();
    call.arg(1).arg(keys.here(room)).arg(most);
    call
}

/// The field of an occupant.
fn field(occupant: &Occupant) -> String {
    match occupant {
        Occupant::User(user) => format!("u{user}"),
        Occupant::Anonymous(client) => format!("c{client}"),
    }
}

fn occupant(field: &str) -> Option<Occupant> {
    match field.split_at_checked(1)? {
        ("u", user) => UserId::new(user).ok().map(Occupant::User),
        ("c", client) => client.parse::<ClientId>().ok().map(Occupant::Anonymous),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::fuzz::{any_text, fuzz, mutated, object};

    #[test]
    fn fuzz_roster() {
        let here = (any::<u32>(), vec(any_text(), 0..6)).prop_map(|(count, list)| {
            let list = list.iter().map(|name| format!("{}{name}", ["u", "c", ""][name.len() % 3])).collect::<Vec<_>>();
            let here = object([("count", count.to_string()), ("list", serde_json::to_string(&list).unwrap())]);
            [HEAD, here.as_bytes(), b"}"].concat()
        });
        fuzz(file!(), (any_text(), mutated(here)), |(name, bytes)| {
            if let Ok(user) = UserId::new(&name).map(Occupant::User) {
                assert_eq!(occupant(&field(&user)), Some(user));
            }
            if let Some(Roster { here: Some(here), .. }) = decode(&bytes) {
                assert!(here.is_sorted() && here.len() <= bytes.len());
            }
        });
    }

    #[test]
    fn occupants_come_back_as_they_were_written() {
        let (user, client) = (Occupant::User(UserId::new("zoë@@ 1").unwrap()), Occupant::Anonymous(ClientId::random()));
        let list = serde_json::to_string(&[field(&user), field(&client), "x?".to_owned()]).unwrap();
        let roster = decode(format!(r#"{{"v":1,"here":{{"count":2,"list":{list}}}}}"#).as_bytes()).unwrap();
        assert_eq!(roster, Roster::of(vec![client, user], 200), "what is not known is left out");
        assert_eq!(decode(br#"{"v":1,"here":{"count":900}}"#), Some(Roster { count: 900, here: None }));
        assert_eq!(decode(br#"{"v":1,"id":"1-1"}"#), None);
    }
}
