"""A target with a fault that random bytes do not find, and one that takes all memory: the fuzzer has to find them."""


def fault(data: bytes) -> bool:
    """Coverage leads to it, letter by letter."""
    return data[:1] == b"H" and data[1:2] == b"W" and data[2:3] == b"!" and 1 // data.count(b"W", 3) > 0


def bomb(data: bytes) -> bool:
    """Ten gigabytes, more than the process may have."""
    return len(data) > 3 and len(bytearray(10 << 30)) > 0


def fault_seeds() -> list[bytes]:
    return [b"abcdef"]


bomb_seeds = fault_seeds
