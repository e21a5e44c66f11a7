//! What a BMC answers over Redfish, turned into metrics. Pure; schemas are DMTF's ComputerSystem, Chassis, Thermal, Power and
//! LogEntry. A field that is missing or of another type is left out, as BMCs differ in what they fill.

use serde_json::Value;

use crate::collect::Kind::Gauge;
use crate::collect::columns::{Column, Columns};

/// The families of all BMCs that are asked over Redfish.
pub(super) const COLUMNS: [Column; 8] = [
    ("petrel_bmc_health", Gauge, "Health of a part of the host as its BMC sees it (0=OK, 1=warning, 2=critical)."),
    ("petrel_bmc_temperature_celsius", Gauge, "Temperature that the BMC reads."),
    ("petrel_bmc_fan_speed_rpm", Gauge, "Fan speed that the BMC reads, in rotations per minute."),
    ("petrel_bmc_fan_speed_ratio", Gauge, "Fan speed that the BMC reads, as a share of the highest."),
    ("petrel_bmc_voltage_volts", Gauge, "Voltage that the BMC reads."),
    ("petrel_bmc_power_watts", Gauge, "Power that the host takes."),
    ("petrel_bmc_sensor_state", Gauge, "State of a sensor or a power supply (0=OK, 1=warning, 2=critical)."),
    (
        "petrel_bmc_event_log_entries",
        Gauge,
        "Entries of an event log of the BMC, by severity; of long logs the first page.",
    ),
];

/// Sensors of one kind that are taken of one host.
const SENSORS_MAX: usize = 128;

/// A list of sensors: their kind, where a reading stands, and which family it belongs to.
struct Sensors {
    kind: &'static str,
    reading: &'static str,
    family: fn(&Value) -> &'static str,
}

/// Labels that stand before a point's own.
pub(super) type Of<'a> = &'a [(&'static str, &'a str)];

/// `PowerState` of a system: on, off, or neither while it changes.
pub(super) fn power_on(system: &Value) -> Option<bool> {
    match system["PowerState"].as_str()? {
        "On" => Some(true),
        "Off" => Some(false),
        _ => None,
    }
}

/// Paths of what a resource links to: `@odata.id` of `links`, or of its members.
pub(super) fn paths(links: &Value) -> Vec<&str> {
    let one = |link: &'_ Value| link["@odata.id"].as_str().map(str::len).is_some();
    match links {
        Value::Array(all) => all.iter().filter_map(|link| link["@odata.id"].as_str()).filter(is_ours).collect(),
        link if one(link) => link["@odata.id"].as_str().into_iter().filter(is_ours).collect(),
        _ => Vec::new(),
    }
}

/// Credentials go to no other place than the BMC's own tree, whatever it says.
fn is_ours(path: &&str) -> bool {
    path.starts_with("/redfish/v1/") && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
}

/// Adds the health of a system and of its processors and memory.
pub(super) fn push_system(system: &Value, of: Of<'_>, columns: &mut Columns) {
    for (part, status) in [
        ("system", &system["Status"]),
        ("processors", &system["ProcessorSummary"]["Status"]),
        ("memory", &system["MemorySummary"]["Status"]),
    ] {
        push_health(part, status, of, columns);
    }
}

/// Adds temperatures and fans, and the worst of each as a part's health.
pub(super) fn push_thermal(thermal: &Value, of: Of<'_>, columns: &mut Columns) {
    let (kind, reading) = ("temperature", "ReadingCelsius");
    let temperatures = Sensors { kind, reading, family: |_| "petrel_bmc_temperature_celsius" };
    push_sensors(&thermal["Temperatures"], &temperatures, of, columns);
    let family = |fan: &Value| match fan["ReadingUnits"].as_str() {
        Some("Percent") => "petrel_bmc_fan_speed_ratio",
        _ => "petrel_bmc_fan_speed_rpm",
    };
    push_sensors(&thermal["Fans"], &Sensors { kind: "fans", reading: "Reading", family }, of, columns);
}

