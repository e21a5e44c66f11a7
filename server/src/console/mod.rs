//! The console: one live page for operators.
