//! Who may come in: the page's origin and the token, for sockets and requests alike.

use std::time::Duration;

use axum::http::HeaderMap;

use super::{Problem, Service, origin};
use crate::{
    auth::{self, AuthError, Identity, Offer},
    protocol::{ProblemCode, RoomName},
};

/// What the issuer gets to be back.
const ISSUER_PATIENCE: Duration = Duration::from_secs(5);

/// Checks both. `in_url` is a token in the query, for clients that can send it nowhere else.
pub(super) async fn check(
    service: &Service,
    headers: &HeaderMap,
    in_url: Option<&str>,
) -> Result<(Offer, Identity), Problem> {
    origin::check(headers, &service.origins()).map_err(|detail| Problem::new(ProblemCode::Origin, detail))?;
    let identify = async {
        if in_url.is_some() && !service.query_token {
            return Err(AuthError::InUrl);
        }
        let offer = auth::offer(headers, in_url)?;
        let identity = service.authenticator.identify(offer.token.as_deref()).await?;
        Ok((offer, identity))
    };
    identify.await.map_err(|error| refused(service, error))
}

fn refused(service: &Service, error: AuthError) -> Problem {
    service.metrics.auth_failure(error.reason()).inc();
    let problem = match error {
        AuthError::KeysAway => Problem::new(ProblemCode::Unavailable, error.to_string()).retry_after(ISSUER_PATIENCE),
        _ => Problem::new(ProblemCode::Auth, error.to_string()),
    };
    problem.because(error.reason())
}

/// The answer to a request that the token's permissions do not cover.
pub(super) fn forbidden(what: &str, room: &RoomName) -> Problem {
    Problem::new(ProblemCode::Forbidden, format!("you may not {what} `{room}`"))
}
