//! Where a token may stand in an upgrade request, and which subprotocols stand beside it.

use http::{
    HeaderMap,
    header::{AUTHORIZATION, HeaderName, SEC_WEBSOCKET_PROTOCOL},
};

use super::AuthError;

/// How browsers, which cannot set headers on a WebSocket, pass a token: as one more subprotocol.
const SUBPROTOCOL: &str = "bearer.";

/// What a client offered. `Debug` does not show the token.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Offer {
    /// The token, unchecked.
    pub token: Option<String>,
    /// The subprotocols in the client's order, without `bearer.…`.
    pub protocols: Vec<String>,
    /// `bearer.…` was the only subprotocol, so there is none to answer with, and browsers would drop the socket.
    pub bearer_only: bool,
}

impl std::fmt::Debug for Offer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let token = self.token.as_ref().map(|_| "***");
        f.debug_struct("Offer")
            .field("token", &token)
            .field("protocols", &self.protocols)
            .field("bearer_only", &self.bearer_only)
            .finish()
    }
}

/// Reads `Authorization: Bearer` and `Sec-WebSocket-Protocol`, beside what stood `in_url`. Other schemes of authorization are somebody else's.
///
/// # Errors
/// When there is more than one token, or something that is not text.
pub fn offer(headers: &HeaderMap, in_url: Option<&str>) -> Result<Offer, AuthError> {
    let mut tokens = Vec::from_iter(in_url);
    for value in texts(headers, &AUTHORIZATION) {
        let value = value?.trim();
        let (scheme, rest) = value.split_once(' ').unwrap_or((value, ""));
        if scheme.eq_ignore_ascii_case("bearer") {
            tokens.push(rest.trim());
        }
    }
    let (mut protocols, mut in_subprotocol) = (Vec::new(), false);
    for value in texts(headers, &SEC_WEBSOCKET_PROTOCOL) {
        for protocol in value?.split(',').map(str::trim).filter(|protocol| !protocol.is_empty()) {
            match protocol.strip_prefix(SUBPROTOCOL) {
                Some(token) => {
                    tokens.push(token);
                    in_subprotocol = true;
                }
                None => protocols.push(protocol.to_owned()),
            }
        }
    }
    let token = match tokens.as_slice() {
        [] => None,
        [""] => return Err(AuthError::Malformed),
        [token] => Some((*token).to_owned()),
        _ => return Err(AuthError::Ambiguous),
    };
    Ok(Offer { bearer_only: in_subprotocol && protocols.is_empty(), token, protocols })
}

fn texts<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = Result<&'a str, AuthError>> {
    headers.get_all(name).iter().map(|value| value.to_str().map_err(|_| AuthError::Malformed))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::{collection::vec, prelude::Strategy as _, sample::select};

    use super::*;
    use crate::fuzz::{fuzz, mutated};

    #[test]
    fn fuzz_offer() {
        let value = select(&["Bearer a.b.c", "bearer  x", "Basic x", "chat.v1, bearer.a.b.c", "bearer.", ","][..]);
        let value = mutated(value.prop_map(|text| text.as_bytes().to_vec()));
        fuzz(file!(), vec((select(vec![AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL]), value), 0..4), |offered| {
            let mut headers = HeaderMap::new();
            for (name, value) in offered {
                HeaderValue::from_bytes(&value).into_iter().for_each(|value| _ = headers.append(name.clone(), value));
            }
            let Ok(offer) = offer(&headers, None) else { return };
            assert!(offer.token.as_deref() != Some("") && (!offer.bearer_only || offer.token.is_some()));
            assert!(!offer.bearer_only || offer.protocols.is_empty());
            let word = |text: &String| !text.is_empty() && !text.contains(',') && text.trim() == text;
            assert!(offer.protocols.iter().all(|protocol| word(protocol) && !protocol.starts_with(SUBPROTOCOL)));
        });
    }
}
