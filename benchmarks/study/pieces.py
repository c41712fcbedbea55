"""All pieces of a plan, in the order in which they are run: what others build on, the headline, the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.study import bottleneck, cuts, entropic, image_codecs, local_exit, ours, separate, tasks, teacher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.study.plan import Plan
    from benchmarks.study.runner import Piece

MODULES = (teacher, ours, local_exit, image_codecs, bottleneck, entropic, separate, tasks, cuts)


def all_pieces(plan: Plan) -> list[Piece]:
    """Every piece."""
    return [piece for module in MODULES for piece in module.pieces(plan)]


def chosen(plan: Plan, names: Sequence[str] = (), seeds: Sequence[int] = ()) -> list[Piece]:
    """The pieces whose names begin with one of these, on these splits; all where none is given.

    Raises ValueError for a name that no piece begins with, with those that there are.
    """
    known = all_pieces(plan)
    for name in names:
        if not any(piece.name.startswith(name) for piece in known):
            if not (extra := image_codecs.named(plan, name)):
                there = ", ".join(dict.fromkeys(piece.name for piece in known))
                raise ValueError(f"no piece begins with {name!r}; there are {there}")
            known += extra
    wanted = [piece for piece in known if not names or piece.name.startswith(tuple(names))]
    return [piece for piece in wanted if not seeds or piece.seed in seeds]
