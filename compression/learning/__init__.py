"""What both ends share of learning: the split network, trainable again, and local training steps. Needs torch."""