/// Adds power, voltages and power supplies.
pub(super) fn push_power(power: &Value, of: Of<'_>, columns: &mut Columns) {
    let (kind, reading) = ("power", "PowerConsumedWatts");
    let watts = Sensors { kind, reading, family: |_| "petrel_bmc_power_watts" };
    push_sensors(&power["PowerControl"], &watts, of, columns);
    let (kind, reading) = ("voltages", "ReadingVolts");
    let volts = Sensors { kind, reading, family: |_| "petrel_bmc_voltage_volts" };
    push_sensors(&power["Voltages"], &volts, of, columns);
    // A power supply's own reading differs from maker to maker; its state is what matters.
    push_sensors(&power["PowerSupplies"], &Sensors { kind: "power_supplies", reading: "", ..watts }, of, columns);
}

/// Adds how many entries of each severity a log has.
pub(super) fn push_log(log: &str, entries: &Value, of: Of<'_>, columns: &mut Columns) {
    let Some(members) = entries["Members"].as_array() else { return };
    for severity in ["OK", "Warning", "Critical"] {
        let count = members.iter().filter(|entry| entry["Severity"].as_str() == Some(severity)).count();
        let labels = [of, &[("log", log), ("severity", severity)]].concat();
        columns.push("petrel_bmc_event_log_entries", &labels, count as f64);
    }
}

/// Adds a list of sensors, and the worst of them as a part's health.
fn push_sensors(list: &Value, sensors: &Sensors, of: Of<'_>, columns: &mut Columns) {
    let Sensors { kind, reading, family } = sensors;
    let mut worst: Option<f64> = None;
    for (place, sensor) in list.as_array().into_iter().flatten().take(SENSORS_MAX).enumerate() {
        // A slot without a fan or a power supply is no fault.
        if sensor["Status"]["State"].as_str() == Some("Absent") {
            continue;
        }
        let unnamed = place.to_string();
        let name = [&sensor["Name"], &sensor["FanName"], &sensor["MemberId"]].into_iter().find_map(Value::as_str);
        let labels = [of, &[("sensor", name.unwrap_or(&unnamed))]].concat();
        if let Some(value) = sensor[*reading].as_f64() {
            let family = family(sensor);
            columns.push(family, &labels, if family.ends_with("_ratio") { value / 100.0 } else { value });
        }
        if let Some(state) = state(&sensor["Status"]) {
            worst = Some(worst.map_or(state, |worst: f64| worst.max(state)));
            columns.push("petrel_bmc_sensor_state", &[&labels[..], &[("kind", kind)]].concat(), state);
        }
    }
    if let Some(worst) = worst {
        columns.push("petrel_bmc_health", &[of, &[("part", kind)]].concat(), worst);
    }
}

fn push_health(part: &str, status: &Value, of: Of<'_>, columns: &mut Columns) {
    if let Some(state) = state(status) {
        columns.push("petrel_bmc_health", &[of, &[("part", part)]].concat(), state);
    }
}

