"""A fault that random bytes do not find, an input that takes all memory, one that never ends: to be found."""

import signal
import threading


def fault(data: bytes) -> bool:
    """Coverage leads to it, letter by letter."""
    return data[:1] == b"H" and data[1:2] == b"W" and data[2:3] == b"!" and 1 // data.count(b"W", 3) > 0


def bomb(data: bytes) -> bool:
    """Ten gigabytes, more than the process may have."""
    return len(data) > 3 and len(bytearray(10 << 30)) > 0


def stall(data: bytes) -> bool:
    """Stands still where libFuzzer's clock does not reach, as one that waits for a lock would."""
    if data == b"abcdef":
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        threading.Event().wait()
    return True


def fault_seeds() -> list[bytes]:
    return [b"abcdef"]


bomb_seeds = stall_seeds = fault_seeds
