//! Where the server under test listens.

use std::net::SocketAddr;
use std::str::FromStr;

/// An address as it is written on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// `127.0.0.1:8000`
    Tcp(SocketAddr),
    /// `udp:127.0.0.1:8000`
    Udp(SocketAddr),
    /// `unix:/path/to/socket`
    Unix(String),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = |text: &str| {
            text.parse().map_err(|error| format!("{text:?} is not an address with a port: {error}"))
        };
        match text.split_once(':') {
            Some(("unix", path)) => Ok(Self::Unix(path.to_owned())),
            Some(("udp", rest)) => Ok(Self::Udp(address(rest)?)),
            _ => Ok(Self::Tcp(address(text)?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_target_is_recognised() {
        let tcp = "127.0.0.1:80".parse::<Target>();
        assert_eq!(tcp, Ok(Target::Tcp(SocketAddr::from(([127, 0, 0, 1], 80)))));
        let udp = "udp:127.0.0.1:80".parse::<Target>();
        assert_eq!(udp, Ok(Target::Udp(SocketAddr::from(([127, 0, 0, 1], 80)))));
        assert_eq!("unix:/tmp/s".parse::<Target>(), Ok(Target::Unix("/tmp/s".to_owned())));
        assert!("[::1]:80".parse::<Target>().is_ok());
    }

    #[test]
    fn a_missing_port_is_an_error_that_names_the_text() {
        assert!("127.0.0.1".parse::<Target>().unwrap_err().contains("127.0.0.1"));
    }
}
