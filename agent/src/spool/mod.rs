//! Spool: frozen batches on disk, within a budget, until the server has acknowledged them.
