//! What `ipmitool` prints, of this machine's BMC or of another's: sensors, the event log's fill, chassis faults. Names are
//! those of ipmi_exporter. Pure: who runs the tool, and against which BMC, decides the caller.

use crate::collect::Kind::Gauge;
use crate::collect::columns::{Column, Columns};

/// The families of one BMC or several.
pub(crate) const COLUMNS: [Column; 20] = [
    ("ipmi_temperature_celsius", Gauge, "Temperature reading in degree Celsius."),
    ("ipmi_temperature_state", Gauge, "Reported state of a temperature sensor (0=nominal, 1=warning, 2=critical)."),
    ("ipmi_fan_speed_rpm", Gauge, "Fan speed in rotations per minute."),
    ("ipmi_fan_speed_ratio", Gauge, "Fan speed as a proportion of the maximum speed."),
    ("ipmi_fan_speed_state", Gauge, "Reported state of a fan speed sensor (0=nominal, 1=warning, 2=critical)."),
    ("ipmi_voltage_volts", Gauge, "Voltage reading in Volts."),
    ("ipmi_voltage_state", Gauge, "Reported state of a voltage sensor (0=nominal, 1=warning, 2=critical)."),
    ("ipmi_current_amperes", Gauge, "Current reading in Amperes."),
    ("ipmi_current_state", Gauge, "Reported state of a current sensor (0=nominal, 1=warning, 2=critical)."),
    ("ipmi_power_watts", Gauge, "Power reading in Watts."),
    ("ipmi_power_state", Gauge, "Reported state of a power sensor (0=nominal, 1=warning, 2=critical)."),
    (
        "ipmi_sensor_value",
        Gauge,
        "Generic data read from an IPMI sensor of unknown type, relying on labels for context.",
    ),
    (
        "ipmi_sensor_state",
        Gauge,
        "Indicates the severity of the state reported by an IPMI sensor (0=nominal, 1=warning, 2=critical).",
    ),
    ("ipmi_sel_entries_count", Gauge, "Current number of log entries in the SEL."),
    ("ipmi_sel_free_space_bytes", Gauge, "Current free space remaining for new SEL entries."),
    ("ipmi_chassis_power_state", Gauge, "Current power state (1=on, 0=off)."),
    ("ipmi_dcmi_power_consumption_current_watts", Gauge, "Current power consumption in Watts."),
    ("ipmi_bmc_info", Gauge, "Constant metric with value '1' providing details about the BMC."),
    ("petrel_ipmi_chassis_fault", Gauge, "Whether the BMC reports this fault of the chassis."),
    ("petrel_ipmi_sel_overflow", Gauge, "Whether the SEL lost entries because it was full."),
];

/// One sensor as `ipmitool sdr elist` has it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sensor<'a> {
    /// Name.
    pub(crate) name: &'a str,
    /// The sensor's number, in decimal digits.
    pub(crate) id: String,
    /// What it belongs to: entity id and instance, such as `3.1`.
    pub(crate) entity: &'a str,
    /// How bad it is; `None` when the sensor does not say.
    pub(crate) state: Option<State>,
    /// The number with its unit, or words.
    pub(crate) reading: &'a str,
}

/// How bad a sensor's state is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// As it should be.
    Nominal,
    /// Over a non-critical threshold, or redundancy is less than it should be.
    Warning,
    /// Over a critical threshold, or failed.
    Critical,
}

/// Words of discrete sensors that are bad news, lower case; `ipmitool` calls every discrete state `ok`. The names are those of
/// IPMI 2.0, tables 42-2 and 42-3, as ipmitool writes them.
const CRITICAL: [&str; 18] = [
    "failure detected",
    "ac lost",
    "redundancy lost",
    "insufficient resources",
    "fault",
    "in failed array",
    "in critical array",
    "uncorrectable",
    "ierr",
    "thermal trip",
    "frb",
    "configuration error",
    "config error",
    "bus fatal",
    "critical interrupt",
    "to critical",
    "to non-recoverable",
    "chassis intrusion",
];
const WARNING: [&str; 9] = [
    "predictive failure",
    "redundancy degraded",
    "non-redundant",
    "correctable ecc",
    "rebuild in progress",
    "to non-critical",
    "throttled",
    "limit exceeded",
    "out-of-range",
];

/// Reads `ipmitool sdr elist`, with or without a word for which sensors. Lines that are none are left out.
pub(crate) fn sensors(text: &str) -> Vec<Sensor<'_>> {
    text.lines().filter_map(sensor).collect()
}

