"""What the benchmark of federated rounds is made of: a fleet with data of its own, the peer, contests, claims."""
