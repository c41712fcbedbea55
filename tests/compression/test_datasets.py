"""Named data sets and folders: what is read, how it is split, what is refused with which words."""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headwater.compression import datasets
from headwater.compression.datasets import open_dataset, read_image, split
from headwater.compression.errors import DataError
from headwater.compression.manifest import Task


def picture(path: Path, mode: str = "RGB", size: tuple[int, int] = (9, 7)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(str(path))).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for name, count in (("cat", 8), ("dog", 12)):
        for index in range(count):
            picture(root / name / f"{index}.png", mode=("RGB", "L", "P")[index % 3], size=(5 + index, 9))
    return root


class TestSolar:
    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("elpv_dataset")

    def test_is_the_published_set(self) -> None:
        solar = open_dataset("solar")
        assert [(task.name, task.labels) for task in solar.tasks] == [
            ("defect", ("intact", "defective")),
            ("cell_type", ("mono", "poly")),
        ]
        # The counts of the four probabilities in the set's own paper: 1508, 295, 106, 715; mono 1074, poly 1550.
        assert Counter(solar.labels("defect").tolist()) == {0: 1508 + 295, 1: 106 + 715}
        assert Counter(solar.labels("cell_type").tolist()) == {0: 1074, 1: 1550}
        assert "NC" in solar.licence

    def test_loads_a_cell(self) -> None:
        image = open_dataset("solar").items[0].load()
        assert (image.mode, image.size) == ("L", (300, 300))

    def test_split_is_three_quarters_and_stratified_by_both_labels(self) -> None:
        solar = open_dataset("solar")
        train, test = split(solar)
        assert (len(train), len(test)) == (1968, 656)
        assert {item.name for item in train.items}.isdisjoint(item.name for item in test.items)
        for wanted in ((0, 0), (0, 1), (1, 0), (1, 1)):
            whole, part = (
                sum((item.labels["defect"], item.labels["cell_type"]) == wanted for item in each.items)
                for each in (solar, test)
            )
            assert abs(part - whole / 4) < 1

    def test_missing_package_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "elpv_dataset", None)
        monkeypatch.setattr(datasets, "find_spec", lambda _: None)
        with pytest.raises(DataError, match="pip install elpv-dataset"):
            open_dataset("solar")


def test_digits_are_those_of_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.datasets")
    theirs = sklearn.load_digits()
    digits = open_dataset("digits")
    np.testing.assert_array_equal(digits.labels("digit"), theirs.target)
    loaded = np.stack([np.asarray(item.load()) for item in digits.items])
    np.testing.assert_array_equal(loaded, np.rint(theirs.images * 255 / 16))


