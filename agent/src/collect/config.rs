//! What the collectors may be told: where the kernel's trees are mounted, how often to look, what to leave out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Collector;
use super::collectors::names;
use crate::drive::{DriveConfig, HaproxyConfig, LibvirtConfig};
use crate::units::Span;

/// Collectors as written in the agent's config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawCollectConfig {
    /// Time between two collections, 1s to 60s.
    pub interval: Span,
    /// Where procfs is mounted.
    pub procfs: PathBuf,
    /// Where sysfs is mounted.
    pub sysfs: PathBuf,
    /// Where the host's root file system is mounted; mount points are looked up below it and named without it.
    pub rootfs: PathBuf,
    /// Folder whose files `*.prom` hold further series, which other programs write. No default.
    pub textfile: Option<PathBuf>,
    /// Collectors to add: those that are off by default, because they cost much or have very many series.
    pub with: Vec<String>,
    /// Collectors to leave out; petrel_collector_success names those that run.
    pub without: Vec<String>,
}

/// Collectors as checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectConfig {
    /// Time between two collections.
    pub interval: Duration,
    /// Where to read.
    pub roots: Roots,
    /// Folder with files of further series.
    pub textfile: Option<PathBuf>,
    with: Vec<String>,
    without: Vec<String>,
    /// Every collector runs, whatever its default.
    all: bool,
    /// The libvirt that the driver uses, where the config names one.
    pub(super) libvirt: Option<LibvirtConfig>,
    /// The same of HAProxy.
    pub(super) haproxy: Option<HaproxyConfig>,
}

/// Where the kernel's trees are mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    /// procfs.
    pub procfs: PathBuf,
    /// sysfs.
    pub sysfs: PathBuf,
    /// The host's root file system.
    pub rootfs: PathBuf,
}

/// What is wrong with the config.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckCollectConfigError {
    /// The interval is out of range.
    #[error("interval: {0} is not allowed; use 1s to 60s")]
    Interval(Span),
    /// A root is a relative path.
    #[error("{key}: {} is not an absolute path; write it from / on", path.display())]
    Relative {
        /// Which root.
        key: &'static str,
        /// What was written.
        path: PathBuf,
    },
    /// There is no such collector.
    #[error("{key}: there is no collector {name:?}; there are {known}")]
    UnknownCollector {
        /// `with` or `without`.
        key: &'static str,
        /// What was written.
        name: String,
        /// All that there are.
        known: String,
    },
}

impl Default for RawCollectConfig {
    fn default() -> RawCollectConfig {
        RawCollectConfig {
            interval: Span(Duration::from_secs(10)),
            procfs: PathBuf::from("/proc"),
            sysfs: PathBuf::from("/sys"),
            rootfs: PathBuf::from("/"),
            textfile: None,
            with: Vec::new(),
            without: Vec::new(),
        }
    }
}

impl RawCollectConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// Names the first wrong key, its value and what is allowed.
    pub fn check(&self) -> Result<CollectConfig, CheckCollectConfigError> {
        let interval = self.interval.0;
        if !(Duration::from_secs(1)..=Duration::from_secs(60)).contains(&interval) {
            return Err(CheckCollectConfigError::Interval(self.interval));
        }
        let folders = [("procfs", &self.procfs), ("sysfs", &self.sysfs), ("rootfs", &self.rootfs)];
        for (key, path) in folders.into_iter().chain(self.textfile.as_ref().map(|path| ("textfile", path))) {
            if !path.is_absolute() {
                return Err(CheckCollectConfigError::Relative { key, path: path.clone() });
            }
        }
        let roots = Roots { procfs: self.procfs.clone(), sysfs: self.sysfs.clone(), rootfs: self.rootfs.clone() };
        let (with, without) = (self.with.clone(), self.without.clone());
        let textfile = self.textfile.clone();
        let config =
            CollectConfig { interval, roots, textfile, with, without, all: false, libvirt: None, haproxy: None };
        let known = names(&config);
        for (key, wanted) in [("with", &config.with), ("without", &config.without)] {
            if let Some(name) = wanted.iter().find(|name| !known.contains(&name.as_str())) {
                let (name, known) = (name.clone(), known.join(", "));
                return Err(CheckCollectConfigError::UnknownCollector { key, name, known });
            }
        }
        Ok(config)
    }
}

impl CollectConfig {
    /// The defaults with other kernel trees. Where procfs is not the host's own, the root file system is taken to be the
    /// folder that holds it, as with a host mounted at `/host`.
    pub fn at(procfs: &Path, sysfs: &Path) -> CollectConfig {
        let rootfs = match procfs.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("/"),
        };
        let roots = Roots { procfs: procfs.to_owned(), sysfs: sysfs.to_owned(), rootfs };
        let interval = RawCollectConfig::default().interval.0;
        CollectConfig {
            interval,
            roots,
            textfile: None,
            with: Vec::new(),
            without: Vec::new(),
            all: false,
            libvirt: None,
            haproxy: None,
        }
    }

    /// The same with the series of a folder's files.
    pub fn with_textfile(self, textfile: Option<PathBuf>) -> CollectConfig {
        CollectConfig { textfile, ..self }
    }

    /// The same, with guests and balancers looked for where the drivers find them.
    pub fn beside(self, drive: &DriveConfig) -> CollectConfig {
        CollectConfig { libvirt: drive.libvirt.clone(), haproxy: drive.haproxy.clone(), ..self }
    }

    /// The same with every collector, also those that are off by default.
    pub(super) fn with_all(self) -> CollectConfig {
        CollectConfig { all: true, ..self }
    }

    /// The same without one collector.
    #[cfg(test)]
    pub(super) fn leaving_out(mut self, name: &str) -> CollectConfig {
        self.without.push(name.to_owned());
        self
    }

    /// Whether a collector runs.
    pub(super) fn wants(&self, collector: &dyn Collector) -> bool {
        let is_in = |names: &[String]| names.iter().any(|name| name == collector.name());
        !is_in(&self.without) && (self.all || collector.is_default() || is_in(&self.with))
    }
}

impl Roots {
    /// Where udev keeps what it knows of devices: `run/udev/data` of the host, or `udev/data` in a copied tree.
    pub(in crate::collect) fn udev(&self) -> PathBuf {
        let live = self.rootfs.join("run/udev/data");
        if live.is_dir() { live } else { self.rootfs.join("udev/data") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_allowed_and_wrong_values_are_named() {
        assert_eq!(
            RawCollectConfig::default().check().unwrap(),
            CollectConfig::at(Path::new("/proc"), Path::new("/sys"))
        );
        for (yaml, complaint) in [
            ("interval: 500ms", "interval: 500ms is not allowed; use 1s to 60s"),
            ("interval: 61s", "interval: 1m1s is not allowed; use 1s to 60s"),
            ("textfile: prom", "textfile: prom is not an absolute path; write it from / on"),
            ("procfs: proc", "procfs: proc is not an absolute path; write it from / on"),
            ("without: [disk]", "without: there is no collector \"disk\"; there are cpu,"),
        ] {
            let raw: RawCollectConfig = serde_saphyr::from_str(yaml).unwrap();
            let told = raw.check().unwrap_err().to_string();
            assert!(told.starts_with(complaint), "{told}");
        }
        assert!(serde_saphyr::from_str::<RawCollectConfig>("intervall: 5s").is_err());
    }
}
