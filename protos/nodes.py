"""Who is who in federated learning: a device's name as Flower's node id. Needs nothing, so that any process may ask."""

import hashlib

SERVER_NODE = 1
"""The server's own node id, as Flower has it."""


def node_id(device: str) -> int:
    """The node id of a device: the first 63 bits of its name's SHA-256, never 0 or the server's."""
    number = int.from_bytes(hashlib.sha256(device.encode()).digest()[:8], "big") >> 1
    return number if number > SERVER_NODE else SERVER_NODE + 1
