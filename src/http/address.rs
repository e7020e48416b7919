//! Which address a request comes from. Proxies say so in `X-Forwarded-For`; only those that are trusted are believed.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;
use ipnet::IpNet;

/// The client's address: going back from the peer, the first that is no trusted proxy's.
pub(super) fn client(peer: SocketAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(&address));
    let mut address = peer.ip().to_canonical();
    let lines = headers.get_all("x-forwarded-for").iter().rev();
    let hops = lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(',').map(str::trim));
    for hop in hops {
        if !is_trusted(address) {
            break;
        }
        // A proxy that says nothing sensible is the last that is known.
        let Some(said) = parse(hop) else { break };
        address = said;
    }
    address
}

/// An address, with a port or without.
fn parse(hop: &str) -> Option<IpAddr> {
    let with_port = || hop.parse::<SocketAddr>().ok().map(|address| address.ip());
    let bare = hop.trim_start_matches('[').trim_end_matches(']').parse().ok();
    bare.or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_proxies_are_believed() {
        let trusted: Vec<IpNet> = ["10.0.0.0/8", "fd00::/8"].iter().map(|network| network.parse().unwrap()).collect();
        let client = |peer: &str, lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x-forwarded-for", line.parse().unwrap());
            }
            client(peer.parse().unwrap(), &headers, &trusted).to_string()
        };
        assert_eq!(client("1.2.3.4:5", &["9.9.9.9"]), "1.2.3.4", "not a proxy");
        assert_eq!(client("10.0.0.1:5", &[]), "10.0.0.1");
        assert_eq!(client("10.0.0.1:5", &["9.9.9.9"]), "9.9.9.9");
        assert_eq!(client("10.0.0.1:5", &["6.6.6.6, 9.9.9.9, 10.2.0.1"]), "9.9.9.9", "what it claims itself is not");
        assert_eq!(client("10.0.0.1:5", &["6.6.6.6", "9.9.9.9, 10.2.0.1"]), "9.9.9.9", "lines are one list");
        assert_eq!(client("[::ffff:10.0.0.1]:5", &["[2001:db8::1]:443, fd00::7"]), "2001:db8::1");
        assert_eq!(client("10.0.0.1:5", &["9.9.9.9, nonsense, 10.2.0.1"]), "10.2.0.1");
    }
}
