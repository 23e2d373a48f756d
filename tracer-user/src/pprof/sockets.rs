//! Listening sockets, as `/proc/PID/net/tcp` and `tcp6` list them (proc_pid_net(5), `net/ipv4/tcp_ipv4.c`, `get_tcp4_sock`).

use std::{
    io::BufRead,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// Lines that are looked at: connections stand in the same list.
const MAX_LINES: usize = 1 << 17;
/// Bytes of a line: they have some 150.
const MAX_LINE: u64 = 4096;

/// A socket that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listening {
    pub address: SocketAddr,
    pub inode: u64,
}

impl Listening {
    /// Where to ask, best first. Who listens everywhere is asked over loopback.
    pub fn ask_at(&self) -> Vec<SocketAddr> {
        let port = self.address.port();
        let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => vec![SocketAddr::new(loopback[0], port)],
            // It takes IPv4 as well, unless it is told not to.
            IpAddr::V6(ip) if ip.is_unspecified() => loopback.map(|ip| SocketAddr::new(ip, port)).to_vec(),
            _ => vec![self.address],
        }
    }

    /// Loopback first, then who listens everywhere, then others; then by port.
    pub fn rank(&self) -> (u8, u16) {
        let ip = self.address.ip();
        let rank = if ip.is_loopback() { 0 } else { 1 + u8::from(!ip.is_unspecified()) };
        (rank, self.address.port())
    }

    /// Whether a connection to this address comes here.
    pub fn answers(&self, asked: SocketAddr) -> bool {
        let own = self.address.ip();
        let everywhere = own.is_unspecified() && (own.is_ipv6() || asked.is_ipv4());
        self.address.port() == asked.port() && (everywhere || own == asked.ip().to_canonical())
    }
}

/// The sockets of one list that listen.
pub fn listening(mut list: impl BufRead) -> Vec<Listening> {
    let mut found = Vec::new();
    let mut line = Vec::new();
    for _ in 0..MAX_LINES {
        line.clear();
        match std::io::Read::take(&mut list, MAX_LINE).read_until(b'\n', &mut line) {
            Ok(1..) => found.extend(std::str::from_utf8(&line).ok().and_then(socket)),
            _ => break,
        }
    }
    found
}

/// `  0: 0100007F:17AC 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000  0 4711 …`
fn socket(line: &str) -> Option<Listening> {
    let mut fields = line.split_ascii_whitespace();
    let local = fields.nth(1)?;
    let state = fields.nth(1)?;
    if state != "0A" {
        return None;
    }
    let inode = fields.nth(5)?.parse().ok()?;
    let (ip, port) = local.split_once(':')?;
    Some(Listening { address: SocketAddr::new(self::ip(ip)?, u16::from_str_radix(port, 16).ok()?), inode })
}

/// Words of four bytes, each in the order of the machine.
fn ip(hex: &str) -> Option<IpAddr> {
    let word = |index: usize| {
        let word = u32::from_str_radix(hex.get(index * 8..index * 8 + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    match hex.len() {
        8 => Some(IpAddr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (index, four) in bytes.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(index)?);
            }
            Some(IpAddr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
        0: 0100007F:17AC 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0 100 0 0 10 0\n\
        1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4712 1 0 100 0 0 10 0\n\
        2: 0100007F:17AC 0100007F:C0DE 01 00000000:00000000 00:00000000 00000000  1000        0 4713 1 0 100 0 0 10 0\n\
        3: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 4714 1\n\
        4: 0000000000000000FFFF00000100007F:1F91 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 4715 1\n\
        5: zz\n6: 0100007F:17AC 0 0A\n";

    /// Check that those that listen are found with their addresses, of both kinds, and nonsense is passed over.
    #[test]
    fn lists() {
        let found: Vec<(String, u64)> =
            listening(LIST.as_bytes()).iter().map(|socket| (socket.address.to_string(), socket.inode)).collect();
        let expected = [("127.0.0.1:6060", 4711), ("0.0.0.0:80", 4712), ("[::1]:8080", 4714), ("127.0.0.1:8081", 4715)];
        assert_eq!(found, expected.map(|(address, inode)| (address.to_owned(), inode)));
    }

    /// Check who is asked first and where, and who answers at an address.
    #[test]
    fn asking() {
        let at = |address: &str| Listening { address: address.parse().unwrap(), inode: 1 };
        let mut all = [at("10.0.0.1:1"), at("0.0.0.0:2"), at("[::]:3"), at("127.0.0.1:4"), at("[::1]:1")];
        all.sort_by_key(Listening::rank);
        assert_eq!(all.map(|socket| socket.address.to_string()), ["[::1]:1", "127.0.0.1:4", "0.0.0.0:2", "[::]:3", "10.0.0.1:1"]);
        let asked = |address: &str| at(address).ask_at().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(asked("0.0.0.0:2"), ["127.0.0.1:2"]);
        assert_eq!(asked("[::]:3"), ["127.0.0.1:3", "[::1]:3"]);
        assert_eq!(asked("10.0.0.1:1"), ["10.0.0.1:1"]);
        let answers = |own: &str, asked: &str| at(own).answers(asked.parse().unwrap());
        assert!(answers("0.0.0.0:2", "127.0.0.1:2") && answers("[::]:2", "127.0.0.1:2") && answers("[::1]:2", "[::1]:2"));
        assert!(
            !answers("0.0.0.0:2", "127.0.0.1:3") && !answers("127.0.0.1:2", "10.0.0.1:2") && !answers("0.0.0.0:2", "[::1]:2")
        );
    }
}
