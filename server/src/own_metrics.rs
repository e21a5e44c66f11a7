//! Petrel's own metrics, shown on `/metrics` and stored beside the fleet's series as `job="petrel"`, so that its own rules can
//! watch it.

use axum::Router;
use axum::http::header;
use axum::routing::get;
use prometheus::proto::MetricType;
use prometheus::{Encoder, TextEncoder};

use crate::series::{Labels, NAME, Sample, Timestamp};
use crate::store::{Batch, StoreStats};
use crate::{memory, telemetry};

/// `/metrics` in Prometheus' text format.
pub fn router() -> Router {
    Router::new().route(
        "/metrics",
        get(|| async {
            let mut text = Vec::new();
            // Encoding into memory fails only on a family without points, which the registry does not give out.
            if let Err(error) = TextEncoder::new().encode(&prometheus::gather(), &mut text) {
                tracing::warn!(%error, "own metrics cannot be shown");
            }
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
        }),
    )
}

/// Takes sizes that nobody counts as they change.
pub fn measure(store: StoreStats) {
    telemetry::STORE_SERIES.set(store.series as i64);
    telemetry::STORE_HEAD_SAMPLES.set(store.head_samples as i64);
    telemetry::STORE_DISK_BYTES.set(store.disk_bytes as i64);
    telemetry::STORE_DISK_BYTES_FREE.set(store.disk_bytes_free as i64);
    telemetry::STORE_DISK_BYTES_RESERVED.set(i64::try_from(store.disk_bytes_reserved).unwrap_or(i64::MAX));
    telemetry::RESIDENT_BYTES.set(memory::used_bytes().map_or(0, |bytes| bytes as i64));
}

/// Every counter and gauge as a sample at `now`.
pub fn batch(instance: &str, now: Timestamp) -> Batch {
    let mut batch = Batch { is_own: true, ..Batch::default() };
    for family in prometheus::gather() {
        for metric in family.get_metric() {
            let value = match family.get_field_type() {
                MetricType::COUNTER => metric.get_counter().get_value(),
                MetricType::GAUGE => metric.get_gauge().get_value(),
                _ => continue,
            };
            let own = [(NAME, family.name()), ("job", "petrel"), ("instance", instance)];
            let labels = metric.get_label().iter().map(|pair| (pair.name(), pair.value()));
            batch.series.push((Labels::new(labels.chain(own)), vec![Sample { t: now, v: value }]));
        }
    }
    batch
}