/// The worse of a resource's own health and that of what it is made of.
fn state(status: &Value) -> Option<f64> {
    let of = |key: &str| match status[key].as_str()? {
        "OK" => Some(0.0),
        "Warning" => Some(1.0),
        "Critical" => Some(2.0),
        _ => None,
    };
    // Sushy writes HealthRollUp, the schema HealthRollup.
    [of("Health"), of("HealthRollup"), of("HealthRollUp")].into_iter().flatten().reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;

    fn all(system: &Value, thermal: &Value, power: &Value, log: &Value) -> String {
        let (of, mut columns) = ([("host", "h1")], Columns::new(&COLUMNS));
        push_system(system, &of, &mut columns);
        push_thermal(thermal, &of, &mut columns);
        push_power(power, &of, &mut columns);
        push_log("SEL", log, &of, &mut columns);
        columns.samples(|_| true)
    }

    #[test]
    fn a_hot_processor_as_sushy_shows_it() {
        let read = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
        let system = read(include_str!("../../../testdata/redfish/system.json"));
        let thermal = read(include_str!("../../../testdata/redfish/thermal.json"));
        assert_eq!(power_on(&system), Some(true));
        assert_eq!(paths(&system["Links"]["Chassis"]).len(), 1);
        expect![[r#"
            petrel_bmc_health{host="h1",part="system"} 0
            petrel_bmc_health{host="h1",part="processors"} 0
            petrel_bmc_health{host="h1",part="memory"} 0
            petrel_bmc_health{host="h1",part="temperature"} 2
            petrel_bmc_health{host="h1",part="fans"} 0
            petrel_bmc_temperature_celsius{host="h1",sensor="CPU Temp h1"} 88
            petrel_bmc_fan_speed_rpm{host="h1",sensor="FAN h1"} 6200
            petrel_bmc_sensor_state{host="h1",sensor="CPU Temp h1",kind="temperature"} 2
            petrel_bmc_sensor_state{host="h1",sensor="FAN h1",kind="fans"} 0
        "#]]
        .assert_eq(&all(&system, &thermal, &Value::Null, &Value::Null));
    }

    /// Fields as the schemas Power 1.7 and LogEntry 1.13 have them; no such BMC was at hand.
    #[test]
    fn power_supplies_and_event_logs() {
        let power = serde_json::json!({
            "PowerControl": [{"Name": "System", "PowerConsumedWatts": 212}],
            "Voltages": [{"Name": "12V", "ReadingVolts": 12.1, "Status": {"Health": "OK"}}],
            "PowerSupplies": [
                {"MemberId": "PSU1", "Status": {"State": "Enabled", "Health": "Critical"}},
                {"MemberId": "PSU2", "Status": {"State": "Absent", "Health": "Critical"}},
            ],
        });
        let log = serde_json::json!({"Members": [{"Severity": "Critical"}, {"Severity": "OK"}, {"Severity": "OK"}]});
        let fans = serde_json::json!({"Fans": [{"FanName": "F1", "Reading": 40, "ReadingUnits": "Percent"}]});
        expect![[r#"
            petrel_bmc_health{host="h1",part="voltages"} 0
            petrel_bmc_health{host="h1",part="power_supplies"} 2
            petrel_bmc_fan_speed_ratio{host="h1",sensor="F1"} 0.4
            petrel_bmc_voltage_volts{host="h1",sensor="12V"} 12.1
            petrel_bmc_power_watts{host="h1",sensor="System"} 212
            petrel_bmc_sensor_state{host="h1",sensor="12V",kind="voltages"} 0
            petrel_bmc_sensor_state{host="h1",sensor="PSU1",kind="power_supplies"} 2
            petrel_bmc_event_log_entries{host="h1",log="SEL",severity="OK"} 2
            petrel_bmc_event_log_entries{host="h1",log="SEL",severity="Warning"} 0
            petrel_bmc_event_log_entries{host="h1",log="SEL",severity="Critical"} 1
        "#]]
        .assert_eq(&all(&Value::Null, &fans, &power, &log));
    }

    #[test]
    fn credentials_stay_within_the_tree() {
        let links = serde_json::json!([
            {"@odata.id": "/redfish/v1/Chassis/1"}, {"@odata.id": "//evil/redfish/v1/"}, {"@odata.id": "https://evil/"}, {},
        ]);
        assert_eq!(paths(&links), ["/redfish/v1/Chassis/1"]);
        assert_eq!(paths(&serde_json::json!({"@odata.id": "/redfish/v1/x"})), ["/redfish/v1/x"]);
        for state in ["PoweringOff", "Paused"] {
            assert_eq!(power_on(&serde_json::json!({ "PowerState": state })), None);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn never_panics(name in ".{0,20}", number in any::<f64>(), key in "Temperatures|Fans|PowerSupplies|Members|Status") {
            let odd = serde_json::json!({ key: [{"Name": name, "Reading": number, "Status": {"Health": name}}, number, null] });
            all(&odd, &odd, &odd, &odd);
            let _ = (power_on(&odd), paths(&odd));
        }
    }
}
