//! What a file of a monitoring chip means, by its name: which sensor, which metric, which unit. Pure.

use super::super::Kind;

/// The sensors that are shown; a chip's folder holds other files too.
const KINDS: [&str; 14] = [
    "vrm",
    "beep_enable",
    "update_interval",
    "in",
    "cpu",
    "fan",
    "pwm",
    "temp",
    "curr",
    "power",
    "energy",
    "humidity",
    "intrusion",
    "freq",
];

/// `temp1_crit_alarm`, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SensorFile<'a> {
    /// `temp`.
    pub(super) kind: &'static str,
    /// `temp1`; a file without a number is of sensor 0.
    pub(super) sensor: String,
    /// `crit_alarm`; may be empty.
    pub(super) property: &'a str,
}

/// What a file's number is shown as.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Metric {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) help: String,
    pub(super) unit: Unit,
}

/// How a file's number becomes the metric's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// As it is.
    Whole,
    /// Thousandths.
    Milli,
    /// Millionths.
    Micro,
    /// 1 counts, anything else does not.
    Switch,
}

impl Unit {
    /// The value of a file's text; `None` where it is no number.
    pub(super) fn value(self, text: &str) -> Option<f64> {
        if self == Unit::Switch {
            return Some(f64::from(u8::from(text == "1")));
        }
        let number: f64 = text.parse().ok()?;
        Some(match self {
            Unit::Milli => number * 0.001,
            Unit::Micro => number / 1e6,
            Unit::Whole | Unit::Switch => number,
        })
    }
}

impl SensorFile<'_> {
    /// Takes a file's name apart; `None` for files that are not of a sensor.
    pub(super) fn parse(name: &str) -> Option<SensorFile<'_>> {
        let digit = name.find(|letter: char| letter.is_ascii_digit()).unwrap_or(name.len());
        let (kind, rest) = name.split_at(digit);
        let end = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
        let (number, property) = rest.split_at(end);
        let property = match property.strip_prefix('_') {
            Some("") => return None,
            Some(property) => property,
            None if property.is_empty() => "",
            None => return None,
        };
        let kind = KINDS.into_iter().find(|known| *known == kind)?;
        let number: u32 = if number.is_empty() { 0 } else { number.parse().ok()? };
        Some(SensorFile { kind, sensor: format!("{kind}{number}"), property })
    }

    /// Whether it changes all the time; the rest are limits and settings.
    pub(super) fn is_live(&self) -> bool {
        matches!(self.property, "" | "input" | "average" | "fault") || self.property.ends_with("alarm")
    }

    /// The metric; `None` for a label, which is a text. `has_bare` says whether the sensor has a file without a property,
    /// `has_label` whether it has a label.
    pub(super) fn metric(&self, has_bare: bool, has_label: bool) -> Option<Metric> {
        let kind = self.kind;
        match kind {
            "beep_enable" => return Some(gauge("node_hwmon_beep_enabled", "Hardware beep enabled", Unit::Switch)),
            "vrm" => {
                return Some(gauge("node_hwmon_voltage_regulator_version", "Hardware voltage regulator", Unit::Whole));
            }
            "update_interval" => {
                let name = "node_hwmon_update_interval_seconds";
                return Some(gauge(name, "Hardware monitor update interval", Unit::Milli));
            }
            _ => {}
        }
        let name = match self.property {
            "label" => return None,
            "input" if has_bare => format!("node_hwmon_{kind}_input"),
            "" | "input" => format!("node_hwmon_{kind}"),
            property => format!("node_hwmon_{kind}_{}", clean(property)),
        };
        self.of_kind(&name, has_label)
    }

    /// The metric of a usual sensor: unit and help by kind and property.
    fn of_kind(&self, name: &str, has_label: bool) -> Option<Metric> {
        let (kind, property) = (self.kind, self.property);
        let with = |suffix: &str, help: String, unit| Some(gauge(format!("{name}{suffix}"), help, unit));
        match (kind, property) {
            (_, "fault" | "alarm") => with("", format!("Hardware sensor {property} status ({kind})"), Unit::Whole),
            (_, "beep") => with("_enabled", "Hardware monitor sensor has beeping enabled".to_owned(), Unit::Whole),
            ("in" | "cpu", _) => with("_volts", format!("Hardware monitor for voltage ({property})"), Unit::Milli),
            ("temp", property) if property != "type" => {
                let property = if property.is_empty() { "input" } else { property };
                with("_celsius", format!("Hardware monitor for temperature ({property})"), Unit::Milli)
            }
            ("curr", _) => with("_amps", format!("Hardware monitor for current ({property})"), Unit::Milli),
            ("energy", _) => {
                let help = format!("Hardware monitor for joules used so far ({property})");
                Some(Metric { kind: Kind::Counter, ..with("_joule_total", help, Unit::Micro)? })
            }
            ("power", "accuracy") => {
                with("", "Hardware monitor power meter accuracy, as a ratio".to_owned(), Unit::Micro)
            }
            ("power", "average_interval" | "average_interval_min" | "average_interval_max") => {
                with("_seconds", format!("Hardware monitor power usage update interval ({property})"), Unit::Milli)
            }
            ("power", _) => {
                with("_watt", format!("Hardware monitor for power usage in watts ({property})"), Unit::Micro)
            }
            ("humidity", _) => {
                let help = "Hardware monitor for humidity, as a ratio (multiply with 100.0 to get the humidity as a \
                            percentage)";
                with("", format!("{help} ({property})"), Unit::Micro)
            }
            ("fan", "input" | "min" | "max" | "target") => {
                with("_rpm", format!("Hardware monitor for fan revolutions per minute ({property})"), Unit::Whole)
            }
            ("freq", "input") => has_label
                .then(|| gauge(format!("{name}_freq_mhz"), "Hardware monitor for GPU frequency in MHz", Unit::Micro)),
            _ => with("", format!("Hardware monitor {kind} element {property}"), Unit::Whole),
        }
    }
}

