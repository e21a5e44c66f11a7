//! What sysfs says of each network device: link, speed, addresses, settings. A device has two dozen files; three of them
//! tell whether anything changed, and only then, or after a minute, the others are read.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::attribute::{Attribute, AttributeReader, Minutes, names_in};
use super::super::{CollectError, Collector, Family, Kind, Pace, Roots};

/// Network devices.
pub(super) struct Netclass {
    class: PathBuf,
    minutes: Minutes,
    devices: Vec<Device>,
    reader: AttributeReader,
}

/// A driver whose firmware hangs holds the lock that reading a speed takes.
const WITHIN: Duration = Duration::from_secs(10);
/// Devices whose signs are kept open; beyond that they are opened each time.
const KEPT_MAX: usize = 64;

/// Files that change when anything else does: a link that comes or goes changes two of them.
const SIGNS: [&str; 3] = ["operstate", "carrier_changes", "flags"];

/// File, name after `node_network_`, type.
const NUMBERS: [(&str, &str, Kind); 17] = [
    ("addr_assign_type", "address_assign_type", Kind::Gauge),
    ("carrier", "carrier", Kind::Gauge),
    ("carrier_changes", "carrier_changes_total", Kind::Counter),
    ("carrier_up_count", "carrier_up_changes_total", Kind::Counter),
    ("carrier_down_count", "carrier_down_changes_total", Kind::Counter),
    ("dev_id", "device_id", Kind::Gauge),
    ("dormant", "dormant", Kind::Gauge),
    ("flags", "flags", Kind::Gauge),
    ("ifindex", "iface_id", Kind::Gauge),
    ("iflink", "iface_link", Kind::Gauge),
    ("link_mode", "iface_link_mode", Kind::Gauge),
    ("mtu", "mtu_bytes", Kind::Gauge),
    ("name_assign_type", "name_assign_type", Kind::Gauge),
    ("netdev_group", "net_dev_group", Kind::Gauge),
    (SPEED, "speed_bytes", Kind::Gauge),
    ("tx_queue_len", "transmit_queue_length", Kind::Gauge),
    ("type", "protocol_type", Kind::Gauge),
];
const SPEED: &str = "speed";
const FLAGS: usize = 7;
const MEGABIT_BYTES: i64 = 1_000_000 / 8;

/// Texts, which become labels of `node_network_info`.
const TEXTS: [&str; 5] = ["address", "broadcast", "duplex", "operstate", "ifalias"];
const OPERSTATE: usize = 3;
/// The flag of a device that somebody switched on.
const UP: i64 = 1;

struct Device {
    name: String,
    folder: PathBuf,
    signs: [Attribute; SIGNS.len()],
    seen: [Option<String>; SIGNS.len()],
    /// Readings until the files are read whatever the signs say.
    left: u32,
    numbers: [Option<i64>; NUMBERS.len()],
    texts: [String; TEXTS.len()],
}

impl Netclass {
    pub(super) fn new(roots: &Roots, interval: Duration) -> Netclass {
        Netclass {
            class: roots.sysfs.join("class/net"),
            minutes: Minutes::new(interval),
            devices: Vec::new(),
            reader: AttributeReader::new(),
        }
    }

    /// Keeps the devices that are still there and takes up new ones.
    fn look_around(&mut self) -> Result<(), CollectError> {
        let names = names_in(&self.class).map_err(|_| CollectError::Absent { path: self.class.clone() })?;
        let mut known = std::mem::take(&mut self.devices).into_iter().peekable();
        for (place, name) in names.into_iter().enumerate() {
            while known.peek().is_some_and(|device| device.name < name) {
                known.next();
            }
            let folder = self.class.join(&name);
            match known.next_if(|device| device.name == name) {
                Some(device) => self.devices.push(device),
                // Beside the devices stands `bonding_masters`, which is a file.
                None if folder.is_dir() => self.devices.push(Device::new(name, folder, place < KEPT_MAX)),
                None => {}
            }
        }
        Ok(())
    }
}

impl Device {
    fn new(name: String, folder: PathBuf, keeps_open: bool) -> Device {
        Device {
            signs: SIGNS.map(|file| Attribute::new(folder.join(file), keeps_open)),
            seen: [const { None }; SIGNS.len()],
            left: 0,
            numbers: [None; NUMBERS.len()],
            texts: [const { String::new() }; TEXTS.len()],
            name,
            folder,
        }
    }

    /// Reads the signs, and the rest where they changed or the last reading of it is a minute old. Devices take turns in
    /// that minute: `place` spreads them. False for a device that went away.
    fn refresh(&mut self, place: u32, minutes: &Minutes, reader: &mut AttributeReader) -> bool {
        let mut is_changed = false;
        for (sign, seen) in self.signs.iter_mut().zip(&mut self.seen) {
            let said = reader.read_kept(sign).ok();
            if said.as_deref() != seen.as_deref() {
                is_changed = true;
                *seen = said.map(std::borrow::Cow::into_owned);
            }
        }
        if self.seen.iter().all(Option::is_none) {
            return false;
        }
        if !is_changed && self.left > 0 {
            self.left -= 1;
            return true;
        }
        let is_first = self.numbers.iter().all(Option::is_none);
        self.left = if is_first { place % minutes.readings() } else { minutes.readings() - 1 };
        self.numbers = NUMBERS.map(|(file, ..)| number(&self.folder.join(file), reader));
        self.texts = TEXTS.map(|file| reader.word(&self.folder.join(file)).unwrap_or_default());
        true
    }

