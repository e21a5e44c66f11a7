//! Online scoring of one series: a tail probability for each sample, in O(1) time and memory.
