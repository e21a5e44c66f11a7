//! What Petrel's end-to-end tests share: starting and ending real processes on ports of their own, and waiting for conditions.
