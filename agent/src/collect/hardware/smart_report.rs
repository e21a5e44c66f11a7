//! What `smartctl --json` says of one disk, as smartctl_exporter's families, and which of its verdicts are bad news. Pure.

use serde_json::Value;

use crate::collect::Kind::Gauge;
use crate::collect::columns::{Column, Columns};

/// Gauges also where the exporter says counter: on the way to the server a counter's name must end in `_total`, and these
/// names do not.
pub(super) const COLUMNS: [Column; 38] = [
    ("smartctl_version", Gauge, "smartctl version"),
    ("smartctl_devices", Gauge, "Number of devices configured or dynamically discovered"),
    ("smartctl_device", Gauge, "Device info"),
    ("smartctl_device_capacity_blocks", Gauge, "Device capacity in blocks"),
    ("smartctl_device_capacity_bytes", Gauge, "Device capacity in bytes"),
    ("smartctl_device_block_size", Gauge, "Device block size"),
    ("smartctl_device_interface_speed", Gauge, "Device interface speed, bits per second"),
    ("smartctl_device_attribute", Gauge, "Device attributes"),
    ("smartctl_device_power_on_seconds", Gauge, "Device power on seconds"),
    ("smartctl_device_rotation_rate", Gauge, "Device rotation rate"),
    ("smartctl_device_temperature", Gauge, "Device temperature celsius"),
    ("smartctl_device_power_cycle_count", Gauge, "Device power cycle count"),
    ("smartctl_device_percentage_used", Gauge, "Device write percentage used"),
    (
        "smartctl_device_available_spare",
        Gauge,
        "Normalized percentage (0 to 100%) of the remaining spare capacity available",
    ),
    ("smartctl_device_available_spare_threshold", Gauge, "Available spare below which the device warns, in percent"),
    (
        "smartctl_device_critical_warning",
        Gauge,
        "This field indicates critical warnings for the state of the controller",
    ),
    ("smartctl_device_media_errors", Gauge, "Unrecovered data integrity errors that the controller detected"),
    ("smartctl_device_num_err_log_entries", Gauge, "Error information log entries over the life of the controller"),
    ("smartctl_device_nvme_capacity_bytes", Gauge, "NVMe device total capacity bytes"),
    ("smartctl_device_bytes_read", Gauge, "Bytes read by the host"),
    ("smartctl_device_bytes_written", Gauge, "Bytes written by the host"),
    ("smartctl_device_smart_status", Gauge, "General smart status"),
    ("smartctl_device_smartctl_exit_status", Gauge, "Exit status of smartctl on device"),
    ("smartctl_device_state", Gauge, "Device state (0=active, 1=standby, 2=sleep, 3=dst, 4=offline, 5=sct)"),
    ("smartctl_device_statistics", Gauge, "Device statistics"),
    ("smartctl_device_status", Gauge, "Device status"),
    ("smartctl_device_error_log_count", Gauge, "Device SMART error log count"),
    ("smartctl_device_self_test_log_count", Gauge, "Device SMART self test log count"),
    ("smartctl_device_self_test_log_error_count", Gauge, "Device SMART self test log error count"),
    ("smartctl_device_erc_seconds", Gauge, "Device SMART Error Recovery Control Seconds"),
    ("smartctl_scsi_grown_defect_list", Gauge, "Device SCSI grown defect list counter"),
    ("smartctl_read_errors_corrected_by_rereads_rewrites", Gauge, "Read Errors Corrected by ReReads/ReWrites"),
    ("smartctl_read_total_uncorrected_errors", Gauge, "Read Total Uncorrected Errors"),
    ("smartctl_write_errors_corrected_by_rereads_rewrites", Gauge, "Write Errors Corrected by ReReads/ReWrites"),
    ("smartctl_write_total_uncorrected_errors", Gauge, "Write Total Uncorrected Errors"),
    ("petrel_smart_problem", Gauge, "Whether smartctl reports this problem of the device."),
    ("petrel_smart_standby", Gauge, "Whether the device sleeps and so was left alone."),
    ("petrel_smart_unsafe_shutdowns", Gauge, "Times that an NVMe device lost power without being told before."),
];

