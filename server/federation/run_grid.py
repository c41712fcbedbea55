"""What every grid of ours has in common, wherever its nodes are: one run, and messages as Flower makes them."""

from __future__ import annotations

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run


class RunGrid(Grid):
    """A grid that works in one run at a time."""

    def __init__(self, run_id: int) -> None:
        """Begin with an empty run of this number."""
        self._run = Run.create_empty(run_id)

    def set_run(self, run: Run) -> None:
        """Work in another run; nodes keep their state."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run that messages belong to."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Make a message; Flower's deprecated way of it."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)
