//! Which addresses a customer's webhook may be at.
//!
//! A customer names any host, and the host's owner decides what it resolves to. What runs beside us must not be reachable
//! that way: in a Lambda function that is above all the runtime's own API on the loopback address, and the link-local
//! addresses that hand out credentials elsewhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where webhooks may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddressPolicy {
    /// Over https, at addresses that are reachable from anywhere. What runs on AWS uses this.
    #[default]
    PublicOnly,
    /// Besides, on this machine, there also over plain http. The local system and the tests wire this; no environment
    /// variable leads here.
    LoopbackToo,
}

impl AddressPolicy {
    /// Whether an address may be called.
    ///
    /// # Errors
    /// What kind of address it is, if not.
    pub fn check(self, address: IpAddr) -> Result<(), &'static str> {
        // An IPv4 address in IPv6 clothes is judged as what it is.
        let address = address.to_canonical();
        match refusal(address) {
            Some(_) if self == Self::LoopbackToo && address.is_loopback() => Ok(()),
            Some(kind) => Err(kind),
            None => Ok(()),
        }
    }
}

fn refusal(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => V4.iter().find(|block| block.holds(address)).map(|block| block.2),
        IpAddr::V6(address) => {
            let refused = V6.iter().find(|block| block.holds(address)).map(|block| block.2);
            refused.or((!GLOBAL_UNICAST.holds(address)).then_some("not a global unicast address"))
        }
    }
}