    fn push(&self, columns: &mut [Family], up: &mut Family, info: &mut Family) {
        let device = ("device", self.name.as_str());
        up.push(&[device], f64::from(u8::from(self.texts[OPERSTATE] == "up")));
        let adminstate = match self.numbers[FLAGS] {
            None => "unknown",
            Some(flags) if flags & UP == UP => "up",
            Some(_) => "down",
        };
        let mut labels = [device, ("adminstate", adminstate), ("", ""), ("", ""), ("", ""), ("", ""), ("", "")];
        for (label, text) in labels[2..].iter_mut().zip(TEXTS.iter().zip(&self.texts)) {
            *label = (text.0, text.1);
        }
        info.push(&labels, 1.0);
        for ((family, value), (file, ..)) in columns.iter_mut().zip(self.numbers).zip(NUMBERS) {
            match value {
                // A device that does not know its speed says -1.
                Some(value) if file == SPEED && value < 0 => {}
                Some(value) if file == SPEED => family.push(&[device], value.saturating_mul(MEGABIT_BYTES) as f64),
                Some(value) => family.push(&[device], value as f64),
                None => {}
            }
        }
    }
}

/// A number in decimal, or in hexadecimal after `0x`. A link that is down refuses to tell carrier and speed.
fn number(path: &Path, reader: &mut AttributeReader) -> Option<i64> {
    let text = reader.read(path).ok()?;
    let text = text.trim();
    match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

impl Collector for Netclass {
    fn name(&self) -> &'static str {
        "netclass"
    }

    fn pace(&self) -> Pace {
        Pace::Apart { every: Duration::ZERO, within: WITHIN }
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        self.look_around()?;
        let (minutes, reader) = (&self.minutes, &mut self.reader);
        let mut place = 0;
        self.devices.retain_mut(|device| {
            place += 1;
            device.refresh(place, minutes, reader)
        });
        let mut up = Family::new(Kind::Gauge, "node_network_up", "Value is 1 if operstate is 'up', 0 otherwise.");
        let help = "Non-numeric data from /sys/class/net/<iface>, value is always 1.";
        let mut info = Family::new(Kind::Gauge, "node_network_info", help);
        let mut columns = NUMBERS.map(|(_, name, kind)| {
            Family::new(kind, format!("node_network_{name}"), format!("Network device property: {name}"))
        });
        for device in &self.devices {
            device.push(&mut columns, &mut up, &mut info);
        }
        families.extend([up, info]);
        families.extend(columns);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::super::{text, trial};
    use super::*;

    fn collected(netclass: &mut Netclass) -> String {
        let mut families = Vec::new();
        netclass.collect(&mut families).unwrap();
        trial::series(&text::render(&families))
    }

    fn write(folder: &Path, files: &[(&str, &str)]) {
        std::fs::create_dir_all(folder).unwrap();
        for (file, text) in files {
            std::fs::write(folder.join(file), text).unwrap();
        }
    }

    #[test]
    fn a_change_is_seen_by_its_signs_and_the_rest_in_a_minute() {
        let tree = tempfile::tempdir().unwrap();
        let class = tree.path().join("class/net");
        let eth0 = class.join("eth0");
        let roots =
            Roots { procfs: PathBuf::from("/nonexistent"), sysfs: tree.path().to_owned(), rootfs: PathBuf::from("/") };
        let mut netclass = Netclass::new(&roots, Duration::from_secs(20));
        assert!(matches!(netclass.collect(&mut Vec::new()), Err(CollectError::Absent { .. })));
        write(&class, &[("bonding_masters", "bond0\n")]);
        write(&eth0, &[("operstate", "up\n"), ("flags", "0x1003\n"), ("carrier_changes", "2\n"), ("mtu", "1500\n")]);
        write(&eth0, &[("speed", "1000\n"), ("duplex", "full\n"), ("ifalias", "to the rack\n"), ("carrier", "1\n")]);
        expect![[r#"
            node_network_up{device="eth0"} 1
            node_network_info{device="eth0",adminstate="up",address="",broadcast="",duplex="full",operstate="up",ifalias="to the rack"} 1
            node_network_carrier{device="eth0"} 1
            node_network_carrier_changes_total{device="eth0"} 2
            node_network_flags{device="eth0"} 4099
            node_network_mtu_bytes{device="eth0"} 1500
            node_network_speed_bytes{device="eth0"} 125000000
        "#]]
        .assert_eq(&collected(&mut netclass));

        write(&eth0, &[("mtu", "9000\n")]);
        let at = (0..3).position(|_| collected(&mut netclass).contains("mtu_bytes{device=\"eth0\"} 9000"));
        assert!(at.is_some(), "what has no sign is seen within a minute");

        write(&eth0, &[("operstate", "down\n"), ("carrier_changes", "3\n"), ("speed", "-1\n"), ("carrier", "0\n")]);
        write(&class.join("br0"), &[("operstate", "unknown\n"), ("flags", "0x0\n")]);
        expect![[r#"
            node_network_up{device="br0"} 0
            node_network_up{device="eth0"} 0
            node_network_info{device="br0",adminstate="down",address="",broadcast="",duplex="",operstate="unknown",ifalias=""} 1
            node_network_info{device="eth0",adminstate="up",address="",broadcast="",duplex="full",operstate="down",ifalias="to the rack"} 1
            node_network_carrier{device="eth0"} 0
            node_network_carrier_changes_total{device="eth0"} 3
            node_network_flags{device="br0"} 0
            node_network_flags{device="eth0"} 4099
            node_network_mtu_bytes{device="eth0"} 9000
        "#]]
        .assert_eq(&collected(&mut netclass));

        std::fs::remove_dir_all(&eth0).unwrap();
        assert!(!collected(&mut netclass).contains("eth0"));
    }
}
