//! What this host lets Petrel do: the part `drive` of the agent's config, as written and as checked. An empty part
//! allows nothing; no order can widen it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use super::{haproxy, libvirt};
use crate::libvirt::{Shell, Virsh};
use crate::units::Bytes;

/// Where operators stop everything on a host, by default.
const HOLD_FILE: &str = "/etc/petrel/hold";

/// The part `drive` as written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawDriveConfig {
    /// Actions that a server may order here: `haproxy.drain`, `haproxy.ready`, `haproxy.set_weight`, `libvirt.migrate`.
    /// Empty, the default, allows none.
    pub allow: Vec<String>,
    /// While a file of this name exists, nothing is done here, whatever the server says. Default `/etc/petrel/hold`.
    pub hold_file: Option<PathBuf>,
    /// HAProxy on this host; left out, there is none.
    pub haproxy: Option<RawHaproxyConfig>,
    /// libvirt on this host; left out, there is none.
    pub libvirt: Option<RawLibvirtConfig>,
}

/// The part `drive.haproxy` as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawHaproxyConfig {
    /// Whether the driver is used. Default true where the part is written.
    pub enabled: bool,
    /// The runtime API: the path of a Unix socket, or `host:port`. Changing servers needs `level admin` there.
    /// Default `/run/haproxy/admin.sock`.
    pub socket: String,
}

impl Default for RawHaproxyConfig {
    fn default() -> Self {
        RawHaproxyConfig { enabled: true, socket: "/run/haproxy/admin.sock".to_owned() }
    }
}

/// The part `drive.libvirt` as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawLibvirtConfig {
    /// Whether the driver is used. Default true where the part is written.
    pub enabled: bool,
    /// This host's libvirt. Default `qemu:///system`.
    pub uri: String,
    /// Guests that Petrel may move: names with `*` and `?`, or UUIDs. Default none. A guest of another owner stays foreign.
    pub own: Vec<String>,
    /// Where the other hosts' libvirt daemons reach this one, for example `qemu+tls://h2/system`; empty, the default:
    /// this host takes no guests.
    pub migration_uri: String,
    /// The most that one migration may send per second, for example `100MiB`. `libvirt.migrate` needs it.
    pub bandwidth_max: Option<Bytes>,
    /// Whether guest memory is encrypted on its way (libvirt's native TLS). Default true; false only on a network
    /// that carries nothing but migrations.
    pub migration_tls: bool,
    /// Whether this host carries Petrel's server, its database or the agent that holds the credentials: never touched.
    pub carries_petrel: bool,
    /// Folders that are on storage shared with the migration targets, beyond those on a network file system.
    pub shared_paths: Vec<PathBuf>,
    /// XML namespaces in guests' metadata that name no owner, beyond libosinfo's and Cockpit's.
    pub metadata_ignored: Vec<String>,
    /// The virsh program. Default `virsh`, found on the path.
    pub virsh: PathBuf,
}

impl Default for RawLibvirtConfig {
    fn default() -> Self {
        RawLibvirtConfig {
            enabled: true,
            uri: "qemu:///system".to_owned(),
            own: Vec::new(),
            migration_uri: String::new(),
            bandwidth_max: None,
            migration_tls: true,
            carries_petrel: false,
            shared_paths: Vec::new(),
            metadata_ignored: Vec::new(),
            virsh: PathBuf::from("virsh"),
        }
    }
}

/// What this host lets Petrel do, checked.
#[derive(Debug, Clone)]
pub struct DriveConfig {
    /// Actions that may be done.
    pub allow: BTreeSet<String>,
    /// While it exists, nothing is done.
    pub hold_file: PathBuf,
    /// HAProxy, where there is one.
    pub haproxy: Option<HaproxyConfig>,
    /// libvirt, where there is one.
    pub libvirt: Option<LibvirtConfig>,
}

impl Default for DriveConfig {
    fn default() -> Self {
        DriveConfig { allow: BTreeSet::new(), hold_file: PathBuf::from(HOLD_FILE), haproxy: None, libvirt: None }
    }
}

/// HAProxy's part, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HaproxyConfig {
    /// The runtime API.
    pub socket: HaproxySocket,
}

/// Where a runtime API listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HaproxySocket {
    /// A Unix socket.
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String),
}

