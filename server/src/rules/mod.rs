//! Rules: Prometheus rule files, loaded whole or not at all, evaluated over a query source.
