//! What InfiniBand and RoCE ports count: file below the port's folder, metric, help. A card has some of them.

use crate::collect::tables::{FileColumn, counter, file};

/// Cards count data for each of four lanes.
const LANES: f64 = 4.0;

/// All counters that are told.
pub(super) const COUNTERS: &[FileColumn] = &[
    file(
        "counters_ext/port_multicast_rcv_packets",
        counter("node_infiniband_legacy_multicast_packets_received_total", "Number of multicast packets received"),
    ),
    file(
        "counters_ext/port_multicast_xmit_packets",
        counter(
            "node_infiniband_legacy_multicast_packets_transmitted_total",
            "Number of multicast packets transmitted",
        ),
    ),
    file(
        "counters_ext/port_rcv_data_64",
        counter("node_infiniband_legacy_data_received_bytes_total", "Number of data octets received on all links"),
    )
    .times(LANES),
    file(
        "counters_ext/port_rcv_packets_64",
        counter("node_infiniband_legacy_packets_received_total", "Number of data packets received on all links"),
    ),
    file(
        "counters_ext/port_unicast_rcv_packets",
        counter("node_infiniband_legacy_unicast_packets_received_total", "Number of unicast packets received"),
    ),
    file(
        "counters_ext/port_unicast_xmit_packets",
        counter("node_infiniband_legacy_unicast_packets_transmitted_total", "Number of unicast packets transmitted"),
    ),
    file(
        "counters_ext/port_xmit_data_64",
        counter(
            "node_infiniband_legacy_data_transmitted_bytes_total",
            "Number of data octets transmitted on all links",
        ),
    )
    .times(LANES),
    file(
        "counters_ext/port_xmit_packets_64",
        counter("node_infiniband_legacy_packets_transmitted_total", "Number of data packets received on all links"),
    ),
    file(
        "counters/excessive_buffer_overrun_errors",
        counter(
            "node_infiniband_excessive_buffer_overrun_errors_total",
            "Number of times that OverrunErrors consecutive flow control update periods occurred, each having at least one overrun error.",
        ),
    ),
    file(
        "counters/link_downed",
        counter(
            "node_infiniband_link_downed_total",
            "Number of times the link failed to recover from an error state and went down",
        ),
    ),
    file(
        "counters/link_error_recovery",
        counter(
            "node_infiniband_link_error_recovery_total",
            "Number of times the link successfully recovered from an error state",
        ),
    ),
    file(
        "counters/local_link_integrity_errors",
        counter(
            "node_infiniband_local_link_integrity_errors_total",
            "Number of times that the count of local physical errors exceeded the threshold specified by LocalPhyErrors.",
        ),
    ),
    file(
        "counters/multicast_rcv_packets",
        counter(
            "node_infiniband_multicast_packets_received_total",
            "Number of multicast packets received (including errors)",
        ),
    ),
    file(
        "counters/multicast_xmit_packets",
        counter(
            "node_infiniband_multicast_packets_transmitted_total",
            "Number of multicast packets transmitted (including errors)",
        ),
    ),
    file(
        "counters/port_rcv_constraint_errors",
        counter(
            "node_infiniband_port_constraint_errors_received_total",
            "Number of packets received on the switch physical port that are discarded",
        ),
    ),
    file(
        "counters/port_xmit_constraint_errors",
        counter(
            "node_infiniband_port_constraint_errors_transmitted_total",
            "Number of packets not transmitted from the switch physical port",
        ),
    ),
    file(
        "counters/port_rcv_data",
        counter("node_infiniband_port_data_received_bytes_total", "Number of data octets received on all links"),
    )
    .times(LANES),
    file(
        "counters/port_xmit_data",
        counter("node_infiniband_port_data_transmitted_bytes_total", "Number of data octets transmitted on all links"),
    )
    .times(LANES),
    file(
        "counters/port_rcv_discards",
        counter(
            "node_infiniband_port_discards_received_total",
            "Number of inbound packets discarded by the port because the port is down or congested",
        ),
    ),
    file(
        "counters/port_xmit_discards",
        counter(
            "node_infiniband_port_discards_transmitted_total",
            "Number of outbound packets discarded by the port because the port is down or congested",
        ),
    ),
    file(
        "counters/port_rcv_errors",
        counter(
            "node_infiniband_port_errors_received_total",
            "Number of packets containing an error that were received on this port",
        ),
    ),
    file(
        "counters/port_rcv_packets",
        counter(
            "node_infiniband_port_packets_received_total",
            "Number of packets received on all VLs by this port (including errors)",
        ),
    ),
    file(
        "counters/port_xmit_packets",
        counter(
            "node_infiniband_port_packets_transmitted_total",
            "Number of packets transmitted on all VLs from this port (including errors)",
        ),
    ),
    file(
        "counters/port_xmit_wait",
        counter(
            "node_infiniband_port_transmit_wait_total",
            "Number of ticks during which the port had data to transmit but no data was sent during the entire tick",
        ),
    ),
    file(
        "counters/port_rcv_remote_physical_errors",
        counter(
            "node_infiniband_port_receive_remote_physical_errors_total",
            "Number of packets marked with the EBP (End of Bad Packet) delimiter received on the port.",
        ),
    ),
    file(
        "counters/port_rcv_switch_relay_errors",
        counter(
            "node_infiniband_port_receive_switch_relay_errors_total",
            "Number of packets that could not be forwarded by the switch.",
        ),
    ),
    file(
        "counters/symbol_error",
        counter(
            "node_infiniband_symbol_error_total",
            "Number of minor link errors detected on one or more physical lanes.",
        ),
    ),
    file(
        "counters/unicast_rcv_packets",
        counter(
            "node_infiniband_unicast_packets_received_total",
            "Number of unicast packets received (including errors)",
        ),
    ),
    file(
        "counters/unicast_xmit_packets",
        counter(
            "node_infiniband_unicast_packets_transmitted_total",
            "Number of unicast packets transmitted (including errors)",
        ),
    ),
    file(
        "counters/VL15_dropped",
        counter(
            "node_infiniband_vl15_dropped_total",
            "Number of incoming VL15 packets dropped due to resource limitations.",
        ),
    ),
    file(
        "hw_counters/duplicate_request",
        counter(
            "node_infiniband_duplicate_requests_packets_total",
            "The number of received packets. A duplicate request is a request that had been previously executed.",
        ),
    ),
    file(
        "hw_counters/implied_nak_seq_err",
        counter(
            "node_infiniband_implied_nak_seq_errors_total",
            "The number of time the requested decided an ACK. with a PSN larger than the expected PSN for an RDMA read or response.",
        ),
    ),
    file(
        "hw_counters/local_ack_timeout_err",
        counter(
            "node_infiniband_local_ack_timeout_errors_total",
            "The number of times QP's ack timer expired for RC, XRC, DCT QPs at the sender side. The QP retry limit was not exceed, therefore it is still recoverable error.",
        ),
    ),
    file(
        "hw_counters/np_cnp_sent",
        counter(
            "node_infiniband_np_cnp_packets_sent_total",
            "The number of CNP packets sent by the Notification Point when it noticed congestion experienced in the RoCEv2 IP header (ECN bits). The counters was added in MLNX_OFED 4.1",
        ),
    ),
    file(
        "hw_counters/np_ecn_marked_roce_packets",
        counter(
            "node_infiniband_np_ecn_marked_roce_packets_received_total",
            "The number of RoCEv2 packets received by the notification point which were marked for experiencing the congestion (ECN bits where '11' on the ingress RoCE traffic) . The counters was added in MLNX_OFED 4.1",
        ),
    ),
    file(
        "hw_counters/out_of_buffer",
        counter(
            "node_infiniband_out_of_buffer_drops_total",
            "The number of drops occurred due to lack of WQE for the associated QPs.",
        ),
    ),
    file(
        "hw_counters/out_of_sequence",
        counter(
            "node_infiniband_out_of_sequence_packets_received_total",
            "The number of out of sequence packets received.",
        ),
    ),
    file(
        "hw_counters/packet_seq_err",
        counter(
            "node_infiniband_packet_sequence_errors_total",
            "The number of received NAK sequence error packets. The QP retry limit was not exceeded.",
        ),
    ),
    file(
        "hw_counters/req_cqe_error",
        counter(
            "node_infiniband_req_cqes_errors_total",
            "The number of times requester detected CQEs completed with errors. The counters was added in MLNX_OFED 4.1",
        ),
    ),
    file(
        "hw_counters/resp_cqe_error",
        counter(
            "node_infiniband_resp_cqes_errors_total",
            "The number of times responder detected CQEs completed with errors. The counters was added in MLNX_OFED 4.1",
        ),
    ),
    file(
        "hw_counters/rnr_nak_retry_err",
        counter(
            "node_infiniband_rnr_nak_retry_packets_received_total",
            "The number of received RNR NAK packets. The QP retry limit was not exceeded.",
        ),
    ),
    file(
        "hw_counters/roce_adp_retrans",
        counter(
            "node_infiniband_roce_adp_retransmits_total",
            "The number of adaptive retransmissions for RoCE traffic. The counter was added in MLNX_OFED rev 5.0-1.0.0.0 and kernel v5.6.0",
        ),
    ),
    file(
        "hw_counters/roce_adp_retrans_to",
        counter(
            "node_infiniband_roce_adp_retransmits_timeout_total",
            "The number of times RoCE traffic reached timeout due to adaptive retransmission. The counter was added in MLNX_OFED rev 5.0-1.0.0.0 and kernel v5.6.0",
        ),
    ),
    file(
        "hw_counters/rp_cnp_handled",
        counter(
            "node_infiniband_rp_cnp_packets_handled_total",
            "The number of CNP packets handled by the Reaction Point HCA to throttle the transmission rate. The counters was added in MLNX_OFED 4.1",
        ),
    ),
    file(
        "hw_counters/rx_icrc_encapsulated",
        counter(
            "node_infiniband_rx_icrc_encapsulated_errors_total",
            "The number of RoCE packets with ICRC errors. This counter was added in MLNX_OFED 4.4 and kernel 4.19",
        ),
    ),
];