/// libvirt's part, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibvirtConfig {
    /// The one virsh that answers questions to this host's libvirt, also those of the collectors.
    pub shell: Arc<Shell>,
    /// Name patterns and UUIDs of the guests that may be moved.
    pub own: Vec<String>,
    /// Where others reach this libvirt; empty: not a target.
    pub migration_uri: String,
    /// The cap of one migration, in whole MiB a second; 0: none is configured and nothing is moved.
    pub bandwidth_max_mib_s: u64,
    /// Whether migrations are encrypted.
    pub migration_tls: bool,
    /// Whether the host carries Petrel itself.
    pub carries_petrel: bool,
    /// Folders known to be shared.
    pub shared_paths: Vec<PathBuf>,
    /// Metadata namespaces that name no owner.
    pub metadata_ignored: Vec<String>,
}

/// Why the part `drive` cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckDriveError {
    /// An action nobody knows.
    #[error("drive.allow: no driver has an action `{action}`; allowed are {known}")]
    UnknownAction {
        /// As written.
        action: String,
        /// All actions there are.
        known: String,
    },
    /// An action of a driver that is not configured.
    #[error("drive.allow: `{action}` needs the part drive.{driver}; write it, or remove the action")]
    DriverMissing {
        /// As written.
        action: String,
        /// Its driver.
        driver: String,
    },
    /// A value that cannot be.
    #[error("drive.{key}: `{value}`: {allowed}")]
    Value {
        /// The key below `drive`.
        key: &'static str,
        /// As written.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
}

impl RawDriveConfig {
    /// Checks the part.
    ///
    /// # Errors
    /// The first value that cannot be used, with what is allowed.
    pub fn check(self) -> Result<DriveConfig, CheckDriveError> {
        let haproxy =
            self.haproxy.filter(|haproxy| haproxy.enabled).map(|haproxy| check_haproxy(&haproxy)).transpose()?;
        let libvirt = self.libvirt.filter(|libvirt| libvirt.enabled).map(check_libvirt).transpose()?;
        for action in &self.allow {
            let driver = match action.as_str() {
                name if haproxy::ACTIONS.contains(&name) => haproxy.is_some().then_some(()).ok_or("haproxy"),
                name if libvirt::ACTIONS.contains(&name) => libvirt.is_some().then_some(()).ok_or("libvirt"),
                _ => return Err(unknown_action(action)),
            };
            driver.map_err(|driver| CheckDriveError::DriverMissing {
                action: action.clone(),
                driver: driver.to_owned(),
            })?;
        }
        if self.allow.iter().any(|action| action == libvirt::MIGRATE)
            && libvirt.as_ref().is_some_and(|libvirt| libvirt.bandwidth_max_mib_s == 0)
        {
            return Err(value("libvirt.bandwidth_max", "", "libvirt.migrate needs a cap, for example 100MiB"));
        }
        let hold_file = self.hold_file.unwrap_or_else(|| PathBuf::from(HOLD_FILE));
        if !hold_file.is_absolute() {
            return Err(value("hold_file", &hold_file.display().to_string(), "write an absolute path"));
        }
        Ok(DriveConfig { allow: self.allow.into_iter().collect(), hold_file, haproxy, libvirt })
    }
}

fn check_haproxy(raw: &RawHaproxyConfig) -> Result<HaproxyConfig, CheckDriveError> {
    let socket = if raw.socket.starts_with('/') {
        HaproxySocket::Unix(PathBuf::from(&raw.socket))
    } else {
        let port = raw.socket.rsplit_once(':').filter(|(host, _)| !host.is_empty());
        port.and_then(|(_, port)| port.parse::<u16>().ok()).filter(|port| *port > 0).ok_or_else(|| {
            value("haproxy.socket", &raw.socket, "write the absolute path of a Unix socket, or host:port")
        })?;
        HaproxySocket::Tcp(raw.socket.clone())
    };
    Ok(HaproxyConfig { socket })
}

fn check_libvirt(raw: RawLibvirtConfig) -> Result<LibvirtConfig, CheckDriveError> {
    if !is_uri(&raw.uri) {
        return Err(value("libvirt.uri", &raw.uri, "write a libvirt URI, for example qemu:///system"));
    }
    if !raw.migration_uri.is_empty() && !libvirt::is_remote_uri(&raw.migration_uri) {
        return Err(value(
            "libvirt.migration_uri",
            &raw.migration_uri,
            "write how other hosts reach this libvirt, for example qemu+tls://h2/system, or leave it empty",
        ));
    }
    let bandwidth_max_mib_s = raw.bandwidth_max.map_or(0, |bytes| bytes.0 >> 20);
    if let Some(bytes) = raw.bandwidth_max
        && bandwidth_max_mib_s == 0
    {
        return Err(value("libvirt.bandwidth_max", &bytes.to_string(), "write at least 1MiB (a second)"));
    }
    if let Some(path) = raw.shared_paths.iter().find(|path| !path.is_absolute()) {
        return Err(value("libvirt.shared_paths", &path.display().to_string(), "write absolute paths"));
    }
    if raw.own.iter().any(String::is_empty) {
        return Err(value("libvirt.own", "", "write guest names, with * and ? where wanted, or UUIDs"));
    }
    Ok(LibvirtConfig {
        shell: Arc::new(Shell::of(Virsh { program: raw.virsh, uri: raw.uri }, rand::random())),
        own: raw.own,
        migration_uri: raw.migration_uri,
        bandwidth_max_mib_s,
        migration_tls: raw.migration_tls,
        carries_petrel: raw.carries_petrel,
        shared_paths: raw.shared_paths,
        metadata_ignored: raw.metadata_ignored,
    })
}

