//! What a client may do, room by room.
//!
//! Compiled once, from a token's claim or the configuration, then asked at each command. Who asks, and how a refusal is told, is decided elsewhere.

use std::{cmp::Reverse, collections::BTreeMap};

use serde::Deserialize;
use serde_json::Value;

use crate::protocol::{RoomName, UserId};

/// Stands for the user's id in a room's name.
const SUB: &str = "{sub}";
/// Longest pattern, in bytes: a room name of the longest kind and its `*`.
const LONGEST: usize = 129;

/// Why permissions cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPermissions {
    /// Not an object of the two keys, each of its type.
    #[error(r#"permissions are an object such as {{"rooms":{{"team.*":"sp"}},"admin":true}}"#)]
    Shape,
    /// Not a room name, with or without `{sub}` in it and a `*` behind it.
    #[error(
        "a room in permissions is a room name, in which `{{sub}}` stands for the user, or the beginning of one with `*` at its end"
    )]
    Room,
    /// A letter that means nothing.
    #[error(
        "a room's permissions are letters: s (subscribe, read history), p (publish), w (see who is there), or none"
    )]
    Letters,
}

/// Letters as a set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Rights(u8);

impl Rights {
    const SUBSCRIBE: Self = Self(1);
    const PUBLISH: Self = Self(2);
    const SEE: Self = Self(4);

    fn parse(letters: &str) -> Result<Self, InvalidPermissions> {
        letters.chars().try_fold(Self::default(), |rights, letter| {
            let right = match letter {
                's' => Self::SUBSCRIBE,
                'p' => Self::PUBLISH,
                'w' => Self::SEE,
                _ => return Err(InvalidPermissions::Letters),
            };
            Ok(Self(rights.0 | right.0))
        })
    }

    fn include(self, right: Self) -> bool {
        self.0 & right.0 != 0
    }
}

/// See the module.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// By name, sorted.
    exact: Box<[(Box<str>, Rights)]>,
    /// By what a name begins with, the longest first.
    prefixes: Box<[(Box<str>, Rights)]>,
    admin: bool,
}

/// The claim as it stands in a token.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Claim {
    #[serde(default)]
    rooms: BTreeMap<String, String>,
    #[serde(default)]
    admin: bool,
}

impl Permissions {
    /// From the claim of `user`'s token. What it does not name is not allowed.
    ///
    /// # Errors
    /// When the claim has another shape, or names rooms or letters that cannot be.
    pub fn from_claim(claim: &Value, user: &UserId) -> Result<Self, InvalidPermissions> {
        // A derived struct would also take an array.
        let object = claim.is_object().then_some(claim).ok_or(InvalidPermissions::Shape)?;
        let Claim { rooms, admin } = Claim::deserialize(object).map_err(|_| InvalidPermissions::Shape)?;
        Ok(Self { admin, ..Self::new(&rooms, Some(user))? })
    }

    /// From rooms and their letters; never an administrator's. `{sub}` is `user`, and matches nothing for an anonymous one.
    ///
    /// # Errors
    /// When there are rooms or letters that cannot be.
    pub fn new(rooms: &BTreeMap<String, String>, user: Option<&UserId>) -> Result<Self, InvalidPermissions> {
        let (mut exact, mut prefixes) = (BTreeMap::new(), BTreeMap::new());
        let (of_users, of_all): (Vec<_>, Vec<_>) = rooms.iter().partition(|(room, _)| room.contains(SUB));
        // In this order, a room written out beats one that `{sub}` happens to spell.
        for (room, letters) in of_users.into_iter().chain(of_all) {
            let (name, kind) = match room.strip_suffix('*') {
                Some(beginning) => (beginning, &mut prefixes),
                None => (room.as_str(), &mut exact),
            };
            let rights = Rights::parse(letters)?;
            let fits = name.split(SUB).all(RoomName::is_part) && !room.is_empty() && room.len() <= LONGEST;
            if !fits {
                return Err(InvalidPermissions::Room);
            }
            if let Some(name) = expand(name, user) {
                kind.insert(name, rights);
            }
        }
        let mut prefixes: Vec<_> = prefixes.into_iter().collect();
        prefixes.sort_by_key(|(prefix, _)| Reverse(prefix.len()));
        Ok(Self { exact: exact.into_iter().collect(), prefixes: prefixes.into(), admin: false })
    }

    /// Whether they are the same for every user.
    #[must_use]
    pub fn are_common(rooms: &BTreeMap<String, String>) -> bool {
        !rooms.keys().any(|room| room.contains(SUB))
    }

    /// Whether messages of a room may be received and its history read.
    #[must_use]
    pub fn reads(&self, room: &RoomName) -> bool {
        self.rights(room).include(Rights::SUBSCRIBE)
    }

    /// Whether messages may be published to a room.
    #[must_use]
    pub fn publishes(&self, room: &RoomName) -> bool {
        self.rights(room).include(Rights::PUBLISH)
    }

    /// Whether it may be seen who is in a room.
    #[must_use]
    pub fn sees(&self, room: &RoomName) -> bool {
        self.rights(room).include(Rights::SEE)
    }

