"""The device's part of federated learning: messages in and out, and the process that trains."""
