//! Networks and hosts, as settings name them: `10.0.0.0/8`, `::1`; `api.example.org`.

use std::net::IpAddr;
use std::str::FromStr;

/// An address, or all addresses that begin as it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Whether the address is in it. An IPv4 address may come in the dress of IPv6.
    pub fn contains(&self, address: IpAddr) -> bool {
        fn same(one: u128, other: u128, differ_behind: u32) -> bool {
            one.checked_shr(differ_behind).unwrap_or(0) == other.checked_shr(differ_behind).unwrap_or(0)
        }
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(address)) => {
                same(net.to_bits().into(), address.to_bits().into(), 32 - u32::from(self.bits))
            }
            (IpAddr::V6(net), IpAddr::V6(address)) => {
                same(net.to_bits(), address.to_bits(), 128 - u32::from(self.bits))
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Network, String> {
        let wrong = || format!("expected an address or a network like 10.0.0.0/8, not {text:?}");
        let (address, bits) = match text.trim().split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| wrong())?)),
            None => (text.trim(), None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        if bits > most { Err(wrong()) } else { Ok(Network { address, bits }) }
    }
}

/// The name of a host, in lower case and without a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName(pub String);

impl FromStr for HostName {
    type Err = String;

    fn from_str(text: &str) -> Result<HostName, String> {
        match url::Host::parse(text.trim()) {
            Ok(host) => Ok(HostName(host.to_string())),
            Err(_) => Err(format!("expected the name of a host like api.example.org, not {text:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_what_begins_as_they_do() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.200.3.4", "11.0.0.1"),
            ("192.168.1.7", "192.168.1.7", "192.168.1.6"),
            ("0.0.0.0/0", "1.2.3.4", "::1"),
            ("::1", "::1", "127.0.0.1"),
            ("fd00::/8", "fd12::1", "fe80::1"),
            ("10.1.2.0/23", "::ffff:10.1.3.255", "10.1.4.0"),
        ] {
            let network: Network = network.parse().unwrap();
            assert!(network.contains(inside.parse().unwrap()), "{network:?} {inside}");
            assert!(!network.contains(outside.parse().unwrap()), "{network:?} {outside}");
        }
        for bad in ["", "a:1", "http://a", "a/b", "a b"] {
            assert!(bad.parse::<HostName>().is_err(), "{bad}");
        }
        assert_eq!("Api.Example".parse(), Ok(HostName("api.example".into())));
        for bad in ["", "x", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/-1", "10.0.0.0/8/8"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }
}
