//! Drivers: what can read and change one platform, within what this host's config allows.