fn gauge(name: impl Into<String>, help: impl Into<String>, unit: Unit) -> Metric {
    Metric { name: name.into(), kind: Kind::Gauge, help: help.into(), unit }
}

/// A text as part of a metric's name: small letters, digits, colons, and `_` for all else, not at the ends.
pub(super) fn clean(text: &str) -> String {
    let letter = |letter: char| match letter {
        'a'..='z' | '0'..='9' | ':' | '_' => letter,
        _ => '_',
    };
    let cleaned: String = text.to_lowercase().chars().map(letter).collect();
    cleaned.trim_matches('_').to_owned()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::super::super::trial;
    use super::*;

    const NAMES: &str = "temp1_input temp12_crit_alarm temp1_type temp2 in0 in0_input cpu0_vid fan1_input fan1_div \
        fan1_target fan2_fault pwm1 pwm1_auto_point2_temp curr1_max power1_average power1_accuracy \
        power1_average_interval_max energy1_input humidity1_input intrusion0_alarm intrusion0_beep freq1_input vrm \
        beep_enable update_interval temp1_label name temp1x temp1_ fan_x temp99999999999_input uevent";

    #[test]
    fn files_and_their_metrics() {
        let show = |name: &str| {
            let Some(file) = SensorFile::parse(name) else { return format!("{name}: not of a sensor\n") };
            let live = if file.is_live() { ", live" } else { "" };
            match file.metric(name.starts_with("in0"), true) {
                Some(metric) => format!("{name}: {} {} {:?}{live}\n", file.sensor, metric.name, metric.unit),
                None => format!("{name}: {} no metric\n", file.sensor),
            }
        };
        expect![[r"
            temp1_input: temp1 node_hwmon_temp_celsius Milli, live
            temp12_crit_alarm: temp12 node_hwmon_temp_crit_alarm_celsius Milli, live
            temp1_type: temp1 node_hwmon_temp_type Whole
            temp2: temp2 node_hwmon_temp_celsius Milli, live
            in0: in0 node_hwmon_in_volts Milli, live
            in0_input: in0 node_hwmon_in_input_volts Milli, live
            cpu0_vid: cpu0 node_hwmon_cpu_vid_volts Milli
            fan1_input: fan1 node_hwmon_fan_rpm Whole, live
            fan1_div: fan1 node_hwmon_fan_div Whole
            fan1_target: fan1 node_hwmon_fan_target_rpm Whole
            fan2_fault: fan2 node_hwmon_fan_fault Whole, live
            pwm1: pwm1 node_hwmon_pwm Whole, live
            pwm1_auto_point2_temp: pwm1 node_hwmon_pwm_auto_point2_temp Whole
            curr1_max: curr1 node_hwmon_curr_max_amps Milli
            power1_average: power1 node_hwmon_power_average_watt Micro, live
            power1_accuracy: power1 node_hwmon_power_accuracy Micro
            power1_average_interval_max: power1 node_hwmon_power_average_interval_max_seconds Milli
            energy1_input: energy1 node_hwmon_energy_joule_total Micro, live
            humidity1_input: humidity1 node_hwmon_humidity Micro, live
            intrusion0_alarm: intrusion0 node_hwmon_intrusion_alarm Whole, live
            intrusion0_beep: intrusion0 node_hwmon_intrusion_beep_enabled Whole
            freq1_input: freq1 node_hwmon_freq_freq_mhz Micro, live
            vrm: vrm0 node_hwmon_voltage_regulator_version Whole, live
            beep_enable: beep_enable0 node_hwmon_beep_enabled Switch, live
            update_interval: update_interval0 node_hwmon_update_interval_seconds Milli, live
            temp1_label: temp1 no metric
            name: not of a sensor
            temp1x: not of a sensor
            temp1_: not of a sensor
            fan_x: not of a sensor
            temp99999999999_input: not of a sensor
            uevent: not of a sensor
        "]]
        .assert_eq(&NAMES.split(' ').map(show).collect::<String>());
        assert_eq!(SensorFile::parse("freq1_input").unwrap().metric(false, false), None);
    }

    #[test]
    fn values_and_names() {
        assert_eq!((Unit::Milli.value("55000"), Unit::Micro.value("214000000")), (Some(55.0), Some(214.0)));
        assert_eq!(
            (Unit::Switch.value("1"), Unit::Switch.value("x"), Unit::Whole.value("x")),
            (Some(1.0), Some(0.0), None)
        );
        assert_eq!(
            (clean("asus-nb-wmi\n"), clean("0000:01:00.0"), clean("_Ä_")),
            ("asus_nb_wmi".to_owned(), "0000:01:00_0".to_owned(), String::new())
        );
    }

    proptest! {
        #![proptest_config(trial::few())]
        #[test]
        fn never_panics(bytes in trial::near("temp1_crit_alarm")) {
            let name = String::from_utf8_lossy(&bytes);
            if let Some(file) = SensorFile::parse(&name) {
                let _ = file.metric(true, false);
            }
            let _ = clean(&name);
        }
    }
}
