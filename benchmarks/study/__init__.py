"""The full study behind ``benchmarks.rate_accuracy``: peers trained on the same splits, in pieces that resume."""