/// A number of the report: its path, its family, and the factor to the base unit.
type Number = (&'static [&'static str], &'static str, f64);

/// NVMe counts in thousands of 512 bytes, whatever its blocks are.
const NVME_UNIT_BYTES: f64 = 512_000.0;
const NVME: &str = "nvme_smart_health_information_log";

const NUMBERS: [Number; 17] = [
    (&["user_capacity", "blocks"], "smartctl_device_capacity_blocks", 1.0),
    (&["user_capacity", "bytes"], "smartctl_device_capacity_bytes", 1.0),
    (&["power_cycle_count"], "smartctl_device_power_cycle_count", 1.0),
    (&["smartctl", "exit_status"], "smartctl_device_smartctl_exit_status", 1.0),
    (&["ata_sct_status", "device_state"], "smartctl_device_state", 1.0),
    (&["ata_sct_status", "device_state", "value"], "smartctl_device_state", 1.0),
    (&[NVME, "percentage_used"], "smartctl_device_percentage_used", 1.0),
    (&["scsi_percentage_used_endurance_indicator"], "smartctl_device_percentage_used", 1.0),
    (&[NVME, "available_spare"], "smartctl_device_available_spare", 1.0),
    (&[NVME, "available_spare_threshold"], "smartctl_device_available_spare_threshold", 1.0),
    (&[NVME, "critical_warning"], "smartctl_device_critical_warning", 1.0),
    (&[NVME, "media_errors"], "smartctl_device_media_errors", 1.0),
    (&[NVME, "num_err_log_entries"], "smartctl_device_num_err_log_entries", 1.0),
    (&["nvme_total_capacity"], "smartctl_device_nvme_capacity_bytes", 1.0),
    (&[NVME, "data_units_read"], "smartctl_device_bytes_read", NVME_UNIT_BYTES),
    (&[NVME, "data_units_written"], "smartctl_device_bytes_written", NVME_UNIT_BYTES),
    (&[NVME, "unsafe_shutdowns"], "petrel_smart_unsafe_shutdowns", 1.0),
];

/// The bits of smartctl's exit status from the second on, as its manual has them. The first means that we called it wrongly.
const PROBLEMS: [&str; 7] =
    ["open_failed", "command_failed", "failing", "prefail", "prefail_past", "errors_logged", "self_test_failed"];

/// A report has some 20 KiB; as values it takes ten times its text.
const REPORT_BYTES_MAX: usize = 1 << 20;

/// Reads a report; `None` for what is none. `label` is the device's name in the labels.
pub(super) fn read(text: &str, label: &str, columns: &mut Columns) -> Option<()> {
    if text.len() > REPORT_BYTES_MAX {
        return None;
    }
    let report: Value = serde_json::from_str(json_of(text)).ok()?;
    let exit = report["smartctl"]["exit_status"].as_u64()?;
    let device = [("device", label)];
    let sleeps = list(&report["smartctl"]["messages"]).iter().any(is_asleep);
    columns.flag("petrel_smart_standby", &device, sleeps);
    if sleeps {
        return Some(());
    }
    for (bit, problem) in PROBLEMS.iter().enumerate() {
        let labels = [("device", label), ("problem", problem)];
        columns.flag("petrel_smart_problem", &labels, exit & (2 << bit) != 0);
    }
    push_identity(&report, label, columns);
    for (path, name, factor) in &NUMBERS {
        let value = path.iter().fold(&report, |value, key| &value[*key]);
        if let Some(number) = value.as_f64() {
            columns.push(name, &device, number * factor);
        }
    }
    if let Some(passed) = report["smart_status"]["passed"].as_bool() {
        columns.flag("smartctl_device_smart_status", &device, passed);
        columns.flag("smartctl_device_status", &device, passed);
    }
    let on = &report["power_on_time"];
    if let Some(hours) = on["hours"].as_f64() {
        let seconds = hours * 3600.0 + on["minutes"].as_f64().unwrap_or_default() * 60.0;
        columns.push("smartctl_device_power_on_seconds", &device, seconds);
    }
    if let Some(rate) = report["rotation_rate"].as_f64().filter(|rate| *rate > 0.0) {
        columns.push("smartctl_device_rotation_rate", &device, rate);
    }
    push_lists(&report, label, columns);
    push_attributes(&report, label, columns);
    push_statistics(&report, label, columns);
    push_scsi(&report, label, columns);
    Some(())
}

