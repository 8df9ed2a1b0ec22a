//! The network that a client belongs to, coarse enough that a person's next address is usually in the same one.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The /24 of an IPv4 address, the /48 of an IPv6 address. IPv4 written as IPv6 (RFC 4291 §2.5.5.2) is IPv4.
pub fn network_of(address: IpAddr) -> IpNet {
    match address.to_canonical() {
        IpAddr::V4(address) => Ipv4Net::new(address, 24).unwrap_or_default().trunc().into(),
        IpAddr::V6(address) => Ipv6Net::new(address, 48).unwrap_or_default().trunc().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_share_a_network() {
        let network = |address: &str| network_of(address.parse().unwrap()).to_string();
        assert_eq!(network("192.0.2.77"), "192.0.2.0/24");
        assert_eq!(network("::ffff:192.0.2.77"), "192.0.2.0/24");
        assert_eq!(network("2001:db8:1:2:3::4"), "2001:db8:1::/48");
    }
}
