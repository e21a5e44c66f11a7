//! Which key of `virsh domstats` is which metric: names, types and texts of the usual libvirt exporters, and libvirt's units.

use super::super::Kind;

/// How a key of `domstats` becomes a metric.
pub(super) struct Rule {
    /// The key; of a device, what follows its number.
    pub(super) key: &'static str,
    /// Our name.
    pub(super) metric: &'static str,
    /// Its type.
    pub(super) kind: Kind,
    /// How many of libvirt's units make one of ours.
    pub(super) unit: f64,
    /// One sentence for people.
    pub(super) help: &'static str,
}

const fn rule(key: &'static str, metric: &'static str, kind: Kind, unit: f64, help: &'static str) -> Rule {
    Rule { key, metric, kind, unit, help }
}

const KIB: f64 = 1.0 / 1024.0;
const NANOS: f64 = 1e9;
const ONE: f64 = 1.0;

/// Of a guest as a whole.
pub(super) const GUEST: [Rule; 17] = {
    use Kind::{Counter, Gauge};
    [
        rule(
            "state.state",
            "libvirt_domain_info_vstate",
            Gauge,
            ONE,
            "Virtual domain state. 0: no state, 1: the domain is running, 2: the domain is blocked on resource, 3: the domain is paused by user, 4: the domain is being shut down, 5: the domain is shut off, 6: the domain is crashed, 7: the domain is suspended by guest power management.",
        ),
        rule(
            "state.reason",
            "petrel_guest_state_reason",
            Gauge,
            ONE,
            "Why the guest is in its state, as libvirt's number for that state; paused (3) with reason 5 is an I/O error.",
        ),
        rule(
            "cpu.time",
            "libvirt_domain_info_cpu_time_seconds_total",
            Counter,
            NANOS,
            "Amount of CPU time used by the domain, in seconds.",
        ),
        rule("vcpu.current", "libvirt_domain_info_virtual_cpus", Gauge, ONE, "Number of virtual CPUs for the domain."),
        rule("vcpu.maximum", "libvirt_domain_vcpu_maximum", Gauge, ONE, "Number of maximum online vCPUs."),
        rule(
            "balloon.maximum",
            "libvirt_domain_info_maximum_memory_bytes",
            Gauge,
            KIB,
            "Maximum allowed memory of the domain, in bytes.",
        ),
        rule(
            "balloon.current",
            "libvirt_domain_info_memory_usage_bytes",
            Gauge,
            KIB,
            "Memory usage of the domain, in bytes.",
        ),
        rule(
            "balloon.rss",
            "libvirt_domain_memory_stats_rss_bytes",
            Gauge,
            KIB,
            "Resident Set Size of the process running the domain, in bytes.",
        ),
        rule(
            "balloon.unused",
            "libvirt_domain_memory_stats_unused_bytes",
            Gauge,
            KIB,
            "The amount of memory left completely unused by the domain, in bytes.",
        ),
        rule(
            "balloon.available",
            "libvirt_domain_memory_stats_available_bytes",
            Gauge,
            KIB,
            "The total amount of usable memory as seen by the domain, in bytes.",
        ),
        rule(
            "balloon.usable",
            "libvirt_domain_memory_stats_usable_bytes",
            Gauge,
            KIB,
            "Memory usable by the domain without pushing it to swap, as MemAvailable in its /proc/meminfo, in bytes.",
        ),
        rule(
            "balloon.disk_caches",
            "libvirt_domain_memory_stats_disk_cache_bytes",
            Gauge,
            KIB,
            "Memory of the domain that can be reclaimed without additional I/O, in bytes.",
        ),
        rule(
            "balloon.swap_in",
            "libvirt_domain_memory_stats_swap_in_bytes",
            Gauge,
            KIB,
            "Memory swapped in for this domain (the total amount of data read from swap space), in bytes.",
        ),
        rule(
            "balloon.swap_out",
            "libvirt_domain_memory_stats_swap_out_bytes",
            Gauge,
            KIB,
            "Memory swapped out for this domain (the total amount of data written out to swap space), in bytes.",
        ),
        rule(
            "balloon.major_fault",
            "libvirt_domain_memory_stats_major_fault_total",
            Counter,
            ONE,
            "Page faults of the domain that needed disk I/O.",
        ),
        rule(
            "balloon.minor_fault",
            "libvirt_domain_memory_stats_minor_fault_total",
            Counter,
            ONE,
            "Page faults of the domain that needed no disk I/O.",
        ),
        rule(
            "balloon.last-update",
            "petrel_guest_balloon_updated_seconds",
            Gauge,
            ONE,
            "When the guest's balloon driver last told its figures, in seconds since the epoch; 0: never.",
        ),
    ]
};

