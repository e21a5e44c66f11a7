//! Temperatures, fans, voltages and currents, as the machine's monitoring chips report them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::attribute::{Attribute, AttributeReader, Minutes, names_in};
use super::super::{CollectError, Collector, Family, Kind, Pace, Roots};
use super::hwmon_chips::{Chip, chips};
use super::hwmon_file::{Metric, SensorFile};

/// Monitoring chips.
pub(super) struct Hwmon {
    class: PathBuf,
    minutes: Minutes,
    found: Found,
    reader: AttributeReader,
}

/// Chips may stand behind a bus that moves a byte in a tenth of a millisecond, or one that hangs.
const EVERY: Duration = Duration::from_secs(10);
const WITHIN: Duration = Duration::from_secs(30);
/// Most files that are kept open.
const OPEN_MAX: usize = 192;
/// Most sensors' files that are read at all; a large server has about 500.
const FILES_MAX: usize = 4096;

/// What there is in this minute.
#[derive(Default)]
struct Found {
    chips: Vec<Chip>,
    /// Chip, sensor, what the driver calls it.
    labels: Vec<(usize, String, String)>,
    /// By metric, chip and sensor.
    gauges: Vec<Gauge>,
}

/// One file that holds a number.
struct Gauge {
    metric: Metric,
    chip: usize,
    sensor: String,
    /// `None` for what is read once a minute.
    live: Option<Attribute>,
    value: Option<f64>,
}

/// A sensor's files by property: where each is, and what it said.
type Files = BTreeMap<String, (PathBuf, Option<String>)>;

impl Hwmon {
    pub(super) fn new(roots: &Roots) -> Hwmon {
        Hwmon {
            class: roots.sysfs.join("class/hwmon"),
            minutes: Minutes::new(EVERY),
            found: Found::default(),
            reader: AttributeReader::new(),
        }
    }

    fn look_around(&mut self) -> Result<(), CollectError> {
        self.found = Found::default();
        let chips = chips(&self.class, &mut self.reader).unwrap_or_default();
        if chips.is_empty() {
            self.minutes.restart();
            return Err(CollectError::Absent { path: self.class.join("hwmon0") });
        }
        for (place, chip) in chips.iter().enumerate() {
            let mut sensors = BTreeMap::new();
            // Old drivers put their files into the device's own folder.
            for folder in [chip.folder.clone(), chip.folder.join("device")] {
                read_sensors(&folder, &mut sensors, &mut self.reader);
            }
            for (sensor, files) in sensors {
                self.found.add(place, &sensor, files);
            }
        }
        self.found.chips = chips;
        self.found.sort();
        Ok(())
    }
}

/// Reads every file of the sensors in a folder.
fn read_sensors(folder: &Path, sensors: &mut BTreeMap<String, Files>, reader: &mut AttributeReader) {
    for name in names_in(folder).unwrap_or_default() {
        let Some(file) = SensorFile::parse(&name) else { continue };
        let path = folder.join(&name);
        let text = match reader.read(&path) {
            Ok(text) => Some(text.into_owned()),
            // Every device has a folder `power` that is not of a sensor.
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => continue,
            Err(_) => None,
        };
        sensors.entry(file.sensor).or_default().insert(name, (path, text));
    }
}

impl Found {
    fn add(&mut self, chip: usize, sensor: &str, files: Files) {
        let says = |wanted: &str| {
            let of_property = |name: &str| SensorFile::parse(name).is_some_and(|file| file.property == wanted);
            files.iter().find_map(|(name, (_, text))| text.as_deref().filter(|_| of_property(name)))
        };
        let (label, has_bare) = (says("label").map(str::to_owned), says("").is_some());
        for (name, (path, text)) in files {
            let Some(file) = SensorFile::parse(&name) else { continue };
            let Some(metric) = file.metric(has_bare, label.is_some()) else { continue };
            if self.gauges.len() >= FILES_MAX {
                break;
            }
            let value = text.and_then(|text| metric.unit.value(&text));
            let live = file.is_live().then(|| Attribute::new(path, self.gauges.len() < OPEN_MAX));
            if value.is_none() && live.is_none() {
                continue;
            }
            // A graphics processor's clocks are known by what they drive.
            let sensor = match (file.kind, file.property, &label) {
                ("freq", "input", Some(label)) => super::hwmon_file::clean(label),
                _ => sensor.to_owned(),
            };
            self.gauges.push(Gauge { metric, chip, sensor, live, value });
        }
        if let Some(label) = label {
            self.labels.push((chip, sensor.to_owned(), label));
        }
    }