/// `CPU_Temp         | 01h | ucr |  3.1 | 88 degrees C`.
fn sensor(line: &str) -> Option<Sensor<'_>> {
    let mut cells = line.split('|').map(str::trim);
    let (name, number, status) = (cells.next()?, cells.next()?, cells.next()?);
    let (entity, reading) = (cells.next()?, cells.next()?);
    let id = u8::from_str_radix(number.strip_suffix('h')?, 16).ok()?.to_string();
    let state = match status {
        "ok" => Some(words_state(reading)),
        "nc" | "unc" | "lnc" => Some(State::Warning),
        "cr" | "ucr" | "lcr" | "nr" | "unr" | "lnr" => Some(State::Critical),
        _ => None,
    };
    Some(Sensor { name, id, entity, state, reading })
}

/// How bad the words of a discrete sensor are; numbers are nominal when their status is.
fn words_state(reading: &str) -> State {
    let reading = reading.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| reading.contains(word));
    // «Predictive Failure» and «Correctable ECC» hold words of worse things: take them out before looking for those.
    let worse = WARNING.iter().fold(reading.clone(), |text, word| {
        if CRITICAL.iter().any(|critical| word.contains(critical)) { text.replace(word, "") } else { text }
    });
    if CRITICAL.iter().any(|word| worse.contains(word)) {
        State::Critical
    } else if says(&WARNING) {
        State::Warning
    } else {
        State::Nominal
    }
}

/// Adds sensors. `of` stands before the sensors' own labels: which BMC, or nothing.
pub(crate) fn push_sensors(sensors: &[Sensor<'_>], of: &[(&'static str, &str)], columns: &mut Columns) {
    for sensor in sensors {
        let mut labels = of.to_vec();
        labels.extend([("id", sensor.id.as_str()), ("name", sensor.name)]);
        let measured = measure(sensor);
        let (value_name, state_name) = match &measured {
            Some(measured) => (measured.family, measured.state_family),
            None => ("", "ipmi_sensor_state"),
        };
        if state_name == "ipmi_sensor_state" {
            labels.push(("type", entity_name(sensor.entity)));
        }
        if let Some(measured) = measured {
            columns.push(value_name, &labels, measured.value);
        }
        if let Some(state) = sensor.state {
            columns.push(state_name, &labels, f64::from(state as u8));
        }
    }
}

struct Measured {
    family: &'static str,
    state_family: &'static str,
    value: f64,
}

/// The number of a reading such as `6200 RPM`, in the family of its unit.
fn measure(sensor: &Sensor<'_>) -> Option<Measured> {
    let (number, unit) = sensor.reading.split_once(' ').unwrap_or((sensor.reading, ""));
    let value: f64 = number.parse().ok().filter(|value: &f64| value.is_finite())?;
    let is_fan = sensor.name.to_lowercase().contains("fan");
    let (family, state_family, value) = match unit {
        "degrees C" => ("ipmi_temperature_celsius", "ipmi_temperature_state", value),
        "degrees F" => ("ipmi_temperature_celsius", "ipmi_temperature_state", (value - 32.0) / 1.8),
        "RPM" => ("ipmi_fan_speed_rpm", "ipmi_fan_speed_state", value),
        "percent" | "%" if is_fan => ("ipmi_fan_speed_ratio", "ipmi_fan_speed_state", value / 100.0),
        "Volts" => ("ipmi_voltage_volts", "ipmi_voltage_state", value),
        "Amps" => ("ipmi_current_amperes", "ipmi_current_state", value),
        "Watts" => ("ipmi_power_watts", "ipmi_power_state", value),
        _ => ("ipmi_sensor_value", "ipmi_sensor_state", value),
    };
    Some(Measured { family, state_family, value })
}

/// What an entity is (IPMI 2.0, table 43-13); the list of sensors does not tell their types.
fn entity_name(entity: &str) -> &'static str {
    match entity.split('.').next().unwrap_or_default() {
        "3" => "Processor",
        "4" | "26" => "Drive",
        "7" => "System Board",
        "8" | "32" => "Memory",
        "10" => "Power Supply",
        "11" => "Add-in Card",
        "15" => "Drive Backplane",
        "19" | "21" => "Power",
        "23" => "Chassis",
        "29" | "30" => "Cooling",
        "34" => "BIOS",
        "40" => "Battery",
        "55" => "Air Inlet",
        _ => "Other",
    }
}

