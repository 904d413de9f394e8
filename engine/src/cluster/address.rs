//! `gristmill://host:port`: where a scheduler listens, for plans and for people.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// The scheduler's port unless said otherwise.
const DEFAULT_PORT: u16 = 50050;
const SCHEME: &str = "gristmill://";

/// Where a scheduler is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClusterAddress {
    host: String,
    port: u16,
}

impl ClusterAddress {
    /// From its parts.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        ClusterAddress { host: host.into(), port }
    }

    /// Name or number of the machine.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// As HTTP clients want it, without a trailing slash.
    pub fn http_url(&self) -> String {
        format!("http://{}:{}", self.bracketed(), self.port)
    }

    /// An IPv6 number stands in brackets before a port.
    fn bracketed(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }
}

impl fmt::Display for ClusterAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}:{}", self.bracketed(), self.port)
    }
}

impl FromStr for ClusterAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Usage(format!("`{text}` is no address of a cluster; expected {SCHEME}host:port"));
        let rest = match text.split_once("://") {
            Some(("gristmill", rest)) => rest,
            Some(_) => return Err(wrong()),
            None => text,
        };
        let rest = rest.trim_end_matches('/');
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(':') && (!host.contains(':') || host.ends_with(']')) => {
                (host, port.parse().map_err(|_| wrong())?)
            }
            _ => (rest, DEFAULT_PORT),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || host.contains(['/', '@', ' ']) {
            return Err(wrong());
        }
        Ok(ClusterAddress::new(host, port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, expected) in [
            ("gristmill://host:50051", Some("gristmill://host:50051")),
            ("gristmill://host", Some("gristmill://host:50050")),
            ("10.0.0.7:9", Some("gristmill://10.0.0.7:9")),
            ("gristmill://[::1]:50051/", Some("gristmill://[::1]:50051")),
            ("::1", Some("gristmill://[::1]:50050")),
            ("http://host:1", None),
            ("gristmill://", None),
            ("gristmill://host:port", None),
            ("gristmill://host:1/path", None),
            ("gristmill://user@host:1", None),
        ] {
            let got = text.parse::<ClusterAddress>().ok().map(|address| address.to_string());
            assert_eq!(got.as_deref(), expected, "{text}");
        }
    }
}
