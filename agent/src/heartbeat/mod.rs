//! Heartbeats: small authenticated UDP datagrams on every configured path, never spooled.