/// Before 7.3 smartctl sometimes wrote words before its JSON.
fn json_of(text: &str) -> &str {
    text.find('{').map_or(text, |begin| &text[begin..])
}

/// `Device is in STANDBY mode, exit(2)`, `… in SLEEP mode …`.
fn is_asleep(message: &Value) -> bool {
    let words = message["string"].as_str().unwrap_or_default();
    ["STANDBY", "SLEEP"].iter().any(|mode| words.contains(&format!("in {mode}")))
}

fn push_identity(report: &Value, label: &str, columns: &mut Columns) {
    let version = &report["smartctl"];
    let dotted = |value: &Value| list(value).iter().map(Value::to_string).collect::<Vec<_>>().join(".");
    let labels = [
        ("json_format_version", dotted(&report["json_format_version"])),
        ("smartctl_version", dotted(&version["version"])),
        ("svn_revision", text(&version["svn_revision"]).to_owned()),
        ("build_info", text(&version["build_info"]).to_owned()),
    ];
    let labels = labels.each_ref().map(|(name, value)| (*name, value.as_str()));
    columns.push("smartctl_version", &labels, 1.0);
    let model = [&report["model_name"], &report["scsi_model_name"]].map(text);
    let labels = [
        ("device", label),
        ("interface", text(&report["device"]["type"])),
        ("protocol", text(&report["device"]["protocol"])),
        ("model_family", text(&report["model_family"])),
        ("model_name", model.into_iter().find(|name| !name.is_empty()).unwrap_or_default()),
        ("serial_number", text(&report["serial_number"])),
        ("ata_additional_product_id", report["ata_additional_product_id"].as_str().unwrap_or("unknown")),
        ("firmware_version", text(&report["firmware_version"])),
        ("ata_version", text(&report["ata_version"]["string"])),
        ("sata_version", text(&report["sata_version"]["string"])),
        ("form_factor", text(&report["form_factor"]["name"])),
    ];
    columns.push("smartctl_device", &labels, 1.0);
    for kind in ["logical", "physical"] {
        if let Some(bytes) = report[format!("{kind}_block_size")].as_f64() {
            columns.push("smartctl_device_block_size", &[("device", label), ("blocks_type", kind)], bytes);
        }
    }
    for kind in ["max", "current"] {
        let speed = &report["interface_speed"][kind];
        if let (Some(units), Some(bits)) = (speed["units_per_second"].as_f64(), speed["bits_per_unit"].as_f64()) {
            columns.push("smartctl_device_interface_speed", &[("device", label), ("speed_type", kind)], units * bits);
        }
    }
}

/// What the report has one entry of for each kind: temperatures, logs, time-outs.
fn push_lists(report: &Value, label: &str, columns: &mut Columns) {
    for (of, kind_label, key, name, divisor) in [
        ("temperature", "temperature_type", None, "smartctl_device_temperature", 1.0),
        ("ata_smart_error_log", "error_log_type", Some("count"), "smartctl_device_error_log_count", 1.0),
        ("ata_smart_self_test_log", "self_test_log_type", Some("count"), "smartctl_device_self_test_log_count", 1.0),
        (
            "ata_smart_self_test_log",
            "self_test_log_type",
            Some("error_count_total"),
            "smartctl_device_self_test_log_error_count",
            1.0,
        ),
        ("ata_sct_erc", "op_type", Some("deciseconds"), "smartctl_device_erc_seconds", 10.0),
    ] {
        for (kind, value) in report[of].as_object().into_iter().flatten() {
            let value = key.map_or(value, |key| &value[key]);
            if let Some(value) = value.as_f64() {
                columns.push(name, &[("device", label), (kind_label, kind)], value / divisor);
            }
        }
    }
}

