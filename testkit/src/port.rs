//! Ports for servers that cannot bind port 0, and for those that restart at the same address.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr as Name, UnixListener},
    },
};

/// The range searched: below the ports of outgoing connections (`net.ipv4.ip_local_port_range`
/// begins at 32768), any of which could otherwise take a port between its choice and its use.
const FROM: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A loopback port that no other test has while this value lives, whether or not anything listens
/// there.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// An abstract socket name, which one process at a time can hold; the kernel releases it when
    /// that process ends, however it ends.
    _claim: UnixListener,
}

impl Port {
    /// One of those that are free.
    ///
    /// # Panics
    /// None is.
    pub fn claim() -> Self {
        let mut random = [0; 2];
        getrandom::fill(&mut random).expect("the system has random numbers");
        let first = u16::from_le_bytes(random) % COUNT;
        let ports = (0..COUNT).map(|step| FROM + (first + step) % COUNT);
        ports.filter_map(Self::claimed).next().expect("there is a free port")
    }

    fn claimed(number: u16) -> Option<Self> {
        let name = Name::from_abstract_name(format!("pistat-test-port-{number}")).ok()?;
        let claim = UnixListener::bind_addr(&name).ok()?;
        // A process that is not a test may have it.
        TcpListener::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
        Some(Self { number, _claim: claim })
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// It, on the loopback.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}

impl fmt::Display for Port {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number.fmt(formatter)
    }
}
