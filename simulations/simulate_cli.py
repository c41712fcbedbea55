"""``headwater simulate``: a fleet on one machine, before buying it."""

import typer

app = typer.Typer(no_args_is_help=True)


@app.callback()
def simulate() -> None:
    """Simulate a fleet on one machine: its traffic, its learning, its energy."""