/// Adds what `ipmitool sel info` says; whether that was an event log.
pub(crate) fn push_event_log(text: &str, of: &[(&'static str, &str)], columns: &mut Columns) -> bool {
    let entries = field(text, "Entries").and_then(leading_number);
    if let Some(entries) = entries {
        columns.push("ipmi_sel_entries_count", of, entries);
    }
    if let Some(bytes) = field(text, "Free Space").and_then(leading_number) {
        columns.push("ipmi_sel_free_space_bytes", of, bytes);
    }
    if let Some(overflow) = field(text, "Overflow") {
        columns.flag("petrel_ipmi_sel_overflow", of, overflow == "true");
    }
    entries.is_some()
}

/// Adds what `ipmitool chassis status` says; whether that was a chassis.
pub(crate) fn push_chassis(text: &str, of: &[(&'static str, &str)], columns: &mut Columns) -> bool {
    let power = field(text, "System Power");
    if let Some(power) = power {
        columns.flag("ipmi_chassis_power_state", of, power == "on");
    }
    for (key, fault) in [
        ("Power Overload", "power_overload"),
        ("Main Power Fault", "main_power"),
        ("Power Control Fault", "power_control"),
        ("Drive Fault", "drive"),
        ("Cooling/Fan Fault", "cooling"),
    ] {
        if let Some(value) = field(text, key) {
            let mut labels = of.to_vec();
            labels.push(("fault", fault));
            columns.flag("petrel_ipmi_chassis_fault", &labels, value == "true");
        }
    }
    power.is_some()
}

/// Whether the host is switched on, as `ipmitool chassis status` says; `None` where that is no chassis.
pub(crate) fn power_on(text: &str) -> Option<bool> {
    field(text, "System Power").map(|power| power == "on")
}

/// Adds what `ipmitool dcmi power reading` says; whether that was a reading. Many BMCs cannot.
pub(crate) fn push_power(text: &str, of: &[(&'static str, &str)], columns: &mut Columns) -> bool {
    let watts = field(text, "Instantaneous power reading").and_then(leading_number);
    if let Some(watts) = watts {
        columns.push("ipmi_dcmi_power_consumption_current_watts", of, watts);
    }
    watts.is_some()
}

/// Adds what `ipmitool mc info` says; whether that was a BMC.
pub(crate) fn push_bmc(text: &str, of: &[(&'static str, &str)], columns: &mut Columns) -> bool {
    let Some(firmware) = field(text, "Firmware Revision") else { return false };
    let maker = field(text, "Manufacturer Name").unwrap_or("Unknown");
    let maker = format!("{maker} ({})", field(text, "Manufacturer ID").unwrap_or_default());
    let mut labels = of.to_vec();
    labels.extend([("firmware_revision", firmware), ("manufacturer_id", &maker), ("system_firmware_version", "N/A")]);
    columns.push("ipmi_bmc_info", &labels, 1.0);
    true
}

/// The value of the first line `Key : value`.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.trim(), value.trim())).find(|(name, _)| *name == key).map(|(_, value)| value)
}

/// `15968 bytes` is 15968.
fn leading_number(text: &str) -> Option<f64> {
    text.split_ascii_whitespace().next()?.parse().ok().filter(|value: &f64| value.is_finite())
}

/// All that is read here, from one text, whatever it is: for fuzzing.
pub(super) fn hostile(text: &str) {
    let mut columns = Columns::new(&COLUMNS);
    push_sensors(&sensors(text), &[], &mut columns);
    push_event_log(text, &[], &mut columns);
    push_chassis(text, &[], &mut columns);
    push_power(text, &[], &mut columns);
    push_bmc(text, &[], &mut columns);
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;

    fn said(list: &str) -> String {
        let mut columns = Columns::new(&COLUMNS);
        push_sensors(&sensors(list), &[], &mut columns);
        columns.samples(|_| true)
    }

    #[test]
    fn a_hot_processor_is_critical() {
        expect![[r#"
            ipmi_temperature_celsius{id="1",name="CPU_Temp"} 88
            ipmi_temperature_celsius{id="2",name="Inlet_Temp"} 24
            ipmi_temperature_state{id="1",name="CPU_Temp"} 2
            ipmi_temperature_state{id="2",name="Inlet_Temp"} 0
            ipmi_fan_speed_rpm{id="3",name="FAN1"} 6200
            ipmi_fan_speed_state{id="3",name="FAN1"} 0
            ipmi_voltage_volts{id="4",name="PSU_12V"} 12
            ipmi_voltage_state{id="4",name="PSU_12V"} 0
        "#]]
        .assert_eq(&said(include_str!("../../../testdata/ipmi/sdr-elist-hot.txt")));
    }

    /// Lines as ipmitool's sources print them; no machine here has such sensors.
    #[test]
    fn other_units_and_discrete_sensors() {
        expect![[r#"
            ipmi_fan_speed_ratio{id="58",name="Fan 1 DutyCycle"} 0.22
            ipmi_fan_speed_state{id="58",name="Fan 1 DutyCycle"} 0
            ipmi_current_amperes{id="83",name="Current 1"} 0.4
            ipmi_current_state{id="83",name="Current 1"} 1
            ipmi_power_watts{id="90",name="Pwr Consumption"} 70
            ipmi_power_state{id="90",name="Pwr Consumption"} 0
            ipmi_sensor_value{id="9",name="Utilization",type="System Board"} 17
            ipmi_sensor_state{id="99",name="PS1 Status",type="Power Supply"} 0
            ipmi_sensor_state{id="100",name="PS2 Status",type="Power Supply"} 2
            ipmi_sensor_state{id="101",name="PS Redundancy",type="Power Supply"} 2
            ipmi_sensor_state{id="102",name="Drive 3",type="Drive"} 1
            ipmi_sensor_state{id="103",name="Mem",type="Memory"} 1
            ipmi_sensor_state{id="104",name="Mem2",type="Memory"} 2
            ipmi_sensor_state{id="9",name="Utilization",type="System Board"} 0
        "#]]
        .assert_eq(&said(
            "Fan 1 DutyCycle  | 3Ah | ok  |  7.1 | 22 percent\n\
             Current 1        | 53h | unc | 10.1 | 0.40 Amps\n\
             Pwr Consumption  | 5Ah | ok  |  7.1 | 70 Watts\n\
             PS1 Status       | 63h | ok  | 10.1 | Presence detected\n\
             PS2 Status       | 64h | ok  | 10.2 | Presence detected, Power Supply AC lost\n\
             PS Redundancy    | 65h | ok  | 10.3 | Redundancy Lost\n\
             Drive 3          | 66h | ok  |  4.3 | Drive Present, Predictive Failure\n\
             Mem              | 67h | ok  | 32.1 | Correctable ECC\n\
             Mem2             | 68h | ok  | 32.1 | Uncorrectable ECC\n\
             DIMM Temp        | 69h | ns  | 32.1 | No Reading\n\
             Utilization      | 09h | ok  |  7.1 | 17 unspecified\n\
             Could not open device at /dev/ipmi0\n",
        ));
    }

    #[test]
    fn event_log_chassis_power_and_controller() {
        let mut columns = Columns::new(&COLUMNS);
        let of = [("bmc", "h1")];
        assert!(push_event_log(include_str!("../../../testdata/ipmi/sel-info.txt"), &of, &mut columns));
        assert!(push_chassis(include_str!("../../../testdata/ipmi/chassis-status.txt"), &of, &mut columns));
        assert!(push_bmc(include_str!("../../../testdata/ipmi/mc-info.txt"), &of, &mut columns));
        assert!(push_power("    Instantaneous power reading:                   220 Watts\n", &of, &mut columns));
        assert!(!push_power("DCMI request failed because: Invalid command (c1)", &of, &mut columns));
        expect![[r#"
            ipmi_sel_entries_count{bmc="h1"} 2
            ipmi_sel_free_space_bytes{bmc="h1"} 15968
            ipmi_chassis_power_state{bmc="h1"} 1
            ipmi_dcmi_power_consumption_current_watts{bmc="h1"} 220
            ipmi_bmc_info{bmc="h1",firmware_revision="9.08",manufacturer_id="MontaVista Software, Inc. (4753)",system_firmware_version="N/A"} 1
            petrel_ipmi_chassis_fault{bmc="h1",fault="power_overload"} 0
            petrel_ipmi_chassis_fault{bmc="h1",fault="main_power"} 0
            petrel_ipmi_chassis_fault{bmc="h1",fault="power_control"} 0
            petrel_ipmi_chassis_fault{bmc="h1",fault="drive"} 0
            petrel_ipmi_chassis_fault{bmc="h1",fault="cooling"} 0
            petrel_ipmi_sel_overflow{bmc="h1"} 0
        "#]].assert_eq(&columns.samples(|_| true));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn never_panics(text in "((ok|ucr|[0-9a-fé]{1,3}h|[0-9.]{1,9} (RPM|Volts|percent)|Entries|Free Space|\\PC)[|:\n]? ?){0,30}") {
            let mut columns = Columns::new(&COLUMNS);
            push_sensors(&sensors(&text), &[], &mut columns);
            push_event_log(&text, &[], &mut columns);
            push_chassis(&text, &[], &mut columns);
            push_power(&text, &[], &mut columns);
            push_bmc(&text, &[], &mut columns);
        }
    }
}
