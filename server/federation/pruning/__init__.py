"""Federated pruning: sparse rounds, and channels removed for good to a stated latency."""
