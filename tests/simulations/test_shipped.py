"""The model of the repository, and copies that lack it."""

from pathlib import Path

import pytest

from headwater.compression.bundle import Bundle
from headwater.compression.errors import BundleError
from headwater.simulations import shipped


def test_a_clone_has_it() -> None:
    assert Bundle.load(shipped.shipped_bundle()).manifest.name == "solar"


def test_a_copy_without_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped.resources, "files", lambda _: tmp_path)
    with pytest.raises(BundleError, match=r"no model in .*bundles: name one with --bundle PATH"):
        shipped.shipped_bundle()
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / "solar.zip").touch()
    assert shipped.shipped_bundle() == tmp_path / "bundles" / "solar.zip"
