//! Notify: alerts grouped into notices, sent from a durable queue by webhook and mail.
