//! Which addresses a request may go to: the rules, and the resolver that keeps them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// A target that the rules refuse, and why. Names scheme and host alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{target}: {reason}")]
pub struct Refusal {
    target: String,
    reason: &'static str,
}

impl Refusal {
    /// What is wrong with the target.
    pub fn reason(&self) -> &'static str {
        self.reason
    }
}

/// What may be connected to. Everything but public addresses over https is refused; a loopback base URL, and nothing
/// else, adds loopback addresses and plain http to them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AddressRules {
    loopback: bool,
}

impl AddressRules {
    /// The rules; `loopback` is for a base URL on this machine alone.
    pub(super) fn new(loopback: bool) -> Self {
        Self { loopback }
    }

    /// Whether loopback addresses, and plain http to them, are allowed.
    pub fn loopback_allowed(self) -> bool {
        self.loopback
    }

    /// Checks scheme and host of `url`; a DNS name is checked again when it is resolved.
    pub fn check_url(self, url: &Url) -> Result<(), Refusal> {
        let refuse = |reason| Err(Refusal { target: Origin(url).to_string(), reason });
        if !matches!(url.scheme(), "https" | "http") {
            return refuse("only https links are followed");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("links with a user name or password are not followed");
        }
        let loopback_host = match url.host() {
            None => return refuse("the link has no host"),
            Some(Host::Domain(name)) => is_loopback_name(name),
            Some(Host::Ipv4(ip)) => self.check_literal(url, ip.into())?,
            Some(Host::Ipv6(ip)) => self.check_literal(url, ip.into())?,
        };
        if url.scheme() == "http" && !(self.loopback && loopback_host) {
            return refuse("only https links are followed");
        }
        Ok(())
    }

    /// Checks one address; tells whether it is a loopback one.
    fn check_literal(self, url: &Url, ip: IpAddr) -> Result<bool, Refusal> {
        match self.refusal(ip) {
            Some(reason) => Err(Refusal { target: Origin(url).to_string(), reason }),
            None => Ok(is_loopback(ip)),
        }
    }

    /// Why `ip` may not be connected to; `None` if it may.
    pub fn refusal(self, ip: IpAddr) -> Option<&'static str> {
        if is_loopback(ip) {
            return (!self.loopback).then_some("loopback addresses are allowed only while the base URL is one");
        }
        match ip {
            IpAddr::V4(ip) => refusal_v4(ip),
            IpAddr::V6(ip) => refusal_v6(ip),
        }
    }
}

/// Whether `ip` is loopback itself (not a translated form of it).
fn is_loopback(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback(),
    }
}

/// Whether `name` can only mean this machine (RFC 6761 §6.3).
pub(super) fn is_loopback_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost")
}

/// The IANA special-purpose registry for IPv4, as far as it is not globally reachable.
fn refusal_v4(ip: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, _] = ip.octets();
    match (a, b, c) {
        (0, ..) => Some("an unspecified address"),
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => Some("a private address"),
        (100, 64..=127, _) => Some("a shared address (carrier-grade NAT)"),
        (127, ..) => Some("a loopback address"),
        (169, 254, _) => Some("a link-local address"),
        (192, 0, 2) | (198, 51, 100) | (203, 0, 113) => Some("a documentation address"),
        (198, 18..=19, _) => Some("a benchmarking address"),
        (224..=239, ..) => Some("a multicast address"),
        (192, 0, 0) | (192, 88, 99) | (240.., ..) => Some("a reserved address"),
        _ => None,
    }
}

/// The same for IPv6. Only global unicast (`2000::/3`) can pass; forms that carry an IPv4 address are judged by it, and
/// those that wrap a refused one are refused even where loopback is allowed.
fn refusal_v6(ip: Ipv6Addr) -> Option<&'static str> {
    let segments = ip.segments();
    let embedded = |high: u16, low: u16| refusal_v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some("an unspecified address"),
        // RFC 4291 §2.5.5: IPv4-mapped and the deprecated IPv4-compatible; RFC 2765: translated; RFC 6052: NAT64;
        // RFC 3056: 6to4.
        [0, 0, 0, 0, 0, 0xffff | 0, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => embedded(high, low),
        [0x64, 0xff9b, 1, ..] => Some("a private address (local NAT64)"),
        // RFC 4380: Teredo hides the client's IPv4 address; nothing worth archiving is served there.
        [0x2001, 0, ..] => Some("a Teredo address"),
        [0x2001, 2, 0, ..] => Some("a benchmarking address"),
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Some("a documentation address"),
        [0x2001, 0x3..=0x1ff, ..] => Some("a reserved address"),
        [0xfc00..=0xfdff, ..] => Some("a unique local address"),
        [0xfe80..=0xfebf, ..] => Some("a link-local address"),
        [0xfec0..=0xfeff, ..] => Some("a site-local address"),
        [0xff00..=0xffff, ..] => Some("a multicast address"),
        // RFC 5214: ISATAP interface ids carry an IPv4 address.
        [_, _, _, _, 0 | 0x200, 0x5efe, high, low] if embedded(high, low).is_some() => embedded(high, low),
        [0x2000..=0x3fff, ..] => None,
        _ => Some("a reserved address"),
    }
}

/// Shows scheme, host and port of a URL, never its path or query.
pub(crate) struct Origin<'a>(pub(crate) &'a Url);

impl fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.0.scheme(), self.0.host_str().unwrap_or("(no host)"))?;
        self.0.port().map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// Resolves names as the system does and drops the addresses that the rules refuse.
#[derive(Debug)]
pub(super) struct RuledResolver {
    /// The rules.
    pub(super) rules: AddressRules,
    /// The proxy's own name, which people choose themselves and which is often private.
    pub(super) exempt: Option<String>,
}