fn is_uri(text: &str) -> bool {
    text.contains("://") && !text.starts_with('-') && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn unknown_action(action: &str) -> CheckDriveError {
    let known: Vec<&str> = haproxy::ACTIONS.iter().chain(&libvirt::ACTIONS).copied().collect();
    CheckDriveError::UnknownAction { action: action.to_owned(), known: known.join(", ") }
}

fn value(key: &'static str, value: &str, allowed: &'static str) -> CheckDriveError {
    CheckDriveError::Value { key, value: value.to_owned(), allowed }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(yaml: &str, expected: &Expect) {
        let said = match serde_saphyr::from_str::<RawDriveConfig>(yaml) {
            Ok(raw) => raw.check().map_or_else(|error| error.to_string(), |config| format!("{config:?}")),
            Err(error) => error.to_string().lines().next().unwrap_or_default().to_owned(),
        };
        expected.assert_eq(&said);
    }

    #[test]
    fn nothing_is_allowed_by_default() {
        check(
            "{}",
            &expect![[r#"DriveConfig { allow: {}, hold_file: "/etc/petrel/hold", haproxy: None, libvirt: None }"#]],
        );
    }

    #[test]
    fn parts_are_read() {
        check(
            "allow: [haproxy.drain]\nhaproxy: {socket: /run/h.sock}\nhold_file: /tmp/hold",
            &expect![[
                r#"DriveConfig { allow: {"haproxy.drain"}, hold_file: "/tmp/hold", haproxy: Some(HaproxyConfig { socket: Unix("/run/h.sock") }), libvirt: None }"#
            ]],
        );
        check(
            "allow: [libvirt.migrate]\nlibvirt: {own: ['vm*'], bandwidth_max: 100MiB, migration_uri: 'qemu+tls://h1/system'}",
            &expect![[
                r#"DriveConfig { allow: {"libvirt.migrate"}, hold_file: "/etc/petrel/hold", haproxy: None, libvirt: Some(LibvirtConfig { shell: Shell(Virsh { program: "virsh", uri: "qemu:///system" }), own: ["vm*"], migration_uri: "qemu+tls://h1/system", bandwidth_max_mib_s: 100, migration_tls: true, carries_petrel: false, shared_paths: [], metadata_ignored: [] }) }"#
            ]],
        );
    }

    #[test]
    fn wrong_values_say_what_is_allowed() {
        check(
            "allow: [haproxy.explode]",
            &expect![
                "drive.allow: no driver has an action `haproxy.explode`; allowed are haproxy.drain, haproxy.ready, haproxy.set_weight, libvirt.migrate"
            ],
        );
        check(
            "allow: [haproxy.drain]",
            &expect!["drive.allow: `haproxy.drain` needs the part drive.haproxy; write it, or remove the action"],
        );
        check(
            "allow: [haproxy.drain]\nhaproxy: {enabled: false}",
            &expect!["drive.allow: `haproxy.drain` needs the part drive.haproxy; write it, or remove the action"],
        );
        check(
            "allow: [libvirt.migrate]\nlibvirt: {}",
            &expect!["drive.libvirt.bandwidth_max: ``: libvirt.migrate needs a cap, for example 100MiB"],
        );
        check(
            "haproxy: {socket: 'localhost'}",
            &expect!["drive.haproxy.socket: `localhost`: write the absolute path of a Unix socket, or host:port"],
        );
        check(
            "libvirt: {bandwidth_max: 1KiB}",
            &expect!["drive.libvirt.bandwidth_max: `1KiB`: write at least 1MiB (a second)"],
        );
        check(
            "libvirt: {migration_uri: 'qemu:///system'}",
            &expect![
                "drive.libvirt.migration_uri: `qemu:///system`: write how other hosts reach this libvirt, for example qemu+tls://h2/system, or leave it empty"
            ],
        );
    }
}
