//! Which pages may open a socket. A request without an `Origin` is not a browser's and passes.

use axum::http::{HeaderMap, header};

/// Exact: scheme, host and port. With nothing configured, the page must come from the host it asks.
pub(super) fn check(headers: &HeaderMap, allowed: &[String]) -> Result<(), String> {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let Some(origin) = origins.next() else { return Ok(()) };
    if origins.next().is_some() {
        return Err("there is more than one Origin header".to_owned());
    }
    let origin = origin.to_str().map_err(|_| "the Origin header is not text".to_owned())?;
    let good = if allowed.is_empty() {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let page = origin.split_once("://").map(|(_, host)| host);
        page.is_some() && page == host
    } else {
        allowed.iter().any(|allowed| allowed == origin)
    };
    if good {
        return Ok(());
    }
    Err("pages of this origin may not connect: add it to `server.origins`, as scheme://host[:port]".to_owned())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn allows(origin: Option<&str>, allowed: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("chat.example:8080"));
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        let allowed: Vec<String> = allowed.iter().map(|origin| (*origin).to_owned()).collect();
        check(&headers, &allowed).is_ok()
    }

    #[test]
    fn the_same_host_passes_and_tricks_do_not() {
        assert!(allows(None, &[]) && allows(Some("http://chat.example:8080"), &[]));
        for foreign in ["null", "http://evil.example", "http://chat.example:8080.evil.example", "chat.example:8080", ""]
        {
            assert!(!allows(Some(foreign), &[]), "{foreign}");
        }
    }

    #[test]
    fn a_list_is_exact() {
        let list = ["https://app.example"];
        assert!(allows(Some("https://app.example"), &list) && allows(None, &list));
        for foreign in
            ["http://app.example", "https://app.example:444", "https://app.example.evil", "http://chat.example:8080"]
        {
            assert!(!allows(Some(foreign), &list), "{foreign}");
        }
    }
}
