//! `[auth]`: whose tokens are accepted, and what they allow.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::value::{self, Secret};

/// `[auth]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// Whether a socket needs a token; if not, everyone is anonymous.
    pub enabled: bool,
    /// The shared secret of HS256, HS384 and HS512 tokens: 32 bytes or more.
    #[serde(deserialize_with = "value::optional")]
    pub secret: Option<Secret>,
    /// A file with that secret; line ends at its end do not count.
    #[serde(deserialize_with = "value::optional")]
    pub secret_file: Option<PathBuf>,
    /// The issuer's public key in PEM: RSA, EC (P-256, P-384) or Ed25519.
    #[serde(deserialize_with = "value::optional")]
    pub public_key: Option<String>,
    /// A file with that public key.
    #[serde(deserialize_with = "value::optional")]
    pub public_key_file: Option<PathBuf>,
    /// The issuer's key set (JWKS), fetched from there: `https://`, or `http://` on this machine.
    #[serde(deserialize_with = "value::optional")]
    pub jwks_url: Option<String>,
    /// How long the last key set is used while the issuer cannot be reached.
    #[serde(with = "value::duration")]
    pub jwks_max_age: Duration,
    /// A file with a key set.
    #[serde(deserialize_with = "value::optional")]
    pub jwks_file: Option<PathBuf>,
    /// The `iss` that a token must carry; unset: any or none.
    #[serde(deserialize_with = "value::optional")]
    pub issuer: Option<String>,
    /// The `aud` that a token must carry; unset: any or none.
    #[serde(deserialize_with = "value::optional")]
    pub audience: Option<String>,
    /// How long after its `iat` a token counts, whatever its `exp` says.
    #[serde(with = "value::duration")]
    pub max_token_age: Duration,
    /// The claim that holds a user's permissions.
    pub claim: String,
    /// Rooms and letters for tokens without that claim, and for everyone where no token is needed.
    #[serde(with = "value::pairs")]
    pub default_rooms: BTreeMap<String, String>,
    /// Whether a socket's token may stand in its URL, as `?token=`.
    pub query_token: bool,
}

impl Auth {
    /// How far the clocks of issuer and node may differ.
    pub const LEEWAY: Duration = Duration::from_secs(5);

    /// How long after its `iat` a token may still count, and whatever takes it away has to hold.
    #[must_use]
    pub fn longest_life(&self) -> Duration {
        self.max_token_age.saturating_add(Self::LEEWAY)
    }

    /// Rooms and letters as one text has them: `lobby=s, team.*=sp`; each room once.
    #[must_use]
    pub fn parse_rooms(text: &str) -> Option<BTreeMap<String, String>> {
        value::pairs::parse(text)
    }
}

impl Default for Auth {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self {
            enabled: false,
            secret: None,
            secret_file: None,
            public_key: None,
            public_key_file: None,
            jwks_url: None,
            jwks_max_age: DAY,
            jwks_file: None,
            issuer: None,
            audience: None,
            max_token_age: DAY,
            claim: "chat".to_owned(),
            default_rooms: BTreeMap::from([("*".to_owned(), "spw".to_owned())]),
            query_token: false,
        }
    }
}
