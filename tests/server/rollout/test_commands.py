"""The commands, in this process: what they print, and how they say what is wrong."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headwater.compression.bundle_cli import app as bundle_app
from headwater.compression.errors import (
    HeadwaterError,
    IdentityError,
    LearningError,
    RolloutError,
    SettingsError,
    SignatureError,
)
from headwater.compression.release import Signer
from headwater.server.cli import app
from headwater.server.rollout.versions import Versions
from tests.versions import KEY, version, write_keys

RUNNER = CliRunner()


def said(*words: object) -> str:
    result = RUNNER.invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def words(tmp_path: Path) -> list[object]:
    """State and key."""
    return ["--state", tmp_path / "state", "--key", write_keys(tmp_path)[0]]


def save(tmp_path: Path, number: int) -> Path:
    return version(number).save(tmp_path / f"{number}.zip")


def test_publish_show_and_go_back(tmp_path: Path, words: list[object]) -> None:
    state = words[:2]
    first = said("publish", save(tmp_path, 1), *words)
    assert "10% of the devices at first" in first
    assert "nothing" not in first
    assert "there was no bundle of that name to compare with" in first
    with pytest.raises(RolloutError, match="is still tried by 10%"):
        said("publish", save(tmp_path, 2), *words)
    with pytest.raises(RolloutError, match="knows of no bundle before"):
        said("rollback", *state)
    shown = json.loads(said("versions", *state, "--json"))
    (release,) = shown["releases"]
    assert (release["stage"], release["share"], release["bundle"]) == ("canary", 0.1, version(1).id.hex())
    assert "tried by 10%" in said("versions", *state).replace("\n", " ")


def test_a_second_release_and_back(tmp_path: Path, words: list[object]) -> None:
    more = ("--canary", "1", "--max-growth", "10000", "--max-regression", "100")
    said("publish", save(tmp_path, 1), *words, *more)
    second = said("publish", save(tmp_path, 2), *words, *more)
    assert "for all devices" in second
    assert "+0.00 points in the mean" in second
    assert f"next: headwater server versions --state {words[1]}" in second
    assert f"back to tiny {version(1).short_id}" in said("rollback", *words[:2], "--reason", "ghosts")
    shown = said("versions", *words[:2])
    assert [shown.count(word) for word in ("ghosts", "left again", "over, was")] == [2, 1, 1]
    assert f"back to tiny {version(2).short_id}" in said("rollback", *words, "--to", version(2).short_id)


def test_a_worse_bundle_is_not_published(tmp_path: Path, words: list[object]) -> None:
    said("publish", save(tmp_path, 4), *words, "--canary", "1")
    with pytest.raises(RolloutError, match="is worse than the one in use"):
        said("publish", save(tmp_path, 5), *words, "--max-growth", "0")
    shown = json.loads(said("versions", *words[:2], "--json"))
    assert [one["id"] for one in shown["bundles"]] == [version(4).id.hex()]


def test_a_release_is_signed_anew(tmp_path: Path, words: list[object]) -> None:
    said("publish", save(tmp_path, 1), *words, "--canary", "1", "--valid-days", "1")
    first = json.loads(said("versions", *words[:2], "--json"))["releases"][0]
    assert f"tiny {version(1).short_id}, until" in said("refresh", *words)
    newest, before = json.loads(said("versions", *words[:2], "--json"))["releases"]
    assert before == first
    assert (newest["bundle"], newest["stage"]) == (first["bundle"], "everyone")
    assert newest["reason"] == f"{first['serial']}, signed anew"
    assert newest["expires"] > first["expires"] + 80 * 86400


def test_after_a_change_of_keys(tmp_path: Path, words: list[object]) -> None:
    root, lists, new = words[3], tmp_path / "keys", tmp_path / "new.key"
    said("publish", save(tmp_path, 1), *words, "--canary", "1")
    for line in (("keygen", new), ("rotate", lists, "--key", root, "--release", f"{new}.pub"), ("keys", lists)):
        done = RUNNER.invoke(bundle_app, [str(word) for word in line], catch_exceptions=False)
        assert done.exit_code == 0
    assert done.output.startswith("list 1, until")
    own = ("--state", words[1], "--key-lists", lists)
    with pytest.raises(SignatureError, match="may sign no releases by list 1"):
        said("refresh", *own, "--key", root)
    assert version(1).short_id in said("refresh", *own, "--key", new)
    lists.chmod(0o666)
    with pytest.raises(IdentityError, match="chmod go-w"):
        said("refresh", *own, "--key", new)


def test_a_release_that_is_tried_is_not_signed_anew(tmp_path: Path, words: list[object]) -> None:
    said("publish", save(tmp_path, 1), *words)
    with pytest.raises(RolloutError, match="is still tried by 10%"):
        said("refresh", *words)


def test_a_way_back_that_has_ended(tmp_path: Path, words: list[object]) -> None:
    more = ("--canary", "1", "--max-growth", "10000", "--max-regression", "100")
    said("publish", save(tmp_path, 1), *words, *more)
    said("publish", save(tmp_path, 2), *words, *more)
    with Versions(Path(str(words[1]))) as versions:
        release = versions.in_force("tiny")
        assert release is not None
        ended = Signer(KEY, valid_days=-1).release(release.serial + 1, version(1), back=True)
        versions._db.execute("UPDATE releases SET undo = ? WHERE serial = ?", (ended, release.serial))
    with pytest.raises(RolloutError, match="`headwater server refresh` signs it anew"):
        said("rollback", *words[:2])
    said("refresh", *words)
    assert f"back to tiny {version(1).short_id}" in said("rollback", *words[:2])


@pytest.mark.parametrize(
    ("given", "kind", "text"),
    [
        (("publish", "BUNDLE", "--key", "KEY"), SettingsError, "no state is set"),
        (("publish", "BUNDLE", "--state", "STATE"), SettingsError, "no key is set"),
        (("publish", "--state", "STATE", "--key", "KEY"), SettingsError, "name a BUNDLE"),
        (("publish", "--data", "digits", "--state", "STATE", "--key", "KEY"), LearningError, "no rounds in"),
        (("versions", "--state", "STATE"), RolloutError, "nothing was published"),
        (("rollback", "--state", "STATE"), RolloutError, "nothing was published"),
    ],
)
def test_what_is_wrong(tmp_path: Path, given: tuple[str, ...], kind: type[HeadwaterError], text: str) -> None:
    names = {"BUNDLE": save(tmp_path, 1), "STATE": tmp_path / "state", "KEY": write_keys(tmp_path)[0]}
    with pytest.raises(kind, match=text):
        said(*(names.get(word, word) for word in given))
