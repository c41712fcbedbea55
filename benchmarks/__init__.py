"""One module a question, each run as ``python -m benchmarks.NAME``; `benchmarks.claims` has what they share."""
