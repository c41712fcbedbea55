"""What the enrolment's port refuses, each for what is wrong with it alone."""

from __future__ import annotations

from pathlib import Path

from tests.security import enrolments


async def test_every_enrolment_that_ought_to_be_refused_is(tmp_path: Path) -> None:
    tried = await enrolments.every_one(tmp_path)
    assert (len(tried), [one for one in tried if not one.stopped]) == (17, [])
