"""The edge server: inference service, batcher, tails, training."""
