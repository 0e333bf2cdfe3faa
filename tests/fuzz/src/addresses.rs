//! Where a customer may want to be called.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use farebox_notifier::AddressPolicy;

/// Whatever an address looks like, nothing beside us is called.
pub(crate) fn webhook_address(data: &[u8]) {
    let address = match (<[u8; 16]>::try_from(data), <[u8; 4]>::try_from(data)) {
        (Ok(bytes), _) => IpAddr::V6(Ipv6Addr::from(bytes)),
        (_, Ok(bytes)) => IpAddr::V4(Ipv4Addr::from(bytes)),
        _ => return,
    };
    let is_public = AddressPolicy::PublicOnly.check(address).is_ok();
    assert!(!is_public || !is_near(address), "{address}");
    let is_called_here = AddressPolicy::LoopbackToo.check(address).is_ok();
    assert_eq!(
        is_called_here,
        is_public || address.to_canonical().is_loopback(),
        "{address}"
    );
}

/// The standard library's own opinion of it.
fn is_near(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_near_v4(address),
        IpAddr::V6(address) => {
            let inner = [
                address.to_ipv4_mapped(),
                address.to_ipv4().filter(|_| address.segments()[0] == 0),
            ];
            address.is_loopback()
                || address.is_unspecified()
                || address.is_multicast()
                || address.is_unique_local()
                || address.is_unicast_link_local()
                || inner.into_iter().flatten().any(is_near_v4)
        }
    }
}

fn is_near_v4(address: Ipv4Addr) -> bool {
    address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_unspecified()
        || address.is_broadcast()
        || address.is_multicast()
        || address.is_documentation()
}