class TestFolder:
    def test_classes_are_the_sub_folders(self, photos: Path) -> None:
        (photos / ".cache").mkdir()
        dataset = open_dataset(photos)
        assert dataset.name == "photos"
        assert dataset.tasks[0].labels == ("cat", "dog")
        assert Counter(dataset.labels("class").tolist()) == {0: 8, 1: 12}
        assert dataset.items[0].name == "cat/0.png"
        assert {item.load().mode for item in dataset.items} == {"RGB", "L", "P"}

    def test_own_test_part(self, photos: Path) -> None:
        picture(photos / "test" / "dog" / "x.jpg")
        train, test = split(open_dataset(photos))
        assert (len(train), [item.name for item in test.items]) == (20, ["test/dog/x.jpg"])
        assert test.items[0].labels == {"class": 1}

    def test_train_and_test_folders(self, photos: Path, tmp_path: Path) -> None:
        root = tmp_path / "both"
        root.mkdir()
        photos.rename(root / "train")
        picture(root / "test" / "cat" / "x.jpg")
        train, test = split(open_dataset(root))
        assert (train.tasks[0].labels, len(train), len(test)) == (("cat", "dog"), 20, 1)

    def test_a_class_may_be_named_test(self, photos: Path) -> None:
        picture(photos / "test" / "x.jpg")
        assert open_dataset(photos).tasks[0].labels == ("cat", "dog", "test")

    def test_damaged_files_are_skipped_with_a_reason(self, photos: Path) -> None:
        whole = (photos / "cat" / "0.png").read_bytes()
        (photos / "cat" / "cut.png").write_bytes(whole[: len(whole) // 2])
        (photos / "dog" / "notes.txt").write_text("not a picture")
        dataset = open_dataset(photos)
        assert len(dataset) == 20
        assert [entry.name for entry in dataset.skipped] == ["cat/cut.png", "dog/notes.txt"]
        assert all(entry.reason for entry in dataset.skipped)

    def test_unchecked_damaged_file_raises_when_loaded(self, photos: Path) -> None:
        (photos / "cat" / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        items = {item.name: item for item in open_dataset(photos, check=False).items}
        with pytest.raises(DataError, match=r"cut\.png cannot be read"):
            items["cat/cut.png"].load()

    def test_refusals(self, photos: Path, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"does not exist; give a folder .* digits, solar"):
            open_dataset(tmp_path / "nowhere")
        with pytest.raises(DataError, match="is a file"):
            open_dataset(photos / "cat" / "0.png")
        with pytest.raises(DataError, match="has no sub-folders"):
            open_dataset(photos / "cat")
        (photos / "empty").mkdir()
        with pytest.raises(DataError, match="empty is empty; add images"):
            open_dataset(photos)
        (photos / "empty" / "x.jpg").write_bytes(b"no picture")
        with pytest.raises(DataError, match=r"no file in the class folder .*empty is a readable picture"):
            open_dataset(photos)

    def test_single_class(self, tmp_path: Path) -> None:
        picture(tmp_path / "photos" / "cat" / "x.png")
        with pytest.raises(DataError, match="a single class, 'cat'"):
            open_dataset(tmp_path / "photos")

    def test_unknown_test_class(self, photos: Path) -> None:
        picture(photos / "test" / "cow" / "x.png")
        with pytest.raises(DataError, match="cow"):
            open_dataset(photos)


def listed(folder: Path, *lines: str, count: int = 12) -> Path:
    """A folder with pictures 00 to ``count`` and a labels.csv of these lines."""
    for n in range(count):
        picture(folder / "roof" / f"{n:02}.png")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def rows(*labels: str, count: int = 12) -> list[str]:
    """Lines in which the labels of each column (given as a text, one letter a class) come by turns."""
    return [
        ",".join([f"roof/{n:02}.png", *(column[n // 2**place % len(column)] for place, column in enumerate(labels))])
        for n in range(count)
    ]


class TestTable:
    def test_each_column_is_a_task(self, tmp_path: Path) -> None:
        dataset = open_dataset(listed(tmp_path / "own", "file,defect,cell_type", *rows("yn", "mp")))
        assert dataset.tasks == (Task("defect", ("n", "y")), Task("cell_type", ("m", "p")))
        assert (dataset.name, len(dataset)) == ("own", 12)
        assert dataset.items[2].name == "roof/02.png"
        assert dataset.labels("defect").tolist() == [1, 0] * 6
        assert dataset.labels("cell_type").tolist() == [0, 0, 1, 1] * 3
        assert dataset.items[2].load().size

    def test_a_column_that_comes_later_moves_no_image(self, tmp_path: Path) -> None:
        before = open_dataset(listed(tmp_path / "a", "file,defect", *rows("yn", count=40), count=40))
        after = open_dataset(listed(tmp_path / "b", "file,defect,age", *rows("yn", "abcde", count=40), count=40))
        held_out = {item.name for item in split(before)[1].items}
        assert {item.name for item in split(after, by=["defect"])[1].items} == held_out
        assert {item.name for item in split(after)[1].items} != held_out, "strata of both columns are others"
        with pytest.raises(DataError, match="a has defect; it cannot be split by age as before"):
            split(before, by=["defect", "age"])

    def test_what_cannot_be_read_is_skipped(self, tmp_path: Path) -> None:
        folder = listed(tmp_path / "own", "file,defect", *rows("yn"))
        (folder / "roof" / "03.png").write_bytes(b"no picture")
        (folder / "roof" / "04.png").unlink()
        dataset = open_dataset(folder)
        assert [skipped.name for skipped in dataset.skipped] == ["roof/03.png", "roof/04.png"]
        assert len(dataset) == 10
        for n in range(1, 12, 2):
            (folder / "roof" / f"{n:02}.png").write_bytes(b"no picture")
        with pytest.raises(DataError, match=r"no picture of defect n in .*own is readable"):
            open_dataset(folder)

    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            (["name,defect", "roof/00.png,y"], "want file and then a name for each task"),
            (["file"], "want file and then a name for each task"),
            (["file,Defect"], "want file and then a name for each task"),
            (["file,a,a"], "want file and then a name for each task"),
            (["file,defect", "roof/00.png,y", "roof/01.png,"], r"line 3 of .*labels\.csv has to name"),
            (["file,defect", "roof/00.png"], "line 2 of"),
            (["file,defect", "roof/00.png,y,n"], "line 2 of"),
            (["file,defect", "roof/00.png,y", "./roof/00.png,n"], "line 3 of"),
            (["file,defect", "../x.png,y"], "line 2 of"),
            (["file,defect", "/etc/x.png,y"], "line 2 of"),
            (["file,defect", "roof/00.png,y", "roof/01.png,y"], "fewer than two labels of defect"),
            (["file,defect", '"roof/00.png,y'], "is no table"),
        ],
    )
    def test_a_wrong_line_is_named(self, tmp_path: Path, lines: list[str], message: str) -> None:
        with pytest.raises(DataError, match=message):
            open_dataset(listed(tmp_path / "own", *lines, count=2))


class TestSplit:
    def test_depends_on_seed_and_names_only(self, photos: Path) -> None:
        dataset = open_dataset(photos)
        names = [[item.name for item in split(dataset, seed=seed)[1].items] for seed in (0, 0, 1)]
        assert names[0] == names[1] != names[2]

    def test_an_added_item_moves_few_others(self, photos: Path) -> None:
        before = {item.name for item in split(open_dataset(photos))[1].items}
        picture(photos / "dog" / "new.png")
        after = {item.name for item in split(open_dataset(photos))[1].items}
        assert len(before - after) <= 1

    def test_every_class_keeps_something_to_learn_from(self, photos: Path) -> None:
        train, _ = split(open_dataset(photos), test_share=0.97)
        assert set(train.labels("class").tolist()) == {0, 1}

    @pytest.mark.parametrize("share", [0.0, 1.0, -0.5])
    def test_share_must_leave_two_parts(self, photos: Path, share: float) -> None:
        with pytest.raises(DataError, match="must be between 0 and 1"):
            split(open_dataset(photos), test_share=share)

    def test_too_few_images(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            picture(tmp_path / "few" / name / "x.png")
        with pytest.raises(DataError, match="add images"):
            split(open_dataset(tmp_path / "few"))


def test_pictures_are_turned_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees
    image.save(tmp_path / "x.jpg", exif=exif)
    assert read_image(tmp_path / "x.jpg").size == (4, 8)
    assert read_image((tmp_path / "x.jpg").read_bytes()).size == (4, 8)
