//! Who can reach an address: this machine, a private network, or everybody.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address is of this machine or of a private network (RFC 1918, RFC 4193, link-local).
pub(crate) fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// The addresses of this host, loopback among them, as the kernel lists them; empty where it does
/// not (INS-16 sends them, plain doors are judged by them).
pub fn own_addresses() -> Vec<IpAddr> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let mut addresses = v4_of_fib_trie(&read("/proc/net/fib_trie"));
    addresses.extend(v6_of_if_inet6(&read("/proc/net/if_inet6")));
    addresses
}

/// Lines `|-- ADDRESS`, each followed by `/32 host LOCAL` where the address is the host's own.
fn v4_of_fib_trie(text: &str) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    let mut last = None;
    for line in text.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok().map(IpAddr::V4);
        } else if line == "/32 host LOCAL"
            && let Some(address) = last
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

/// Lines that begin with 32 hexadecimal digits.
fn v6_of_if_inet6(text: &str) -> Vec<IpAddr> {
    let address = |line: &str| u128::from_str_radix(line.split(' ').next()?, 16).ok();
    text.lines().filter_map(address).map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lists_are_read() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n\
                    |-- 10.0.0.5\n        /32 host LOCAL\n     |-- 10.0.0.255\n\
                    /32 link BROADCAST\n     |-- 10.0.0.5\n        /32 host LOCAL\n";
        assert_eq!(v4_of_fib_trie(trie), [IpAddr::from([10, 0, 0, 5])]);
        let inet6 = "fe800000000000000000000000000001 02 40 20 80     eth0\n";
        assert_eq!(
            v6_of_if_inet6(inet6).first().map(IpAddr::to_string).as_deref(),
            Some("fe80::1")
        );
    }

    #[test]
    fn private_is_what_no_stranger_reaches() {
        let private = |text: &str| text.parse().map(is_private).unwrap_or(false);
        for near in ["127.0.0.1", "::1", "10.1.2.3", "172.31.0.1", "192.168.0.1", "fd00::1"] {
            assert!(private(near), "{near}");
        }
        for far in ["172.32.0.1", "8.8.8.8", "0.0.0.0", "::", "2001:db8::1", "::ffff:8.8.8.8"] {
            assert!(!private(far), "{far}");
        }
    }
}
