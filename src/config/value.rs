//! How single values are written: durations, sizes, secrets, lists, addresses of other services.
//!
//! Owns the text forms only. Which key takes which form, and which values make sense, is the parent's.

use std::{fmt, net::SocketAddr, path::PathBuf};

use secrecy::{ExposeSecret, SecretString};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Unexpected, Visitor},
};

/// What stands in place of a secret wherever one would be printed.
pub(super) const MASK: &str = "***";

/// A text that is never printed: not by `Debug`, not when serialised, not in an error.
#[derive(Clone, Debug)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes a text over.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text.into())
    }

    /// The text itself; never log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(MASK)
    }
}

/// A URL without its password: `redis://user:***@host:6379/0`.
///
/// Works on texts that are no URLs as well, since those are what errors are about; in doubt it hides too much.
#[must_use]
pub fn mask_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return MASK.to_owned() };
    // The last `@` ends the credentials: a password may hold one that nobody escaped.
    let (user, place) = match rest.rsplit_once('@') {
        None => (String::new(), rest),
        Some((credentials, _)) if credentials.contains('?') => return format!("{scheme}://{MASK}"),
        Some((credentials, place)) => match credentials.split_once(':') {
            Some((user, _)) => (format!("{user}:{MASK}@"), place),
            None => (format!("{MASK}@"), place),
        },
    };
    match place.split_once('?') {
        Some((place, _)) => format!("{scheme}://{user}{place}?{MASK}"), // unix sockets: `?pass=`
        None => format!("{scheme}://{user}{place}"),
    }
}

/// Serialises a URL without its password.
pub(super) fn masked_url<S: Serializer>(url: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
    url.as_ref().map(|url| mask_url(url.expose())).serialize(serializer)
}

/// Reads an optional text; an empty one is none, so that an empty variable or chart value switches a thing off.
pub(super) fn optional<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: From<OptionalText>,
{
    let text = Option::<String>::deserialize(deserializer)?;
    let text = text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    Ok(text.map(|text| T::from(OptionalText(text))))
}

/// A text that is not empty, on its way into a `String`, a `PathBuf` or a [`Secret`].
#[derive(Debug)]
pub(super) struct OptionalText(String);

impl From<OptionalText> for String {
    fn from(text: OptionalText) -> Self {
        text.0
    }
}

impl From<OptionalText> for PathBuf {
    fn from(text: OptionalText) -> Self {
        text.0.into()
    }
}

impl From<OptionalText> for Secret {
    fn from(text: OptionalText) -> Self {
        Self::new(text.0)
    }
}

/// Reads a listening address.
pub(super) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    deserializer.deserialize_str(Text {
        expecting: "an IP address and port such as [::]:8080 or 127.0.0.1:8080",
        read: |text| text.parse().ok(),
    })
}

/// Reads a list of texts, written as an array or with commas between them.
pub(super) fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct List;

    impl<'de> Visitor<'de> for List {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of texts, or one text with commas between them")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<String>, E> {
            Ok(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Vec<String>, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = items.next_element()? {
                list.push(item);
            }
            Ok(list)
        }
    }

    deserializer.deserialize_any(List)
}

/// Pairs of texts: a table, or one text such as `lobby=s, team.*=sp`. Printed as the text, so that a later layer replaces all of them.
pub(super) mod pairs {
    use std::{collections::BTreeMap, fmt};

    use serde::{
        Deserializer, Serializer,
        de::{self, Visitor},
    };

    pub(in crate::config) fn serialize<S: Serializer>(
        value: &BTreeMap<String, String>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let pairs: Vec<_> = value.iter().map(|(name, value)| format!("{name}={value}")).collect();
        serializer.serialize_str(&pairs.join(", "))
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<String, String>, D::Error> {
        deserializer.deserialize_any(Pairs)
    }

    /// The pairs that a text means, each name once.
    pub(in crate::config) fn parse(text: &str) -> Option<BTreeMap<String, String>> {
        let mut pairs = BTreeMap::new();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=')?;
            if pairs.insert(name.trim().to_owned(), value.trim().to_owned()).is_some() {
                return None;
            }
        }
        Some(pairs)
    }

    struct Pairs;

    impl<'de> Visitor<'de> for Pairs {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a table of texts, or one text such as \"lobby=s, team.*=sp\"")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
        }

        fn visit_map<A: de::MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            let mut map = Self::Value::new();
            while let Some((name, value)) = entries.next_entry()? {
                map.insert(name, value); // TOML has refused a name that stands twice
            }
            Ok(map)
        }
    }
}

/// Durations as people write them: `500ms`, `25s`, `1h 30m`.
pub(super) mod duration {
    use std::time::Duration;

    use serde::{Deserializer, Serializer};

    use super::Text;

    /// Far enough for every key, near enough that no clock overflows.
    const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

    pub(in crate::config) fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*value))
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        deserializer.deserialize_str(Text {
            expecting: "a duration with its unit, such as 500ms, 25s, 1h 30m; at most 366days",
            read: parse,
        })
    }

    /// The duration a text means.
    pub(in crate::config) fn parse(text: &str) -> Option<Duration> {
        humantime::parse_duration(text).ok().filter(|duration| *duration <= LONGEST)
    }
}

