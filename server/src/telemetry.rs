//! The catalogue of Petrel's own metrics: every name the server counts under stands here, once. `/metrics` shows them and
//! the server stores them beside the fleet's series.

use std::sync::LazyLock;

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, default_registry};

/// Samples by what became of them: `accepted`, `duplicate`, `future`, `too_old`, `closed`, `series_limit`, `source_limit`,
/// `memory_limit`, `label_limit`, `malformed`.
pub static INGEST_SAMPLES: LazyLock<IntCounterVec> =
    LazyLock::new(|| counters("petrel_ingest_samples_total", "Samples received, by outcome.", &["outcome"]));

/// Queries of the Prometheus API by outcome: `ok`, the API's error types (`canceled`: the client left, or memory
/// was at its limit), `refused`.
pub static QUERIES: LazyLock<IntCounterVec> =
    LazyLock::new(|| counters("petrel_queries_total", "Queries by outcome.", &["outcome"]));

/// Evaluations for the Prometheus API that run now.
pub static QUERIES_ACTIVE: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("petrel_queries_active", "Queries that are being evaluated."));

/// Queries and requests for series that a limit refused or ended, by its key in the config's section `query`, or `memory_max`.
pub static QUERY_LIMITS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counters(
        "petrel_query_limits_total",
        "Queries that a limit refused or ended, by its key in the config.",
        &["limit"],
    )
});

/// Requests turned away before any handler, by reason.
pub static REQUESTS_DENIED: LazyLock<IntCounterVec> =
    LazyLock::new(|| counters("petrel_requests_denied_total", "Requests turned away, by reason.", &["reason"]));

/// Connections that ended in an error: broken handshakes, closed sockets.
pub static CONNECTIONS_BROKEN: LazyLock<IntCounter> =
    LazyLock::new(|| counter("petrel_connections_broken_total", "Connections that ended in an error."));

/// Rules evaluated.
pub static RULE_EVALUATIONS: LazyLock<IntCounter> =
    LazyLock::new(|| counter("petrel_rule_evaluations_total", "Evaluations of rules."));

/// Evaluations of rules that failed, by group. Their alerts keep their state.
pub static RULE_FAILURES: LazyLock<IntCounterVec> =
    LazyLock::new(|| counters("petrel_rule_failures_total", "Evaluations of rules that failed.", &["group"]));

/// New alerts that found no room.
pub static ALERTS_REFUSED: LazyLock<IntCounter> =
    LazyLock::new(|| counter("petrel_alerts_refused_total", "New alerts refused because too many are active."));

/// Notices by receiver and what became of them: `sent`, `retried`, `refused`, `expired`, `dropped`.
pub static NOTICES: LazyLock<IntCounterVec> =
    LazyLock::new(|| counters("petrel_notices_total", "Notices, by receiver and outcome.", &["receiver", "outcome"]));

/// Samples by what the scorer did with them: `scored`, `warmup`, `late`, `unusable`, `series_limit`; `dropped_scores` are
/// small scores that found no room before the next tick.
pub static SCORE_SAMPLES: LazyLock<IntCounterVec> =
    LazyLock::new(|| counters("petrel_score_samples_total", "Samples seen by the scorer, by outcome.", &["outcome"]));

/// Series that have a detector.
pub static SCORE_SERIES: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("petrel_score_series", "Series that have a detector."));

/// Learned state that could not be read or written, by `operation`.
pub static SCORE_STATE_FAILURES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counters("petrel_score_state_failures_total", "Learned state that could not be read or written.", &["operation"])
});

/// File systems, memories and processors that are forecast.
pub static PREDICT_SUBJECTS: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("petrel_predict_subjects", "File systems, memories and processors that are forecast."));

/// Subjects found beyond the limit, at each tick.
pub static PREDICT_LEFT_OUT: LazyLock<IntCounter> =
    LazyLock::new(|| counter("petrel_predict_left_out_total", "Subjects left out because too many are forecast."));

/// Forecasts made.
pub static PREDICT_FORECASTS: LazyLock<IntCounter> =
    LazyLock::new(|| counter("petrel_predict_forecasts_total", "Forecasts made."));

