//! Files in the binary. Browsers ask each time whether theirs is still the same: after a rollout nobody runs half of an old page.

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};

pub(super) const HTML: &str = "text/html; charset=utf-8";
pub(super) const CSS: &str = "text/css; charset=utf-8";
pub(super) const JSON: &str = "application/json";
pub(super) const JS: &str = "text/javascript; charset=utf-8";
pub(super) const TYPES: &str = "text/plain; charset=utf-8";
pub(super) const SVG: &str = "image/svg+xml";

/// The file, or 304 if it is the one that the request names.
pub(super) fn file(request: &HeaderMap, content_type: &'static str, body: impl Into<axum::body::Bytes>) -> Response {
    let body = body.into();
    let tag = tag(&body);
    let named = request.get_all(header::IF_NONE_MATCH).iter().filter_map(|tags| tags.to_str().ok());
    let same = named.flat_map(|tags| tags.split(',')).any(|known| matches(known.trim(), &tag));
    let mut response = if same {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, content_type)], body).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}

/// A proxy that compressed the file has made the tag a weak one.
fn matches(known: &str, tag: &str) -> bool {
    known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag
}

/// Named by the content (FNV-1a), so that all replicas of a release agree.
fn tag(body: &[u8]) -> String {
    let hash = body
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    format!("\"{hash:016x}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_file_is_not_sent_again() {
        let ask = |known: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(known) = known {
                headers.insert(header::IF_NONE_MATCH, HeaderValue::from_str(known).unwrap());
            }
            file(&headers, JS, "export {};")
        };
        let first = ask(None);
        let tag = first.headers()[header::ETAG].to_str().unwrap().to_owned();
        assert_eq!(first.status(), StatusCode::OK);
        for known in [tag.clone(), format!("\"other\", W/{tag}"), "*".into()] {
            let again = ask(Some(&known));
            assert_eq!(
                (again.status(), again.headers()[header::ETAG].to_str().unwrap()),
                (StatusCode::NOT_MODIFIED, tag.as_str()),
                "{known}"
            );
        }
        assert_eq!(ask(Some("\"other\"")).status(), StatusCode::OK);
        assert_ne!(tag, file(&HeaderMap::new(), JS, "export { };").headers()[header::ETAG]);
    }
}
