"""The server's part of federated learning: messages to devices over their streams, strategies, rounds."""

import os

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")  # flwr reads it while it is imported
