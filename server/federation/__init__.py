"""The server's part of federated learning: messages to devices over their streams, strategies, rounds."""