/// Ledger entries by what became of them: `recorded`, `refused`, `happened`, `did_not`, `censored`, `unpredicted`.
pub static LEDGER_ENTRIES: LazyLock<IntCounterVec> =
    LazyLock::new(|| counters("petrel_ledger_entries_total", "Entries of the ledger, by outcome.", &["outcome"]));

/// Batches of derived series (scores, forecasts, recorded rules) that could not be stored; they are made anew.
pub static DERIVED_BATCHES_LOST: LazyLock<IntCounter> = LazyLock::new(|| {
    counter("petrel_derived_batches_lost_total", "Batches of derived series that could not be stored.")
});

/// Whether the config, rules and runbooks on disk are those in force: 0 after a reload that was refused.
pub static CONFIG_IN_FORCE: LazyLock<IntGauge> = LazyLock::new(|| {
    gauge("petrel_config_in_force", "1 while the files on disk are in force, 0 after a refused reload.")
});

/// Series known to the store.
pub static STORE_SERIES: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("petrel_store_series", "Series known to the store."));

/// Samples held in memory until they are sealed.
pub static STORE_HEAD_SAMPLES: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("petrel_store_head_samples", "Samples in memory, not yet sealed."));

/// Bytes of the data folder.
pub static STORE_DISK_BYTES: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("petrel_store_disk_bytes", "Bytes of all files of the data folder."));

/// Bytes free under the data folder.
pub static STORE_DISK_BYTES_FREE: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("petrel_store_disk_bytes_free", "Bytes free under the data folder."));

/// Free bytes under the data folder below which samples are refused.
pub static STORE_DISK_BYTES_RESERVED: LazyLock<IntGauge> = LazyLock::new(|| {
    gauge("petrel_store_disk_bytes_reserved", "Free bytes under the data folder below which samples are refused.")
});

/// Files of samples unlinked, by reason: `age`, `size`.
pub static STORE_FILES_UNLINKED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counters("petrel_store_files_unlinked_total", "Files of samples unlinked by the retention, by reason.", &["reason"])
});

/// Times that rollups of a day were built: `begun`, `done`, or `spoilt` by samples that came late, and so begun again later.
pub static STORE_ROLLUP_BUILDS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counters("petrel_store_rollup_builds_total", "Times rollups of a day were built, by outcome.", &["outcome"])
});

/// Steps of the store's maintenance that failed and are tried again by the next pass.
pub static STORE_MAINTENANCE_PROBLEMS: LazyLock<IntCounter> = LazyLock::new(|| {
    counter("petrel_store_maintenance_problems_total", "Steps of maintenance that failed and are tried again.")
});

/// Whether the store rests because a backup is being taken.
pub static STORE_RESTING: LazyLock<IntGauge> = LazyLock::new(|| {
    gauge("petrel_store_resting", "1 while a backup is taken and nothing is unlinked, merged or deleted.")
});

/// Damage in files of samples that a step went on without: `merge`, `rollup`.
pub static STORE_DAMAGE_SKIPPED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counters(
        "petrel_store_damage_skipped_total",
        "Times damage in a file of samples was left aside, by step.",
        &["step"],
    )
});

/// Deletions of samples that operators asked for and that are done.
pub static STORE_DELETIONS: LazyLock<IntCounter> =
    LazyLock::new(|| counter("petrel_store_deletions_total", "Deletions of samples done."));

/// Resident memory of the server.
pub static RESIDENT_BYTES: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("petrel_resident_memory_bytes", "Resident memory of the server."));

/// What the server may take, `memory_max`; 0 for no limit.
pub static MEMORY_BYTES_MAX: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("petrel_memory_bytes_max", "Most memory of the server, 0 for no limit."));

/// How scarce memory is.
pub static MEMORY_LEVEL: LazyLock<IntGauge> = LazyLock::new(|| {
    gauge("petrel_memory_level", "0 while memory has room, 1 while no series are added, 2 while queries are refused.")
});

