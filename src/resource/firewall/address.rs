//! Addresses, ports and interface names as firewall rules take them: parsed strictly, since they
//! end up in a rule file.

use std::fmt;
use std::net::IpAddr;

/// A network, `10.0.0.0/8` or `fd00::/8`; a bare address is a network of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    prefix: u8,
    address: IpAddr,
}

impl Network {
    /// Reads `ADDRESS` or `ADDRESS/PREFIX`.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let bad = || format!("`{}` is not an address or a network such as `10.0.0.0/8` or `fd00::/8`", text.escape_debug());
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => width,
            Some(digits) => digits.parse::<u8>().ok().filter(|&prefix| prefix <= width).ok_or_else(bad)?,
        };
        let network = Self { prefix, address };
        if network.masked() != address {
            return Err(format!("`{text}` has bits set beyond its prefix; write `{}`", Self { prefix, address: network.masked() }));
        }
        Ok(network)
    }

    /// Whether it is IPv4.
    #[must_use]
    pub fn is_v4(&self) -> bool {
        self.address.is_ipv4()
    }

    /// Whether it is every address of its family.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.prefix == 0
    }

    fn masked(&self) -> IpAddr {
        mask(self.address, self.prefix)
    }

    /// Whether an address lies in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.is_v4() && mask(address, self.prefix) == self.address
    }

    /// Sorted, and without networks that lie in another of the list (nft refuses overlaps).
    #[must_use]
    pub fn reduce(mut networks: Vec<Self>) -> Vec<Self> {
        networks.sort();
        let mut kept: Vec<Self> = Vec::new();
        for network in networks {
            if !kept.iter().any(|wider| wider.contains(network.address)) {
                kept.push(network);
            }
        }
        kept
    }
}

fn mask(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) & u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)).into()),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)).into()),
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = if self.is_v4() { 32 } else { 128 };
        if self.prefix == width { write!(f, "{}", self.address) } else { write!(f, "{}/{}", self.address, self.prefix) }
    }
}

/// A port, or a range of them, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    /// One port.
    #[must_use]
    pub const fn one(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// Reads `443` or `8000-8010`.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.trim().parse(), last.trim().parse()) {
            (Ok(first), Ok(last)) if first > 0 && first <= last => Ok(Self { first, last }),
            _ => Err(format!("`{}` is not a port or a range such as `8000-8010`", text.escape_debug())),
        }
    }

    /// Whether a port is in the range.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// Every port of the range.
    pub fn iter(&self) -> impl Iterator<Item = u16> + use<> {
        self.first..=self.last
    }

    /// Sorted, overlapping and touching ranges joined (nft refuses overlaps).
    #[must_use]
    pub fn reduce(mut ranges: Vec<Self>) -> Vec<Self> {
        ranges.sort();
        let mut joined: Vec<Self> = Vec::new();
        for range in ranges {
            match joined.last_mut() {
                Some(last) if u32::from(range.first) <= u32::from(last.last) + 1 => last.last = last.last.max(range.last),
                _ => joined.push(range),
            }
        }
        joined
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

impl<'de> serde::Deserialize<'de> for Ports {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Ports;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port from 1 to 65535, or a range such as `8000-8010`")
            }
            fn visit_u64<E: serde::de::Error>(self, port: u64) -> Result<Ports, E> {
                Ports::parse(&port.to_string()).map_err(E::custom)
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Ports, E> {
                Ports::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl schemars::JsonSchema for Ports {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Ports".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "anyOf": [{ "type": "integer", "minimum": 1, "maximum": 65535 }, { "type": "string" }], "description": "a port, or a range such as `8000-8010`" })
    }
}

/// Checks an interface's name; it may end in `*`, which stands for any ending.
///
/// # Errors
/// A sentence for the user.
pub fn interface(name: &str) -> Result<(), String> {
    let stem = name.strip_suffix('*').unwrap_or(name);
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '@');
    // 15 characters: IFNAMSIZ less its NUL, linux/if.h.
    if stem.is_empty() || stem.len() > 15 || !stem.chars().all(fine) {
        return Err(format!("`{}` is not an interface's name such as `eth0` or `br-*`", name.escape_debug()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(list: &[&str]) -> Vec<String> {
        Network::reduce(list.iter().map(|text| Network::parse(text).unwrap()).collect()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn networks_are_strict_and_reduced() {
        assert_eq!(Network::parse("10.0.0.1/24").unwrap_err(), "`10.0.0.1/24` has bits set beyond its prefix; write `10.0.0.0/24`");
        for bad in ["10.0.0.0/33", "x", "10.0.0", "::/129", "10.0.0.0/", "1.2.3.4 accept"] {
            assert!(Network::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(networks(&["10.1.0.0/16", "10.0.0.0/8", "192.0.2.7", "fd00::/8", "fd00::1"]), ["10.0.0.0/8", "fd00::/8", "192.0.2.7"]);
        assert!(Network::parse("0.0.0.0/0").unwrap().contains("203.0.113.1".parse().unwrap()));
        assert!(!Network::parse("0.0.0.0/0").unwrap().contains("::1".parse().unwrap()));
    }

    #[test]
    fn ranges_are_joined() {
        let ranges = ["443", "8000-8010", "8005-8020", "8021", "80"].map(|text| Ports::parse(text).unwrap());
        assert_eq!(Ports::reduce(ranges.to_vec()).iter().map(ToString::to_string).collect::<Vec<_>>(), ["80", "443", "8000-8021"]);
        for bad in ["0", "65536", "10-5", "", "80; drop"] {
            assert!(Ports::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn interfaces_cannot_smuggle_rules() {
        assert!(interface("br-*").is_ok() && interface("eth0.100").is_ok());
        for bad in ["", "*", "a b", "eth0\"", "averyveryverylongname", "a*b"] {
            assert!(interface(bad).is_err(), "{bad}");
        }
    }
}