fn push_attributes(report: &Value, label: &str, columns: &mut Columns) {
    const FLAGS: [&str; 6] = ["prefailure", "updated_online", "performance", "error_rate", "event_count", "auto_keep"];
    for attribute in list(&report["ata_smart_attributes"]["table"]) {
        let (id, flags) = (attribute["id"].to_string(), long_flags(&attribute["flags"], &FLAGS));
        for (kind, value) in [
            ("value", &attribute["value"]),
            ("worst", &attribute["worst"]),
            ("thresh", &attribute["thresh"]),
            ("raw", &attribute["raw"]["value"]),
        ] {
            let Some(value) = value.as_f64() else { continue };
            let labels = [
                ("device", label),
                ("attribute_name", text(&attribute["name"])),
                ("attribute_flags_short", text(&attribute["flags"]["string"])),
                ("attribute_flags_long", &flags),
                ("attribute_value_type", kind),
                ("attribute_id", &id),
            ];
            columns.push("smartctl_device_attribute", &labels, value);
        }
    }
}

fn push_statistics(report: &Value, label: &str, columns: &mut Columns) {
    const FLAGS: [&str; 4] = ["valid", "normalized", "supports_dsn", "monitored_condition_met"];
    let mut push = |table: &str, statistic: &Value, short: &str, long: &str| {
        let Some(value) = statistic["value"].as_f64() else { return };
        let labels = [
            ("device", label),
            ("statistic_table", table),
            ("statistic_name", text(&statistic["name"])),
            ("statistic_flags_short", short),
            ("statistic_flags_long", long),
        ];
        columns.push("smartctl_device_statistics", &labels, value);
    };
    for page in list(&report["ata_device_statistics"]["pages"]) {
        for statistic in list(&page["table"]) {
            let long = long_flags(&statistic["flags"], &FLAGS);
            push(text(&page["name"]), statistic, text(&statistic["flags"]["string"]), &long);
        }
    }
    for statistic in list(&report["sata_phy_event_counters"]["table"]) {
        push("SATA PHY Event Counters", statistic, "V---", "valid");
    }
}

fn push_scsi(report: &Value, label: &str, columns: &mut Columns) {
    let model = if report["model_name"].is_string() { &report["model_name"] } else { &report["scsi_model_name"] };
    let labels = [
        ("device", label),
        ("model_family", text(&report["model_family"])),
        ("model_name", text(model)),
        ("serial_number", text(&report["serial_number"])),
    ];
    if let Some(defects) = report["scsi_grown_defect_list"].as_f64() {
        columns.push("smartctl_scsi_grown_defect_list", &labels, defects);
    }
    let log = &report["scsi_error_counter_log"];
    for (direction, key, name) in [
        ("read", "errors_corrected_by_rereads_rewrites", "smartctl_read_errors_corrected_by_rereads_rewrites"),
        ("read", "total_uncorrected_errors", "smartctl_read_total_uncorrected_errors"),
        ("write", "errors_corrected_by_rereads_rewrites", "smartctl_write_errors_corrected_by_rereads_rewrites"),
        ("write", "total_uncorrected_errors", "smartctl_write_total_uncorrected_errors"),
    ] {
        if let Some(count) = log[direction][key].as_f64() {
            columns.push(name, &labels, count);
        }
    }
}

