//! Remedy: runbooks, guards, plans, runs: decided here, journalled before each step, carried out by agents.
