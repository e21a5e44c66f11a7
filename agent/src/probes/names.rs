//! Names to addresses by the system's resolver, for checks and scrapes. It blocks and cannot be broken off, so only a few
//! threads may be in it at once: when name servers are gone, what has an address must go on.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Instant;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::noted::Noted;
use crate::rounds::blocking;

/// Look-ups under way at once, of the blocking threads that all parts of the agent share.
const LOOKUPS_MAX: usize = 8;

/// Which addresses of a name are used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum IpVersion {
    /// Any, in the system's order.
    #[default]
    #[serde(rename = "any")]
    Any,
    /// IPv4 only.
    #[serde(rename = "4")]
    V4,
    /// IPv6 only.
    #[serde(rename = "6")]
    V6,
}

impl IpVersion {
    /// Whether this is such an address.
    pub fn has(self, address: IpAddr) -> bool {
        match self {
            IpVersion::Any => true,
            IpVersion::V4 => address.is_ipv4(),
            IpVersion::V6 => address.is_ipv6(),
        }
    }
}

/// The system's resolver, shared by all. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Names {
    slots: Arc<Semaphore>,
}

/// A name has no address of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// The resolver said no, or could not be asked.
    #[error("`{name}` cannot be looked up: {words}")]
    Failed {
        /// The name.
        name: String,
        /// The system's words.
        words: String,
    },
    /// Other addresses only.
    #[error("`{name}` has no IPv{version} address")]
    NoSuchAddress {
        /// The name.
        name: String,
        /// 4 or 6.
        version: u8,
    },
}

impl Default for Names {
    fn default() -> Names {
        Names { slots: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }
}

impl Names {
    /// The addresses of a host, which may be an address already; never empty.
    ///
    /// # Errors
    /// It has none of the wanted kind.
    pub async fn look_up(&self, host: &str, port: u16, version: IpVersion) -> Result<Vec<SocketAddr>, LookupError> {
        let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let found = match name.parse::<IpAddr>() {
            Ok(address) => Ok(vec![SocketAddr::new(address, port)]),
            Err(_) => self.ask(name.clone(), port).await,
        };
        let failed = |error: io::Error| LookupError::Failed { name: name.clone(), words: error.to_string() };
        let mut addresses = found.map_err(failed)?;
        addresses.retain(|address| version.has(address.ip()));
        if addresses.is_empty() {
            return Err(LookupError::NoSuchAddress { name, version: if version == IpVersion::V4 { 4 } else { 6 } });
        }
        Ok(addresses)
    }

    async fn ask(&self, name: String, port: u16) -> io::Result<Vec<SocketAddr>> {
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(io::Error::other)?;
        blocking(move || {
            let found = (name.as_str(), port).to_socket_addrs().map(Iterator::collect);
            // Kept until the resolver answers, also when nobody waits for it any more.
            drop(slot);
            found
        })
        .await
    }
}

/// The same for the HTTP client, with a note on how long it took.
#[derive(Debug)]
pub(super) struct Lookup {
    pub(super) names: Names,
    pub(super) version: IpVersion,
    pub(super) noted: Arc<Noted>,
}

impl Resolve for Lookup {
    fn resolve(&self, name: Name) -> Resolving {
        let (names, version, noted) = (self.names.clone(), self.version, Arc::clone(&self.noted));
        Box::pin(async move {
            let begun = Instant::now();
            let found = names.look_up(name.as_str(), 0, version).await;
            noted.looked_up(begun.elapsed());
            Ok(Box::new(found?.into_iter()) as Addrs)
        })
    }
}
