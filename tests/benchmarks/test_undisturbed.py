"""What is counted of the time that passes: the processes' own CPU and the core's idling, not the wall's."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from benchmarks.undisturbed import Undisturbed

if TYPE_CHECKING:
    from pathlib import Path

SPIN_S = 0.02


def spin() -> float:
    """Spend CPU; returns how much."""
    began = time.process_time()
    while time.process_time() - began < SPIN_S:
        pass
    return time.process_time() - began


def idled(folder: Path, *microseconds: int) -> str:
    """Files as the kernel's, of a core that has idled so long in each of its states."""
    for number, value in enumerate(microseconds):
        state = folder / f"cpu3/state{number}"
        state.mkdir(parents=True, exist_ok=True)
        (state / "time").write_text(f"{value}\n", encoding="ascii")
    return str(folder / "cpu{core}")


def spin_and_be_kept_waiting() -> float:
    """As where another process has the core for a fifth of a second: it does not idle."""
    spent = spin()
    time.sleep(0.2)
    return spent


def test_what_others_take_is_not_counted(tmp_path: Path) -> None:
    with Undisturbed(3, idle=idled(tmp_path, 7, 7)) as clock:
        spent, undisturbed_s, wall_s = clock.seconds(spin_and_be_kept_waiting)
    assert clock.known
    assert SPIN_S <= spent <= undisturbed_s <= wall_s - 0.1


def test_idling_in_any_state_is_counted(tmp_path: Path) -> None:
    with Undisturbed(3, idle=idled(tmp_path, 1000, 50)) as clock:
        _, undisturbed_s, _ = clock.seconds(lambda: idled(tmp_path, 401_000, 100_050))
    assert undisturbed_s >= 0.5


def test_other_processes_are_counted_by_their_own_clocks(tmp_path: Path) -> None:
    with Undisturbed(3, os.getpid(), idle=idled(tmp_path, 0)) as clock:
        spent, undisturbed_s, _ = clock.seconds(spin)
    assert undisturbed_s >= 2 * spent, "once as its own, once as that of the other, which is itself here"


def test_where_the_kernel_does_not_tell_it_is_the_wall_s_time(tmp_path: Path) -> None:
    with Undisturbed(3, os.getpid(), idle=str(tmp_path / "cpu{core}")) as clock:
        _, undisturbed_s, wall_s = clock.seconds(spin)
    assert not clock.known
    assert undisturbed_s == wall_s