impl Resolve for RuledResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let name = name.as_str().to_owned();
        let rules = self.rules;
        let exempt = self.exempt.as_deref().is_some_and(|host| host.eq_ignore_ascii_case(&name));
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            if exempt {
                return Ok(Box::new(found.into_iter()) as Addrs);
            }
            Ok(Box::new(keep_allowed(rules, &name, found)?.into_iter()) as Addrs)
        })
    }
}

/// The addresses that may be connected to; an error when none is left.
fn keep_allowed(rules: AddressRules, name: &str, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Refusal> {
    let mut reason = "the name has no address";
    let allowed = found
        .into_iter()
        .filter(|address| match rules.refusal(address.ip()) {
            Some(why) => {
                reason = why;
                false
            }
            None => true,
        })
        .collect::<Vec<_>>();
    if allowed.is_empty() { Err(Refusal { target: name.to_owned(), reason }) } else { Ok(allowed) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PUBLIC: AddressRules = AddressRules { loopback: false };
    const LOCAL: AddressRules = AddressRules { loopback: true };

    fn check(rules: AddressRules, url: &str) -> Result<(), Refusal> {
        rules.check_url(&Url::parse(url).unwrap())
    }

    #[test]
    fn every_spelling_of_a_refused_address_is_refused() {
        for host in [
            "2130706433",
            "0x7f.1",
            "0177.0.0.1",
            "127.1",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::127.0.0.1]",
            "[64:ff9b::127.0.0.1]",
            "[2002:7f00:1::]",
            "[64:ff9b:1::8.8.8.8]",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.127.255.255",
            "0.0.0.0",
            "0",
            "[::]",
            "224.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
            "198.51.100.7",
            "203.0.113.9",
            "198.18.0.1",
            "198.19.255.255",
            "240.0.0.1",
            "[fe80::1]",
            "[fc00::1]",
            "[fd12::1]",
            "[ff02::1]",
            "[2001:db8::1]",
            "[2001:2::1]",
            "[fec0::1]",
            "[::ffff:10.0.0.1]",
            "[2002:a00:1::]",
            "[::ffff:0:10.0.0.1]",
            "[2001:0:7f00:1::]",
            "[2606:4700::5efe:10.0.0.1]",
        ] {
            assert!(check(PUBLIC, &format!("https://{host}/x")).is_err(), "{host}");
        }
    }

    #[test]
    fn public_addresses_and_names_pass_over_https_only() {
        for host in
            ["8.8.8.8", "172.32.0.1", "100.128.0.1", "[2606:4700::1111]", "s3.amazonaws.com", "[2002:808:808::]"]
        {
            assert_eq!(check(PUBLIC, &format!("https://{host}/x")), Ok(()), "{host}");
            assert!(check(PUBLIC, &format!("http://{host}/x")).is_err(), "{host}");
            assert!(check(LOCAL, &format!("http://{host}/x")).is_err(), "plain http stays on this machine: {host}");
        }
        assert!(check(PUBLIC, "ftp://s3.amazonaws.com/").is_err());
        assert!(check(PUBLIC, "https://user:pass@s3.amazonaws.com/").is_err());
    }

    #[test]
    fn a_loopback_base_allows_loopback_and_not_private_addresses() {
        for host in ["127.0.0.1:9000", "127.9.9.9", "[::1]:1", "localhost:8080", "bucket.localhost"] {
            assert_eq!(check(LOCAL, &format!("http://{host}/x")), Ok(()), "{host}");
        }
        for host in ["10.0.0.1", "169.254.169.254", "[fd00::1]", "[::ffff:127.0.0.1]", "0.0.0.0"] {
            assert!(check(LOCAL, &format!("https://{host}/x")).is_err(), "{host}");
        }
        assert!(check(PUBLIC, "http://localhost/").is_err());
    }

    #[test]
    fn a_name_with_refused_addresses_keeps_only_the_others() {
        let list = |texts: &[&str]| texts.iter().map(|t| SocketAddr::new(t.parse().unwrap(), 0)).collect::<Vec<_>>();
        assert_eq!(keep_allowed(PUBLIC, "n", list(&["10.0.0.1", "8.8.8.8"])), Ok(list(&["8.8.8.8"])));
        let refusal = keep_allowed(PUBLIC, "rebind.example", list(&["127.0.0.1", "::1"])).unwrap_err();
        assert!(refusal.to_string().contains("rebind.example"), "{refusal}");
    }

    proptest! {
        #[test]
        fn no_ipv6_form_of_a_refused_ipv4_address_passes(bits: u32) {
            let v4 = Ipv4Addr::from(bits);
            let [a, b, c, d] = v4.octets().map(u16::from);
            let (high, low) = (a << 8 | b, c << 8 | d);
            for v6 in [
                v4.to_ipv6_mapped(),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
            ] {
                prop_assert_eq!(PUBLIC.refusal(v6.into()).is_some(), PUBLIC.refusal(v4.into()).is_some());
            }
            // The standard library's own judgement, where it has one, is never more severe than ours.
            if v4.is_private() || v4.is_link_local() || v4.is_multicast() || v4.is_documentation() || v4.is_broadcast() {
                prop_assert!(LOCAL.refusal(v4.into()).is_some());
            }
        }

        #[test]
        fn only_global_unicast_ipv6_passes(bits: u128) {
            let ip = Ipv6Addr::from(bits);
            if PUBLIC.refusal(ip.into()).is_none() {
                prop_assert!(bits >> 125 == 1 || bits >> 96 == 0x0064_ff9b_0000 >> 16 || bits >> 96 == 0);
            }
        }
    }
}