/// Shows the counters of limits from the start, at 0. One that first came to be when its limit is met would come too late: its
/// own series may be one too many for the store, and what it began with is no increase.
pub fn declare_limits() {
    let declare = |counters: &IntCounterVec, values: &[&str]| {
        for value in values {
            // To ask for a counter makes it.
            drop(counters.with_label_values(&[*value]));
        }
    };
    declare(&INGEST_SAMPLES, &["future", "too_old", "closed", "malformed"]);
    declare(&INGEST_SAMPLES, &["series_limit", "source_limit", "memory_limit", "label_limit"]);
    let write = ["write.body_max", "write.decoded_max", "write.in_flight_max", "write.body_timeout"];
    declare(&INGEST_LIMITS, &write);
    declare(&INGEST_LIMITS, &["store.disk_reserve", "queue", "agents", "delta_turn", "bug"]);
    declare(&INGEST_REQUESTS_REFUSED, &["400", "413", "429", "503"]);
    declare(&REQUESTS_DENIED, &["body_timeout"]);
    declare(&SCORE_SAMPLES, &["series_limit"]);
    let query = ["samples_max", "timeout", "steps_max", "concurrent_max", "queue_timeout", "text_max", "answer_max"];
    declare(&QUERY_LIMITS, &query);
    declare(&QUERY_LIMITS, &["series_max", "memory_max"]);
    STORE_MAINTENANCE_PROBLEMS.inc_by(0);
    STORE_RESTING.add(0);
    declare(&STORE_DAMAGE_SKIPPED, &["merge", "rollup"]);
    STORE_TAP_DROPPED.inc_by(0);
    INGEST_IN_FLIGHT_BYTES.add(0);
    declare(&WRITE_DICTIONARIES, &["hit", "miss", "mismatch", "full"]);
    WRITE_DICTIONARY_BYTES.add(0);
    MEMORY_LEVEL.add(0);
}

fn counter(name: &str, help: &str) -> IntCounter {
    let counter = IntCounter::new(name, help).expect("the name is a constant of this file");
    default_registry().register(Box::new(counter.clone())).expect("each name of this file is registered once");
    counter
}

/// Log lines by what became of them: `accepted`, `duplicate`.
pub static INGEST_LOG_LINES: LazyLock<IntCounterVec> =
    LazyLock::new(|| counters("petrel_ingest_log_lines_total", "Log lines received, by outcome.", &["outcome"]));

/// Times that what OTLP senders sent before was forgotten because there was too much of it.
pub static INGEST_SEEN_CLEARED: LazyLock<IntCounter> = LazyLock::new(|| {
    counter("petrel_ingest_seen_cleared_total", "Times the memory of OTLP points was full and begun anew.")
});

/// OTLP points of delta temporality by what became of them. Taken: `began`, `added`, `gap`, `overlap`, `replaced`; dropped: `old`,
/// `older_start`, `future`, `limit`.
pub static OTLP_DELTA_POINTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counters("petrel_otlp_delta_points_total", "OTLP points of delta temporality, by outcome.", &["outcome"])
});

/// Series of all streams of deltas that are known.
pub static OTLP_DELTA_SERIES: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("petrel_otlp_delta_series", "Series that OTLP deltas are added up for."));

/// Requests of senders refused as a whole, by HTTP status.
pub static INGEST_REQUESTS_REFUSED: LazyLock<IntCounterVec> =
    LazyLock::new(|| counters("petrel_ingest_requests_refused_total", "Requests refused, by status.", &["status"]));

/// Requests of senders that a limit refused as a whole, by its key in the config; a journal that is behind is `queue`.
pub static INGEST_LIMITS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counters(
        "petrel_ingest_limits_total",
        "Requests of senders that a limit refused as a whole, by its key in the config.",
        &["limit"],
    )
});

/// Memory of the bodies that are being received and decoded.
pub static INGEST_IN_FLIGHT_BYTES: LazyLock<IntGauge> = LazyLock::new(|| {
    gauge("petrel_ingest_in_flight_bytes", "Bytes of request bodies that are being received and decoded.")
});

/// Batches of agents and their dictionaries: `hit`, `miss` (the server holds none: the agent sends the batch plain), `mismatch` (it
/// holds another), `full` (the agent is offered none).
pub static WRITE_DICTIONARIES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counters("petrel_write_dictionaries_total", "Batches of agents and their dictionaries, by outcome.", &["outcome"])
});

/// Memory of the dictionaries of agents.
pub static WRITE_DICTIONARY_BYTES: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("petrel_write_dictionary_bytes", "Bytes held as dictionaries of agents' next batches."));

/// Most of it, `write.in_flight_max`.
pub static INGEST_IN_FLIGHT_BYTES_MAX: LazyLock<IntGauge> = LazyLock::new(|| {
    gauge("petrel_ingest_in_flight_bytes_max", "Most bytes of request bodies that may be received and decoded at once.")
});

