//! `/proc/net/xfrm_stat`: packets that IPsec dropped, by reason. Off by default: only hosts with tunnels count anything.

use crate::collect::kernel_file::{KernelFile, KernelText};
use crate::collect::tables::{Column, counter};
use crate::collect::{CollectError, Collector, Family, Roots};

/// IPsec.
pub(super) struct Xfrm {
    file: KernelFile,
}

/// The kernel's name and the metric. What later kernels count beside is left out.
const COUNTERS: [(&str, Column); 28] = [
    ("XfrmInError", counter("node_xfrm_in_error_packets_total", "All errors not matched by other")),
    ("XfrmInBufferError", counter("node_xfrm_in_buffer_error_packets_total", "No buffer is left")),
    ("XfrmInHdrError", counter("node_xfrm_in_hdr_error_packets_total", "Header error")),
    (
        "XfrmInNoStates",
        counter(
            "node_xfrm_in_no_states_packets_total",
            "No state is found i.e. Either inbound SPI, address, or IPsec protocol at SA is wrong",
        ),
    ),
    (
        "XfrmInStateProtoError",
        counter(
            "node_xfrm_in_state_proto_error_packets_total",
            "Transformation protocol specific error e.g. SA key is wrong",
        ),
    ),
    (
        "XfrmInStateModeError",
        counter("node_xfrm_in_state_mode_error_packets_total", "Transformation mode specific error"),
    ),
    (
        "XfrmInStateSeqError",
        counter("node_xfrm_in_state_seq_error_packets_total", "Sequence error i.e. Sequence number is out of window"),
    ),
    ("XfrmInStateExpired", counter("node_xfrm_in_state_expired_packets_total", "State is expired")),
    (
        "XfrmInStateMismatch",
        counter(
            "node_xfrm_in_state_mismatch_packets_total",
            "State has mismatch option e.g. UDP encapsulation type is mismatch",
        ),
    ),
    ("XfrmInStateInvalid", counter("node_xfrm_in_state_invalid_packets_total", "State is invalid")),
    (
        "XfrmInTmplMismatch",
        counter(
            "node_xfrm_in_tmpl_mismatch_packets_total",
            "No matching template for states e.g. Inbound SAs are correct but SP rule is wrong",
        ),
    ),
    (
        "XfrmInNoPols",
        counter(
            "node_xfrm_in_no_pols_packets_total",
            "No policy is found for states e.g. Inbound SAs are correct but no SP is found",
        ),
    ),
    ("XfrmInPolBlock", counter("node_xfrm_in_pol_block_packets_total", "Policy discards")),
    ("XfrmInPolError", counter("node_xfrm_in_pol_error_packets_total", "Policy error")),
    ("XfrmOutError", counter("node_xfrm_out_error_packets_total", "All errors which is not matched others")),
    ("XfrmOutBundleGenError", counter("node_xfrm_out_bundle_gen_error_packets_total", "Bundle generation error")),
    ("XfrmOutBundleCheckError", counter("node_xfrm_out_bundle_check_error_packets_total", "Bundle check error")),
    ("XfrmOutNoStates", counter("node_xfrm_out_no_states_packets_total", "No state is found")),
    (
        "XfrmOutStateProtoError",
        counter("node_xfrm_out_state_proto_error_packets_total", "Transformation protocol specific error"),
    ),
    (
        "XfrmOutStateModeError",
        counter("node_xfrm_out_state_mode_error_packets_total", "Transformation mode specific error"),
    ),
    (
        "XfrmOutStateSeqError",
        counter("node_xfrm_out_state_seq_error_packets_total", "Sequence error i.e. Sequence number overflow"),
    ),
    ("XfrmOutStateExpired", counter("node_xfrm_out_state_expired_packets_total", "State is expired")),
    ("XfrmOutPolBlock", counter("node_xfrm_out_pol_block_packets_total", "Policy discards")),
    ("XfrmOutPolDead", counter("node_xfrm_out_pol_dead_packets_total", "Policy is dead")),
    ("XfrmOutPolError", counter("node_xfrm_out_pol_error_packets_total", "Policy error")),
    ("XfrmFwdHdrError", counter("node_xfrm_fwd_hdr_error_packets_total", "Forward routing of a packet is not allowed")),
    ("XfrmOutStateInvalid", counter("node_xfrm_out_state_invalid_packets_total", "State is invalid, perhaps expired")),
    (
        "XfrmAcquireError",
        counter("node_xfrm_acquire_error_packets_total", "State hasn’t been fully acquired before use"),
    ),
];

impl Xfrm {
    pub(super) fn new(roots: &Roots) -> Xfrm {
        Xfrm { file: KernelFile::new(roots.procfs.join("net/xfrm_stat")) }
    }
}

impl Collector for Xfrm {
    fn name(&self) -> &'static str {
        "xfrm"
    }

    fn is_default(&self) -> bool {
        false
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        parse(&self.file.read()?, families)
    }
}

/// Lines of a name and a number. A kernel that does not know a counter has not counted it: zero, as node_exporter says.
fn parse(text: &KernelText<'_>, families: &mut Vec<Family>) -> Result<(), CollectError> {
    let mut counts = [0.0; COUNTERS.len()];
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let mut fields = line.split_ascii_whitespace();
        let name = fields.next().unwrap_or_default();
        let value = text.number(fields.next(), line)?;
        if let Some(place) = COUNTERS.iter().position(|(known, _)| *known == name) {
            counts[place] = value;
        }
    }
    families.extend(COUNTERS.iter().zip(counts).map(|((_, column), count)| column.family().with(count)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::collect::{text, trial};

    const SAMPLE: &str = "XfrmInError  1\nXfrmOutPolDead  7656\nXfrmNotKnown 3\n";

    #[test]
    fn what_is_counted_and_what_is_not() {
        let mut families = Vec::new();
        parse(&KernelText::of(SAMPLE.as_bytes()), &mut families).unwrap();
        let shown = trial::series(&text::render(&families));
        assert!(shown.contains("node_xfrm_out_pol_dead_packets_total 7656\n"), "{shown}");
        assert!(shown.contains("node_xfrm_acquire_error_packets_total 0\n"), "{shown}");
        assert_eq!(shown.lines().count(), COUNTERS.len());
    }

    proptest! {
        #![proptest_config(trial::few())]
        #[test]
        fn never_panics(bytes in trial::near(SAMPLE)) {
            let _ = parse(&KernelText::of(&bytes), &mut Vec::new());
        }
    }
}
