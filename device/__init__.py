"""The agent on the device: frame sources, head, controller, link."""