/// Log lines that gave way to later ones because of a limit.
pub static STORE_LOG_LINES_DROPPED: LazyLock<IntCounter> = LazyLock::new(|| {
    counter("petrel_store_log_lines_dropped_total", "Log lines dropped because of a limit on lines, bytes or age.")
});

/// Names of metrics whose type and help found no room.
pub static STORE_METADATA_DROPPED: LazyLock<IntCounter> = LazyLock::new(|| {
    counter("petrel_store_metadata_dropped_total", "Metric metadata not kept because of the limit on names.")
});

/// Samples that a reader of the store's feed missed because it was behind.
pub static STORE_TAP_DROPPED: LazyLock<IntCounter> = LazyLock::new(|| {
    counter("petrel_store_tap_dropped_samples_total", "Accepted samples that scoring missed because it was behind.")
});

/// Heartbeat datagrams by what became of them: `accepted`, `malformed`, `unknown_agent`, `wrong_tag`, `replayed`, `old_boot`,
/// `too_many_agents`, `too_many_paths`, `queue_full`, `socket_error`.
pub static HEARTBEATS: LazyLock<IntCounterVec> =
    LazyLock::new(|| counters("petrel_heartbeats_total", "Heartbeat datagrams received, by outcome.", &["outcome"]));

/// Silent hosts of which others were asked, by what became of the question: `answered`, `failed`, or `postponed` to a later round.
pub static WITNESS_QUESTIONS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counters(
        "petrel_witness_questions_total",
        "Times that others were to be asked about a silent host, by outcome.",
        &["outcome"],
    )
});

/// Signs of life of hosts beyond the number that is watched.
pub static VERDICT_HOSTS_REFUSED: LazyLock<IntCounter> = LazyLock::new(|| {
    counter("petrel_verdict_hosts_refused_total", "Signs of life of hosts that are not watched: there are too many.")
});

/// Runs by runbook and how they ended; also stored as a series, where it survives restarts.
pub static RUNS: LazyLock<IntCounterVec> =
    LazyLock::new(|| counters("petrel_runs_total", "Runs that ended, by outcome.", &["runbook", "outcome"]));

/// Words of people, answers and inventories that remedy could not follow.
pub static REMEDY_REJECTED: LazyLock<IntCounter> = LazyLock::new(|| {
    counter("petrel_remedy_rejected_total", "Approvals, answers and inventories that could not be followed.")
});

/// Samples by what became of them on the way to the remote engine: `sent`, `refused` by it, `dropped` because the queue was full.
pub static REMOTE_SAMPLES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counters("petrel_remote_samples_total", "Samples for the remote engine, by outcome.", &["outcome"])
});

/// Rounds of sending to the remote engine that failed and are tried again.
pub static REMOTE_WRITE_FAILURES: LazyLock<IntCounter> = LazyLock::new(|| {
    counter("petrel_remote_write_failures_total", "Failed rounds of sending to the remote engine; all are tried again.")
});

/// Bytes of journals that wait for the remote engine.
pub static REMOTE_QUEUE_BYTES: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("petrel_remote_queue_bytes", "Bytes of journals that wait for the remote engine."));

/// How far the remote engine is behind.
pub static REMOTE_LAG_SECONDS: LazyLock<IntGauge> = LazyLock::new(|| {
    gauge("petrel_remote_lag_seconds", "Seconds since the remote engine had everything that was committed.")
});

/// Requests that read from the remote engine by outcome: `ok`, `refused`, `away`.
pub static REMOTE_READS: LazyLock<IntCounterVec> =
    LazyLock::new(|| counters("petrel_remote_reads_total", "Reads from the remote engine, by outcome.", &["outcome"]));

fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    let counters =
        IntCounterVec::new(Opts::new(name, help), labels).expect("name and labels are constants of this file");
    default_registry().register(Box::new(counters.clone())).expect("each name of this file is registered once");
    counters
}

fn gauge(name: &str, help: &str) -> IntGauge {
    let gauge = IntGauge::new(name, help).expect("the name is a constant of this file");
    default_registry().register(Box::new(gauge.clone())).expect("each name of this file is registered once");
    gauge
}