    fn sort(&mut self) {
        let key = |gauge: &Gauge| (gauge.metric.name.clone(), gauge.chip, gauge.sensor.clone());
        self.gauges.sort_by_cached_key(key);
        self.gauges.dedup_by_key(|gauge| key(gauge));
    }

    fn append_to(&self, families: &mut Vec<Family>) {
        let gauge = |name, help| Family::new(Kind::Gauge, name, help);
        let mut names = gauge("node_hwmon_chip_names", "Annotation metric for human-readable chip names");
        let mut labels = gauge("node_hwmon_sensor_label", "Label for given chip and sensor");
        for chip in &self.chips {
            if let Some(name) = &chip.name {
                names.push(&[("chip", &chip.label), ("chip_name", name)], 1.0);
            }
        }
        for (chip, sensor, label) in &self.labels {
            labels.push(&[("chip", &self.chips[*chip].label), ("sensor", sensor), ("label", label)], 1.0);
        }
        families.extend([names, labels]);
        for same in self.gauges.chunk_by(|one, other| one.metric.name == other.metric.name) {
            let metric = &same[0].metric;
            let mut family = Family::new(metric.kind, metric.name.clone(), metric.help.clone());
            for gauge in same {
                if let Some(value) = gauge.value {
                    family.push(&[("chip", &self.chips[gauge.chip].label), ("sensor", &gauge.sensor)], value);
                }
            }
            families.push(family);
        }
    }
}

impl Collector for Hwmon {
    fn name(&self) -> &'static str {
        "hwmon"
    }

    fn pace(&self) -> Pace {
        Pace::Apart { every: EVERY, within: WITHIN }
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        if self.minutes.is_due() {
            self.look_around()?;
        } else {
            for gauge in &mut self.found.gauges {
                let Some(attribute) = &mut gauge.live else { continue };
                let text = self.reader.read_kept(attribute).ok();
                gauge.value = text.and_then(|text| gauge.metric.unit.value(&text));
            }
        }
        self.found.append_to(families);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::super::{text, trial};
    use super::*;

    fn collected(hwmon: &mut Hwmon) -> String {
        let mut families = Vec::new();
        hwmon.collect(&mut families).unwrap();
        trial::series(&text::render(&families))
    }

    /// Live values are read at every turn, limits and new chips once a minute, and what vanishes is silent at once.
    #[test]
    fn chips_come_and_go() {
        let tree = tempfile::tempdir().unwrap();
        let chip = tree.path().join("class/hwmon/hwmon0");
        std::fs::create_dir_all(&chip).unwrap();
        let roots =
            Roots { procfs: PathBuf::from("/nonexistent"), sysfs: tree.path().to_owned(), rootfs: PathBuf::from("/") };
        let write = |file: &str, text: &str| std::fs::write(chip.join(file), text).unwrap();
        let mut hwmon = Hwmon::new(&roots);
        for (file, text) in [
            ("name", "jc42\n"),
            ("temp1_input", "30500\n"),
            ("temp1_max", "80000\n"),
            ("temp1_label", "DIMM A1 \n"),
            ("fan1_input", "no number\n"),
            ("in0", "1\n"),
            ("in0_input", "2\n"),
        ] {
            write(file, text);
        }
        expect![[r#"
            node_hwmon_chip_names{chip="jc42",chip_name="jc42"} 1
            node_hwmon_sensor_label{chip="jc42",sensor="temp1",label="DIMM A1 "} 1
            node_hwmon_in_input_volts{chip="jc42",sensor="in0"} 0.002
            node_hwmon_in_volts{chip="jc42",sensor="in0"} 0.001
            node_hwmon_temp_celsius{chip="jc42",sensor="temp1"} 30.5
            node_hwmon_temp_max_celsius{chip="jc42",sensor="temp1"} 80
        "#]]
        .assert_eq(&collected(&mut hwmon));
        write("temp1_input", "31000\n");
        write("temp1_max", "85000\n");
        write("fan1_input", "1200\n");
        write("temp2_input", "1\n");
        std::fs::remove_file(chip.join("in0")).unwrap();
        let next = collected(&mut hwmon);
        expect![[r#"
            node_hwmon_chip_names{chip="jc42",chip_name="jc42"} 1
            node_hwmon_sensor_label{chip="jc42",sensor="temp1",label="DIMM A1 "} 1
            node_hwmon_fan_rpm{chip="jc42",sensor="fan1"} 1200
            node_hwmon_in_input_volts{chip="jc42",sensor="in0"} 0.002
            node_hwmon_temp_celsius{chip="jc42",sensor="temp1"} 31
            node_hwmon_temp_max_celsius{chip="jc42",sensor="temp1"} 80
        "#]]
        .assert_eq(&next);
    }
}