/// Sizes in bytes, written with a unit: `32KiB`, `1MB`, or plain `32768`.
pub(super) mod bytes {
    use std::fmt;

    use serde::{
        Deserializer, Serializer,
        de::{self, Unexpected, Visitor},
    };

    const UNITS: [(&str, usize); 11] = [
        ("", 1),
        ("b", 1),
        ("kb", 1000),
        ("mb", 1_000_000),
        ("gb", 1_000_000_000),
        ("ki", 1 << 10), // as Kubernetes writes them
        ("mi", 1 << 20),
        ("gi", 1 << 30),
        ("kib", 1 << 10),
        ("mib", 1 << 20),
        ("gib", 1 << 30),
    ];

    pub(in crate::config) fn serialize<S: Serializer>(value: &usize, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&text(*value))
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_any(Size)
    }

    /// A size in the largest unit that divides it.
    pub(in crate::config) fn text(value: usize) -> String {
        let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        let unit = units.into_iter().find(|(_, size)| value > 0 && value.is_multiple_of(*size));
        unit.map_or_else(|| format!("{value}B"), |(unit, size)| format!("{}{unit}", value / size))
    }

    fn parse(text: &str) -> Option<usize> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim().to_ascii_lowercase();
        let (_, size) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
        number.parse::<usize>().ok()?.checked_mul(size)
    }

    struct Size;

    impl Visitor<'_> for Size {
        type Value = usize;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a size such as 32KiB, 1MB or 32768 (bytes)")
        }

        fn visit_u64<E: de::Error>(self, value: u64) -> Result<usize, E> {
            value.try_into().map_err(|_| E::invalid_value(Unexpected::Unsigned(value), &self))
        }

        fn visit_i64<E: de::Error>(self, value: i64) -> Result<usize, E> {
            value.try_into().map_err(|_| E::invalid_value(Unexpected::Signed(value), &self))
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<usize, E> {
            parse(text.trim()).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
        }
    }
}

/// Reads a text into a `T`, or says what it should have looked like.
struct Text<T> {
    expecting: &'static str,
    read: fn(&str) -> Option<T>,
}

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.read)(text.trim()).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde::de::{IntoDeserializer, value::Error};

    use super::{bytes, duration, mask_url, pairs};

    #[test]
    fn sizes_print_in_the_unit_that_divides_them_and_read_back() {
        for (size, text) in [(0, "0B"), (1000, "1000B"), (32768, "32KiB"), (256 << 20, "256MiB"), (1 << 30, "1GiB")] {
            assert_eq!(bytes::text(size), text);
            assert_eq!(bytes_of(text), Some(size));
        }
        for (text, size) in [("32768", 32768), ("32 KiB", 32768), ("32Ki", 32768), ("1MB", 1_000_000)] {
            assert_eq!(bytes_of(text), Some(size), "{text}");
        }
        for bad in ["", "KiB", "-1", "1.5MiB", "32K", "1 potato", "99999999999999999999", "99999999999999GiB"] {
            assert_eq!(bytes_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn pairs_stand_in_one_text_each_name_once() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        for (text, expected) in [
            ("", vec![]),
            ("*=spw", vec![pair("*", "spw")]),
            (" team.* = sp , lobby=,", vec![pair("lobby", ""), pair("team.*", "sp")]),
        ] {
            assert_eq!(pairs::parse(text), Some(expected.into_iter().collect()), "{text}");
        }
        for bad in ["*", "a=s,b", "a=s,a=p"] {
            assert_eq!(pairs::parse(bad), None, "{bad}");
        }
    }

    fn bytes_of(text: &str) -> Option<usize> {
        bytes::deserialize(IntoDeserializer::<Error>::into_deserializer(text)).ok()
    }

    #[test]
    fn durations_need_a_unit_and_an_end() {
        assert_eq!(duration::parse("1m 30s"), Some(Duration::from_secs(90)));
        assert_eq!(duration::parse("500ms"), Some(Duration::from_millis(500)));
        for bad in ["", "25", "-1s", "soon", "400days", "99999999999999999999s"] {
            assert_eq!(duration::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn no_password_survives_the_mask() {
        for (url, masked) in [
            ("redis://localhost:6379/0", "redis://localhost:6379/0"),
            ("redis://:pw@host", "redis://:***@host"),
            ("rediss://bob:pw@host:1/2", "rediss://bob:***@host:1/2"),
            ("redis://bob:p@w/:?@host", "redis://***"),
            ("redis://bob:p@w/:#@host", "redis://bob:***@host"),
            ("redis://token@host", "redis://***@host"),
            ("unix:///run/redis.sock?db=1&pass=pw", "unix:///run/redis.sock?***"),
            ("unix:///run/redis.sock?pass=p@w", "unix://***"),
            ("host:6379:pw", "***"),
        ] {
            assert_eq!(mask_url(url), masked);
        }
    }
}