/// The names of the flags that are set, in the order given.
fn long_flags(flags: &Value, names: &[&str]) -> String {
    let set: Vec<&str> = names.iter().copied().filter(|name| flags[*name].as_bool() == Some(true)).collect();
    set.join(",")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default().trim()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    fn check(report: &str, expected: &Expect) {
        let mut columns = Columns::new(&COLUMNS);
        read(report, "sda", &mut columns).unwrap();
        expected.assert_eq(&columns.samples(|_| true));
    }

    #[test]
    fn a_disk_that_fails() {
        check(
            include_str!("../../../testdata/smart/ata-failing.json"),
            &expect![[r#"
            smartctl_version{json_format_version="1.0",smartctl_version="7.3",svn_revision="5338",build_info="(local build)"} 1
            smartctl_device{device="sda",interface="sat",protocol="ATA",model_family="Made-up Family",model_name="MADE UP 2TB",serial_number="S0001",ata_additional_product_id="unknown",firmware_version="1.0",ata_version="ACS-3 T13/2161-D revision 5",sata_version="SATA 3.1",form_factor="3.5 inches"} 1
            smartctl_device_capacity_blocks{device="sda"} 3907029168
            smartctl_device_capacity_bytes{device="sda"} 2000398934016
            smartctl_device_block_size{device="sda",blocks_type="logical"} 512
            smartctl_device_block_size{device="sda",blocks_type="physical"} 4096
            smartctl_device_interface_speed{device="sda",speed_type="max"} 6000000000
            smartctl_device_interface_speed{device="sda",speed_type="current"} 6000000000
            smartctl_device_attribute{device="sda",attribute_name="Reallocated_Sector_Ct",attribute_flags_short="PO--CK",attribute_flags_long="prefailure,updated_online,event_count,auto_keep",attribute_value_type="value",attribute_id="5"} 4
            smartctl_device_attribute{device="sda",attribute_name="Reallocated_Sector_Ct",attribute_flags_short="PO--CK",attribute_flags_long="prefailure,updated_online,event_count,auto_keep",attribute_value_type="worst",attribute_id="5"} 4
            smartctl_device_attribute{device="sda",attribute_name="Reallocated_Sector_Ct",attribute_flags_short="PO--CK",attribute_flags_long="prefailure,updated_online,event_count,auto_keep",attribute_value_type="thresh",attribute_id="5"} 36
            smartctl_device_attribute{device="sda",attribute_name="Reallocated_Sector_Ct",attribute_flags_short="PO--CK",attribute_flags_long="prefailure,updated_online,event_count,auto_keep",attribute_value_type="raw",attribute_id="5"} 3977
            smartctl_device_attribute{device="sda",attribute_name="Current_Pending_Sector",attribute_flags_short="-O--C-",attribute_flags_long="updated_online,event_count",attribute_value_type="value",attribute_id="197"} 100
            smartctl_device_attribute{device="sda",attribute_name="Current_Pending_Sector",attribute_flags_short="-O--C-",attribute_flags_long="updated_online,event_count",attribute_value_type="worst",attribute_id="197"} 100
            smartctl_device_attribute{device="sda",attribute_name="Current_Pending_Sector",attribute_flags_short="-O--C-",attribute_flags_long="updated_online,event_count",attribute_value_type="thresh",attribute_id="197"} 0
            smartctl_device_attribute{device="sda",attribute_name="Current_Pending_Sector",attribute_flags_short="-O--C-",attribute_flags_long="updated_online,event_count",attribute_value_type="raw",attribute_id="197"} 24
            smartctl_device_power_on_seconds{device="sda"} 72001800
            smartctl_device_rotation_rate{device="sda"} 7200
            smartctl_device_temperature{device="sda",temperature_type="current"} 41
            smartctl_device_temperature{device="sda",temperature_type="drive_trip"} 60
            smartctl_device_power_cycle_count{device="sda"} 42
            smartctl_device_smart_status{device="sda"} 0
            smartctl_device_smartctl_exit_status{device="sda"} 216
            smartctl_device_state{device="sda"} 0
            smartctl_device_statistics{device="sda",statistic_table="General Statistics",statistic_name="Lifetime Power-On Resets",statistic_flags_short="V---",statistic_flags_long="valid"} 42
            smartctl_device_statistics{device="sda",statistic_table="SATA PHY Event Counters",statistic_name="Command failed due to ICRC error",statistic_flags_short="V---",statistic_flags_long="valid"} 3
            smartctl_device_status{device="sda"} 0
            smartctl_device_error_log_count{device="sda",error_log_type="summary"} 7
            smartctl_device_self_test_log_count{device="sda",self_test_log_type="standard"} 3
            smartctl_device_self_test_log_error_count{device="sda",self_test_log_type="standard"} 1
            smartctl_device_erc_seconds{device="sda",op_type="read"} 7
            smartctl_device_erc_seconds{device="sda",op_type="write"} 7
            petrel_smart_problem{device="sda",problem="open_failed"} 0
            petrel_smart_problem{device="sda",problem="command_failed"} 0
            petrel_smart_problem{device="sda",problem="failing"} 1
            petrel_smart_problem{device="sda",problem="prefail"} 1
            petrel_smart_problem{device="sda",problem="prefail_past"} 0
            petrel_smart_problem{device="sda",problem="errors_logged"} 1
            petrel_smart_problem{device="sda",problem="self_test_failed"} 1
            petrel_smart_standby{device="sda"} 0
        "#]],
        );
    }

    #[test]
    fn a_scsi_disk() {
        check(
            include_str!("../../../testdata/smart/scsi.json"),
            &expect![[r#"
            smartctl_version{json_format_version="1.0",smartctl_version="7.4",svn_revision="5530",build_info=""} 1
            smartctl_device{device="sda",interface="megaraid,0",protocol="SCSI",model_family="",model_name="MADEUP SAS900",serial_number="S0002",ata_additional_product_id="unknown",firmware_version="",ata_version="",sata_version="",form_factor=""} 1
            smartctl_device_capacity_blocks{device="sda"} 1758174768
            smartctl_device_capacity_bytes{device="sda"} 900185481216
            smartctl_device_block_size{device="sda",blocks_type="logical"} 512
            smartctl_device_block_size{device="sda",blocks_type="physical"} 4096
            smartctl_device_power_on_seconds{device="sda"} 44774940
            smartctl_device_rotation_rate{device="sda"} 10000
            smartctl_device_temperature{device="sda",temperature_type="current"} 32
            smartctl_device_temperature{device="sda",temperature_type="drive_trip"} 65
            smartctl_device_smart_status{device="sda"} 1
            smartctl_device_smartctl_exit_status{device="sda"} 4
            smartctl_device_status{device="sda"} 1
            smartctl_scsi_grown_defect_list{device="sda",model_family="",model_name="MADEUP SAS900",serial_number="S0002"} 11
            smartctl_read_errors_corrected_by_rereads_rewrites{device="sda",model_family="",model_name="MADEUP SAS900",serial_number="S0002"} 4
            smartctl_read_total_uncorrected_errors{device="sda",model_family="",model_name="MADEUP SAS900",serial_number="S0002"} 2
            smartctl_write_errors_corrected_by_rereads_rewrites{device="sda",model_family="",model_name="MADEUP SAS900",serial_number="S0002"} 0
            smartctl_write_total_uncorrected_errors{device="sda",model_family="",model_name="MADEUP SAS900",serial_number="S0002"} 1
            petrel_smart_problem{device="sda",problem="open_failed"} 0
            petrel_smart_problem{device="sda",problem="command_failed"} 1
            petrel_smart_problem{device="sda",problem="failing"} 0
            petrel_smart_problem{device="sda",problem="prefail"} 0
            petrel_smart_problem{device="sda",problem="prefail_past"} 0
            petrel_smart_problem{device="sda",problem="errors_logged"} 0
            petrel_smart_problem{device="sda",problem="self_test_failed"} 0
            petrel_smart_standby{device="sda"} 0
        "#]],
        );
    }

    #[test]
    fn a_disk_that_sleeps_is_left_alone() {
        check(
            r#"{"smartctl":{"exit_status":2,"messages":[{"string":"Device is in STANDBY mode, exit(2)","severity":"information"}]},"device":{"name":"/dev/sdb"}}"#,
            &expect![[r#"
                petrel_smart_standby{device="sda"} 1
            "#]],
        );
        for none in ["", "smartctl: command not found", "{}", "{\"smartctl\":{}}"] {
            assert!(read(none, "sda", &mut Columns::new(&COLUMNS)).is_none(), "{none}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn never_panics(key in "(device|temperature|ata_smart_attributes|messages|[a-z]{1,5}|é)", value in "([0-9]{1,3}|null|true|\"é\"|\\[\\{\\}\\]|\\{\"table\":\\[1,\\{\\}\\]\\})", noise in "\\PC{0,40}") {
            let mut columns = Columns::new(&COLUMNS);
            read(&format!("{{\"smartctl\":{{\"exit_status\":0,\"{key}\":{value}}},\"{key}\":{value}}}"), "é", &mut columns);
            read(&noise, "a", &mut columns);
        }
    }
}