/// Of each virtual processor.
pub(super) const VCPU: [Rule; 4] = {
    use Kind::{Counter, Gauge};
    [
        rule("state", "libvirt_domain_vcpu_state", Gauge, ONE, "VCPU state. 0: offline, 1: running, 2: blocked."),
        rule(
            "time",
            "libvirt_domain_vcpu_time_seconds_total",
            Counter,
            NANOS,
            "Amount of CPU time used by the domain's VCPU, in seconds.",
        ),
        rule(
            "wait",
            "libvirt_domain_vcpu_wait_seconds_total",
            Counter,
            NANOS,
            "Vcpu's wait_sum metric. CONFIG_SCHEDSTATS has to be enabled.",
        ),
        rule(
            "delay",
            "libvirt_domain_vcpu_delay_seconds_total",
            Counter,
            NANOS,
            "Time the vcpu thread was enqueued by the host scheduler, but was waiting in the queue instead of running. Exposed to the VM as a steal time.",
        ),
    ]
};

/// Of each disk.
pub(super) const BLOCK: [Rule; 12] = {
    use Kind::{Counter, Gauge};
    [
        rule(
            "rd.bytes",
            "libvirt_domain_block_stats_read_bytes_total",
            Counter,
            ONE,
            "Number of bytes read from a block device, in bytes.",
        ),
        rule(
            "rd.reqs",
            "libvirt_domain_block_stats_read_requests_total",
            Counter,
            ONE,
            "Number of read requests from a block device.",
        ),
        rule(
            "rd.times",
            "libvirt_domain_block_stats_read_time_seconds_total",
            Counter,
            NANOS,
            "Total time spent on reads from a block device, in seconds.",
        ),
        rule(
            "wr.bytes",
            "libvirt_domain_block_stats_write_bytes_total",
            Counter,
            ONE,
            "Number of bytes written to a block device, in bytes.",
        ),
        rule(
            "wr.reqs",
            "libvirt_domain_block_stats_write_requests_total",
            Counter,
            ONE,
            "Number of write requests to a block device.",
        ),
        rule(
            "wr.times",
            "libvirt_domain_block_stats_write_time_seconds_total",
            Counter,
            NANOS,
            "Total time spent on writes on a block device, in seconds.",
        ),
        rule(
            "fl.reqs",
            "libvirt_domain_block_stats_flush_requests_total",
            Counter,
            ONE,
            "Total flush requests from a block device.",
        ),
        rule(
            "fl.times",
            "libvirt_domain_block_stats_flush_time_seconds_total",
            Counter,
            NANOS,
            "Total time in seconds spent on cache flushing to a block device.",
        ),
        rule(
            "allocation",
            "libvirt_domain_block_stats_allocation",
            Gauge,
            ONE,
            "Offset of the highest written sector on a block device.",
        ),
        rule(
            "capacity",
            "libvirt_domain_block_stats_capacity_bytes",
            Gauge,
            ONE,
            "Logical size in bytes of the block device backing image.",
        ),
        rule(
            "physical",
            "libvirt_domain_block_stats_physicalsize_bytes",
            Gauge,
            ONE,
            "Physical size in bytes of the container of the backing image.",
        ),
        rule(
            "threshold",
            "petrel_guest_block_threshold_bytes",
            Gauge,
            ONE,
            "Write offset at which libvirt reports that the disk is to be extended.",
        ),
    ]
};

/// Of each network card.
pub(super) const NET: [Rule; 8] = {
    use Kind::Counter;
    [
        rule(
            "rx.bytes",
            "libvirt_domain_interface_stats_receive_bytes_total",
            Counter,
            ONE,
            "Number of bytes received on a network interface, in bytes.",
        ),
        rule(
            "rx.pkts",
            "libvirt_domain_interface_stats_receive_packets_total",
            Counter,
            ONE,
            "Number of packets received on a network interface.",
        ),
        rule(
            "rx.errs",
            "libvirt_domain_interface_stats_receive_errors_total",
            Counter,
            ONE,
            "Number of packet receive errors on a network interface.",
        ),
        rule(
            "rx.drop",
            "libvirt_domain_interface_stats_receive_drops_total",
            Counter,
            ONE,
            "Number of packet receive drops on a network interface.",
        ),
        rule(
            "tx.bytes",
            "libvirt_domain_interface_stats_transmit_bytes_total",
            Counter,
            ONE,
            "Number of bytes transmitted on a network interface, in bytes.",
        ),
        rule(
            "tx.pkts",
            "libvirt_domain_interface_stats_transmit_packets_total",
            Counter,
            ONE,
            "Number of packets transmitted on a network interface.",
        ),
        rule(
            "tx.errs",
            "libvirt_domain_interface_stats_transmit_errors_total",
            Counter,
            ONE,
            "Number of packet transmit errors on a network interface.",
        ),
        rule(
            "tx.drop",
            "libvirt_domain_interface_stats_transmit_drops_total",
            Counter,
            ONE,
            "Number of packet transmit drops on a network interface.",
        ),
    ]
};
