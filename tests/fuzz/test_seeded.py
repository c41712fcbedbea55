"""The inputs that a seed makes: the same each time, every one tried, every finding told with its input."""

from __future__ import annotations

import random

import pytest

from tests.fuzz import seeded
from tests.fuzz.targets import Target


def target_of(run: object) -> Target:
    return Target("planted", run, [b"abcdef", b"0123456789"], [b""])  # type: ignore[arg-type]


def test_the_inputs_are_the_same_each_time_and_differ() -> None:
    every: list[list[bytes]] = [[], []]
    for inputs in every:
        target = target_of(lambda data, inputs=inputs: inputs.append(data) or len(data) > 6)
        (count, size, taken), findings = seeded.tried(target, 200)
        assert (count, size, findings) == (200, sum(map(len, inputs)), [])
        assert taken == sum(len(data) > 6 for data in inputs)
    assert every[0] == every[1]
    assert len(set(every[0])) > 100
    assert seeded.changed(random.Random(1), [b"abc"]) != seeded.changed(random.Random(2), [b"abc"])


def test_a_finding_is_told_with_its_input() -> None:
    seen: list[bytes] = []

    def run(data: bytes) -> bool:
        seen.append(data)
        return 1 // len(data) > 0 if len(seen) < 2 else bool(1 // 0)

    (count, _, _), findings = seeded.tried(target_of(run), 3)
    assert count == 3
    assert findings[-1] == f"planted: ZeroDivisionError('integer division or modulo by zero') of {seen[2].hex()}"


def test_one_that_never_ends_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeded, "SECONDS_EACH", 1)

    def run(_: bytes) -> bool:
        while True:
            pass

    _, (finding,) = seeded.tried(target_of(run), 1)
    assert "StallError('more than 1 s')" in finding