    /// Whether other users' connections may be managed.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.admin
    }

    /// An exact name goes before a pattern, a longer pattern before a shorter.
    fn rights(&self, room: &RoomName) -> Rights {
        let room = room.as_str();
        if let Ok(index) = self.exact.binary_search_by(|(name, _)| (**name).cmp(room)) {
            return self.exact.get(index).map(|(_, rights)| *rights).unwrap_or_default();
        }
        let longest = self.prefixes.iter().find(|(prefix, _)| room.starts_with(&**prefix));
        longest.map(|(_, rights)| *rights).unwrap_or_default()
    }
}

/// A room with the user's id in it. `None`: nobody's, or an id with characters that no room has; above all a `*` in it is no wildcard.
fn expand(name: &str, user: Option<&UserId>) -> Option<Box<str>> {
    if !name.contains(SUB) {
        return Some(name.into());
    }
    let user = user.map(UserId::as_str).filter(|user| RoomName::is_part(user))?;
    Some(name.replace(SUB, user).into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claim(claim: &Value, user: &str) -> Result<Permissions, InvalidPermissions> {
        Permissions::from_claim(claim, &UserId::new(user).unwrap())
    }

    fn of_rooms(rooms: &Value, user: &str) -> Permissions {
        claim(&json!({ "rooms": rooms }), user).unwrap()
    }

    /// The letters in force in a room.
    fn letters(permissions: &Permissions, room: &str) -> String {
        let room = RoomName::new(room).unwrap();
        let all =
            [(permissions.reads(&room), 's'), (permissions.publishes(&room), 'p'), (permissions.sees(&room), 'w')];
        all.into_iter().filter(|(allowed, _)| *allowed).map(|(_, letter)| letter).collect()
    }

    #[test]
    fn exact_beats_pattern_and_longer_beats_shorter() {
        let rooms =
            json!({"*": "s", "team.*": "sp", "team.red": "w", "team.red.*": "spw", "team.secret.*": "", "lobby": "p"});
        let permissions = of_rooms(&rooms, "alice");
        for (room, expected) in [
            ("anything", "s"),
            ("team", "s"),
            ("team.", "sp"),
            ("team.blue", "sp"),
            ("team.red", "w"),
            ("team.redder", "sp"),
            ("team.red.x", "spw"),
            ("team.secret.x", ""),
            ("lobby", "p"),
            ("Lobby", "s"),
        ] {
            assert_eq!(letters(&permissions, room), expected, "{room}");
        }
    }

    #[test]
    fn what_is_not_named_is_not_allowed() {
        for claim_of in [json!({}), json!({"rooms": {}}), json!({"admin": true})] {
            let permissions = claim(&claim_of, "alice").unwrap();
            assert_eq!(letters(&permissions, "lobby"), "");
            assert_eq!(permissions.is_admin(), claim_of["admin"] == true);
        }
        assert_eq!(letters(&Permissions::default(), "lobby"), "");
        assert_eq!(letters(&of_rooms(&json!({"teams": "s", "team*": "w"}), "a"), "team"), "w");
    }

    #[test]
    fn sub_is_the_user_and_nothing_more() {
        let rooms = json!({"u.{sub}": "s", "{sub}.{sub}.*": "p"});
        for (user, room, expected) in [
            ("alice", "u.alice", "s"),
            ("alice", "u.bob", ""),
            ("alice", "alice.alice.x", "p"),
            ("a.b", "u.a.b", "s"),
            ("*", "u.x", ""),
            ("u*", "u.u", ""),
            ("{sub}", "u.sub", ""),
            ("é", "u.e", ""),
        ] {
            assert_eq!(letters(&of_rooms(&rooms, user), room), expected, "{user} in {room}");
        }
        let written_out = of_rooms(&json!({"u.{sub}": "spw", "u.root": ""}), "root");
        assert_eq!(letters(&written_out, "u.root"), "");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        use InvalidPermissions::{Letters, Room, Shape};
        for (bad, expected) in [
            (json!(null), Shape),
            (json!("admin"), Shape),
            (json!([{}, true]), Shape),
            (json!({"room": {}}), Shape),
            (json!({"rooms": ["a"]}), Shape),
            (json!({"rooms": {"a": ["s"]}}), Shape),
            (json!({"rooms": null}), Shape),
            (json!({"admin": "true"}), Shape),
            (json!({"admin": 1}), Shape),
            (json!({"rooms": {"": "s"}}), Room),
            (json!({"rooms": {"a b": "s"}}), Room),
            (json!({"rooms": {"*.a": "s"}}), Room),
            (json!({"rooms": {"**": "s"}}), Room),
            (json!({"rooms": {"{user}": "s"}}), Room),
            (json!({"rooms": {"u.{sub": "s"}}), Room),
            (json!({"rooms": {"é": "s"}}), Room),
            (json!({"rooms": {"x".repeat(130): "s"}}), Room),
            (json!({"rooms": {"a": "r"}}), Letters),
            (json!({"rooms": {"a": "S"}}), Letters),
            (json!({"rooms": {"a": "s,p"}}), Letters),
        ] {
            assert_eq!(claim(&bad, "alice"), Err(expected), "{bad}");
        }
    }

    #[test]
    fn nobody_has_no_room_of_their_own() {
        let rooms = BTreeMap::from([("u.{sub}".to_owned(), "s".to_owned()), ("*".to_owned(), "p".to_owned())]);
        assert!(!Permissions::are_common(&rooms));
        let permissions = Permissions::new(&rooms, None).unwrap();
        assert_eq!(letters(&permissions, "u.sub"), "p");
        assert!(!permissions.is_admin());
    }
}