/// A network, the length of its prefix, and what it is for.
struct Block<A>(A, u32, &'static str);

impl Block<Ipv4Addr> {
    fn holds(&self, address: Ipv4Addr) -> bool {
        (self.0.to_bits() ^ address.to_bits()).leading_zeros() >= self.1
    }
}

impl Block<Ipv6Addr> {
    fn holds(&self, address: Ipv6Addr) -> bool {
        (self.0.to_bits() ^ address.to_bits()).leading_zeros() >= self.1
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u32, kind: &'static str) -> Block<Ipv4Addr> {
    Block(Ipv4Addr::new(a, b, c, d), prefix, kind)
}

const fn v6(a: u16, b: u16, c: u16, prefix: u32, kind: &'static str) -> Block<Ipv6Addr> {
    Block(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), prefix, kind)
}

/// <https://www.iana.org/assignments/iana-ipv4-special-registry>, and multicast.
const V4: [Block<Ipv4Addr>; 18] = [
    v4(0, 0, 0, 0, 8, "this network"),
    v4(10, 0, 0, 0, 8, "private"),
    v4(100, 64, 0, 0, 10, "shared (carrier-grade NAT)"),
    v4(127, 0, 0, 0, 8, "loopback"),
    v4(169, 254, 0, 0, 16, "link-local"), // 169.254.169.254, .170.2, .170.23: metadata and credentials
    v4(172, 16, 0, 0, 12, "private"),
    v4(192, 0, 0, 0, 24, "IETF protocol"),
    v4(192, 0, 2, 0, 24, "documentation"),
    v4(192, 31, 196, 0, 24, "AS112"),
    v4(192, 52, 193, 0, 24, "multicast tunnelling"),
    v4(192, 88, 99, 0, 24, "6to4 relay"),
    v4(192, 168, 0, 0, 16, "private"),
    v4(192, 175, 48, 0, 24, "AS112"),
    v4(198, 18, 0, 0, 15, "benchmarking"),
    v4(198, 51, 100, 0, 24, "documentation"),
    v4(203, 0, 113, 0, 24, "documentation"),
    v4(224, 0, 0, 0, 4, "multicast"),
    v4(240, 0, 0, 0, 4, "reserved or broadcast"),
];

/// All that is assigned for hosts (<https://www.iana.org/assignments/ipv6-address-space>); `fd00:ec2::254` is not in it.
const GLOBAL_UNICAST: Block<Ipv6Addr> = v6(0x2000, 0, 0, 3, "");

/// What is special inside of it (<https://www.iana.org/assignments/iana-ipv6-special-registry>), and good names for what
/// lies outside.
const V6: [Block<Ipv6Addr>; 14] = [
    v6(0, 0, 0, 96, "unspecified, loopback or IPv4-compatible"),
    v6(0x64, 0xff9b, 0, 96, "IPv4 behind NAT64"),
    v6(0x64, 0xff9b, 1, 48, "IPv4 behind NAT64"),
    v6(0x100, 0, 0, 64, "discarded"),
    v6(0x2001, 0, 0, 23, "IETF protocol or Teredo"),
    v6(0x2001, 0xdb8, 0, 32, "documentation"),
    v6(0x2002, 0, 0, 16, "IPv4 behind 6to4"),
    v6(0x2620, 0x4f, 0x8000, 48, "AS112"),
    v6(0x3fff, 0, 0, 20, "documentation"),
    v6(0x5f00, 0, 0, 16, "segment routing"),
    v6(0xfc00, 0, 0, 7, "unique-local"),
    v6(0xfe80, 0, 0, 10, "link-local"),
    v6(0xfec0, 0, 0, 10, "site-local"),
    v6(0xff00, 0, 0, 8, "multicast"),
];

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use super::AddressPolicy::{self, LoopbackToo, PublicOnly};

    fn check(policy: AddressPolicy, address: &str) -> Result<(), &'static str> {
        let address: IpAddr = address.parse().unwrap_or_else(|e| panic!("{address}: {e}"));
        policy.check(address)
    }

    #[test]
    fn public_addresses_are_called() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.0.3.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "198.51.99.255",
            "198.51.101.0",
            "203.0.112.255",
            "203.0.114.0",
            "223.255.255.255",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2001:db7:ffff::1",
            "2001:db9::1",
            "2003::1",
            "2606:4700:4700::1111",
            "2a05:d014::1",
            "3ffe:ffff::1",
            "::ffff:8.8.8.8",
        ] {
            assert_eq!(check(PublicOnly, address), Ok(()), "{address}");
        }
    }

    #[test]
    fn every_other_address_is_refused_with_its_kind() {
        for (address, kind) in [
            ("0.0.0.0", "this network"),
            ("0.255.255.255", "this network"),
            ("10.0.0.0", "private"),
            ("10.255.255.255", "private"),
            ("100.64.0.0", "shared"),
            ("100.127.255.255", "shared"),
            ("127.0.0.1", "loopback"),
            ("127.255.255.255", "loopback"),
            ("169.254.0.0", "link-local"),
            ("169.254.169.254", "link-local"),
            ("169.254.170.2", "link-local"),
            ("169.254.255.255", "link-local"),
            ("172.16.0.0", "private"),
            ("172.31.255.255", "private"),
            ("192.0.0.1", "IETF"),
            ("192.0.0.192", "IETF"),
            ("192.0.2.1", "documentation"),
            ("192.31.196.1", "AS112"),
            ("192.52.193.1", "multicast"),
            ("192.88.99.1", "6to4"),
            ("192.168.0.0", "private"),
            ("192.168.255.255", "private"),
            ("192.175.48.1", "AS112"),
            ("198.18.0.0", "benchmarking"),
            ("198.19.255.255", "benchmarking"),
            ("198.51.100.7", "documentation"),
            ("203.0.113.7", "documentation"),
            ("224.0.0.1", "multicast"),
            ("239.255.255.255", "multicast"),
            ("240.0.0.1", "reserved"),
            ("255.255.255.255", "reserved"),
            ("::", "unspecified"),
            ("::1", "unspecified, loopback"),
            ("::7f00:1", "IPv4-compatible"),
            ("::ffff:127.0.0.1", "loopback"),
            ("::ffff:10.0.0.1", "private"),
            ("::ffff:169.254.169.254", "link-local"),
            ("64:ff9b::169.254.169.254", "NAT64"),
            ("64:ff9b:1::1", "NAT64"),
            ("100::1", "discarded"),
            ("2001::1", "Teredo"),
            ("2001:1ff:ffff::1", "IETF"),
            ("2001:db8::1", "documentation"),
            ("2002:7f00:1::", "6to4"),
            ("2620:4f:8000::1", "AS112"),
            ("3fff::1", "documentation"),
            ("3fff:fff:ffff::1", "documentation"),
            ("4000::1", "not a global"),
            ("5f00::1", "segment"),
            ("fc00::1", "unique-local"),
            ("fd00:ec2::254", "unique-local"),
            ("fdff:ffff::1", "unique-local"),
            ("fe80::1", "link-local"),
            ("febf::1", "link-local"),
            ("fec0::1", "site-local"),
            ("ff02::1", "multicast"),
        ] {
            let refused = check(PublicOnly, address).err().unwrap_or("let through");
            assert!(refused.contains(kind), "{address}: {refused}, expected {kind}");
        }
    }

    /// What the standard library knows of is a part of the table; it is other people's reading of the same registries.
    #[test]
    fn whatever_the_standard_library_knows_to_be_special_is_refused() {
        for first in 0..=u16::MAX {
            let [a, b] = first.to_be_bytes();
            for [c, d] in [[0, 0], [0, 1], [2, 1], [100, 7], [113, 9], [255, 255]] {
                let address = Ipv4Addr::new(a, b, c, d);
                let is_special = address.is_private()
                    || address.is_loopback()
                    || address.is_link_local()
                    || address.is_multicast()
                    || address.is_broadcast()
                    || address.is_documentation()
                    || address.is_unspecified();
                let checked = PublicOnly.check(address.into());
                assert!(!is_special || checked.is_err(), "{address}");
                assert_eq!(PublicOnly.check(address.to_ipv6_mapped().into()), checked, "{address}");
            }
            for second in [0, 0xdb8, 0xec2, u16::MAX] {
                let address = Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, 1);
                let is_special = address.is_unique_local()
                    || address.is_unicast_link_local()
                    || address.is_multicast()
                    || address.is_loopback()
                    || address.is_unspecified();
                assert!(!is_special || PublicOnly.check(address.into()).is_err(), "{address}");
            }
        }
    }

    #[test]
    fn the_local_system_reaches_this_machine_and_no_other() {
        for address in ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", "1.1.1.1"] {
            assert_eq!(check(LoopbackToo, address), Ok(()), "{address}");
        }
        for address in [
            "0.0.0.0",
            "::",
            "10.0.0.1",
            "169.254.169.254",
            "fd00:ec2::254",
            "::7f00:1",
        ] {
            assert!(check(LoopbackToo, address).is_err(), "{address}");
        }
        assert_eq!(AddressPolicy::default(), PublicOnly);
    }
}
