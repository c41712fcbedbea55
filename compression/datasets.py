"""Named data sets and folders of pictures, without torch: the trainer learns from them, the device replays them.

===============  =================================================================================================
name             what
===============  =================================================================================================
``solar``        2,624 photographs (300x300, grey) of solar cells from the package ``elpv-dataset``; tasks ``defect``
                 (defective when the annotated probability is at least 0.5) and ``cell_type`` (mono, poly).
                 Buerhop-Lutz et al., "A Benchmark for Visual Identification of Defective Solar Cells in
                 Electroluminescence Imagery", EU PVSEC 2018
``digits``       1,797 hand-written digits (8x8, grey) from scikit-learn; task ``digit``
a folder         one sub-folder a class; task ``class``. Its own split is used where it has one::

                     photos/cat/*.jpg  photos/dog/*.jpg                          no split: see :func:`split`
                     photos/{cat,dog}/*  photos/test/{cat,dog}/*                 test images aside
                     photos/train/{cat,dog}/*  photos/test/{cat,dog}/*           both aside
labels.csv       a folder with a file of this name: pictures anywhere in it, and a column a task::

                     file,defect,cell_type
                     roof/0001.jpg,intact,mono
===============  =================================================================================================

Pictures are read when :meth:`Item.load` is called: opening a data set costs little. scikit-learn and elpv-dataset are
never imported, only their files are read: importing the first takes 100 MB, which a device may not have.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import math
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from headwater.compression.errors import DataError
from headwater.compression.manifest import TASK_NAME, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

NAMES = ("digits", "solar")
"""Data sets that are opened by name; anything else is a path."""

LABELS = "labels.csv"
EXTRA = "fields beyond the last column"
TEST_SHARE = 0.25
DEFECTIVE_FROM = 0.5
DIGITS_TOP = 16


@dataclass(frozen=True)
class Item:
    """One picture with its labels."""

    name: str
    """Path within the data set, such as ``images/cell0001.png``: unique, and the same on every machine."""
    labels: Mapping[str, int]
    """Class index of each task, by the task's name."""
    load: Callable[[], Image.Image]
    """Read and decode the picture; raises :class:`DataError` when it cannot be."""


@dataclass(frozen=True)
class Skipped:
    """A file that was left out, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Dataset:
    """Pictures with labels, in an order that is the same on every machine."""

    name: str
    tasks: tuple[Task, ...]
    items: tuple[Item, ...]
    licence: str
    """Of the pictures, for people; a bundle trained on them repeats it."""
    test: tuple[Item, ...] | None = None
    """Items that the data set itself sets aside for testing; None where it does not."""
    skipped: tuple[Skipped, ...] = ()
    """Files that are no readable picture; tell the user of them."""

    def __len__(self) -> int:
        """Number of items, those set aside for testing not counted."""
        return len(self.items)

    def labels(self, task: str) -> NDArray[np.int64]:
        """Class index of every item, int64 [N]."""
        return np.array([item.labels[task] for item in self.items], dtype=np.int64)


def open_dataset(source: str | Path, *, check: bool = True) -> Dataset:
    """Open ``solar``, ``digits`` or a folder.

    With ``check`` every file of a folder is decoded once, so that what cannot be read is in :attr:`Dataset.skipped` and
    not among the items; without it such a file raises when it is loaded.

    Raises :class:`DataError` with what to do when the package or folder is not there, or holds nothing to learn from.
    """
    if str(source) == "solar":
        return _solar()
    if str(source) == "digits":
        return _digits()
    folder = Path(source).expanduser()
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {what}; give a folder with a sub-folder a class, or one of {', '.join(NAMES)}")
    return _listed(folder, check=check) if (folder / LABELS).is_file() else _folder(folder, check=check)


def split(
    dataset: Dataset, test_share: float = TEST_SHARE, seed: int = 0, *, by: Sequence[str] | None = None
) -> tuple[Dataset, Dataset]:
    """Return (training part, test part): the data set's own, or a stratified one.

    Every combination of the labels of the tasks ``by`` (all, if not given) is split alike. Within one, items are ranked
    by a hash of seed and name: no random generator whose stream could change, and an item added later moves hardly any
    other.

    Raises :class:`DataError` for a share that is not between 0 and 1 or leaves a part empty, and for a task ``by`` that
    the data set lacks.
    """
    if dataset.test is not None:
        return replace(dataset, test=None), replace(dataset, items=dataset.test, test=None)
    if not 0 < test_share < 1:
        raise DataError(f"the share of test images is {test_share}; it must be between 0 and 1")
    have = [task.name for task in dataset.tasks]
    if lost := sorted(set(by or ()) - set(have)):
        raise DataError(f"{dataset.name} has {', '.join(have)}; it cannot be split by {', '.join(lost)} as before")
    test = _chosen(dataset.items, test_share, seed, have if by is None else by)
    parts = [tuple(item for item in dataset.items if (item.name in test) is wanted) for wanted in (False, True)]
    if not all(parts):
        raise DataError(f"{len(dataset)} images cannot be split with {test_share:.0%} for testing; add images")
    return replace(dataset, items=parts[0]), replace(dataset, items=parts[1])


def read_image(file: Path | bytes) -> Image.Image:
    """Decode a picture, from a path or from its bytes, upright as its EXIF tag asks; raises :class:`DataError`."""
    name = f"{len(file)} bytes" if isinstance(file, bytes) else str(file)
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
            image.load()
            return ImageOps.exif_transpose(image)
    # Pillow's decoders let KeyError, struct.error, zlib.error and more out of damaged files, so no list is complete.
    except Exception as error:
        raise DataError(f"{name} cannot be read as a picture: {error}") from error


def _chosen(items: tuple[Item, ...], share: float, seed: int, by: Sequence[str]) -> set[str]:
    """Names of the test items: the same share of every stratum, by largest remainder, so that the total is exact."""
    strata: dict[tuple[tuple[str, int], ...], list[Item]] = defaultdict(list)
    for item in items:
        strata[tuple((task, item.labels[task]) for task in sorted(by))].append(item)
    groups = [sorted(strata[key], key=partial(_rank, seed=seed)) for key in sorted(strata)]
    counts = [math.floor(len(group) * share) for group in groups]
    remainders = sorted(range(len(groups)), key=lambda g: (counts[g] - len(groups[g]) * share, g))
    for g in remainders[: round(len(items) * share) - sum(counts)]:
        counts[g] += counts[g] + 1 < len(groups[g])  # one of each stratum always stays to be learnt from
    return {item.name for group, count in zip(groups, counts, strict=True) for item in group[:count]}


def _rank(item: Item, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}/{item.name}".encode()).digest()


# ---------------------------------------------------------------- packages


def _package_file(package: str, distribution: str, *path: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"the package {distribution} is not installed; run: pip install {distribution}")
    file = Path(next(iter(spec.submodule_search_locations))).joinpath(*path)
    if not file.is_file():
        raise DataError(
            f"{distribution} is installed without {file.name}; run: pip install --force-reinstall {distribution}"
        )
    return file


def _solar() -> Dataset:
    table = _package_file("elpv_dataset", "elpv-dataset", "data", "labels.csv")
    rows = [line.split() for line in table.read_text(encoding="utf-8").splitlines() if line.strip()]
    cell_types = ("mono", "poly")
    items = tuple(
        Item(
            name,
            {"defect": int(float(probability) >= DEFECTIVE_FROM), "cell_type": cell_types.index(cell_type)},
            partial(read_image, table.parent / name),
        )
        for name, probability, cell_type in rows
    )
    tasks = (Task("defect", ("intact", "defective")), Task("cell_type", cell_types))
    return Dataset("solar", tasks, items, "CC BY-NC-SA 4.0 (elpv-dataset)")


def _digits() -> Dataset:
    file = _package_file("sklearn", "scikit-learn", "datasets", "data", "digits.csv.gz")
    with gzip.open(file, "rt", encoding="ascii") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.int64)  # [N, 65]: 64 pixels of 0..16, then the digit
    pixels = np.rint(table[:, :64].reshape(-1, 8, 8) * (255 / DIGITS_TOP)).astype(np.uint8)
    items = tuple(
        Item(f"digit{index:04d}", {"digit": int(row[64])}, partial(Image.fromarray, pixels[index]))
        for index, row in enumerate(table)
    )
    task = Task("digit", tuple(map(str, range(10))))
    return Dataset("digits", (task,), items, "CC BY 4.0 (UCI Optical Recognition of Handwritten Digits)")


# ---------------------------------------------------------------- a folder


def _folder(folder: Path, *, check: bool) -> Dataset:
    has_train, has_test = (bool(_sub_folders(folder / part)) for part in ("train", "test"))
    base = folder / "train" if has_train else folder
    classes = [entry.name for entry in _sub_folders(base) if not (has_test and entry == folder / "test")]
    _check_classes(base, classes)
    items = _items(folder, base, classes)
    test = _items(folder, folder / "test", _test_classes(folder / "test", classes)) if has_test else None
    skipped: tuple[Skipped, ...] = ()
    if check:
        items, skipped = _readable(items)
        _check_counts(base, items, classes, skipped)
        if test is not None:
            test, more = _readable(test)
            skipped += more
    task = Task("class", tuple(classes))
    return Dataset(folder.resolve().name, (task,), items, "not stated (own images)", test, skipped)


def _sub_folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.glob("*") if entry.is_dir() and not entry.name.startswith("."))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def _items(root: Path, base: Path, classes: list[str]) -> tuple[Item, ...]:
    return tuple(
        Item(path.relative_to(root).as_posix(), {"class": label}, partial(read_image, path))
        for label, name in enumerate(classes)
        for path in _files(base / name)
    )


def _check_classes(base: Path, classes: list[str]) -> None:
    if not classes:
        raise DataError(
            f"{base} has no sub-folders; put the images of each class into a folder of its own, {base}/CLASS/, "
            f"or list them in {base}/{LABELS}"
        )
    if len(classes) == 1:
        raise DataError(f"{base} has a single class, {classes[0]!r}; put the images of at least two into a folder each")
    for name in classes:
        if not _files(base / name):
            raise DataError(f"the class folder {base / name} is empty; add images or remove it")


def _test_classes(test: Path, classes: list[str]) -> list[str]:
    unknown = sorted({entry.name for entry in _sub_folders(test)} - set(classes))
    if unknown:
        have = ", ".join(classes)
        raise DataError(f"{test} has {', '.join(unknown)}, which no training folder has; the classes are {have}")
    return classes


def _readable(items: tuple[Item, ...]) -> tuple[tuple[Item, ...], tuple[Skipped, ...]]:
    """Decode every file once, several at a time (Pillow releases the GIL)."""
    with ThreadPoolExecutor() as pool:
        reasons = list(pool.map(_reason, items))
    good = tuple(item for item, reason in zip(items, reasons, strict=True) if reason is None)
    bad = tuple(Skipped(item.name, reason) for item, reason in zip(items, reasons, strict=True) if reason is not None)
    return good, bad


def _reason(item: Item) -> str | None:
    try:
        item.load()
    except DataError as error:
        return str(error.__cause__ or error)
    return None


def _check_counts(base: Path, items: tuple[Item, ...], classes: list[str], skipped: tuple[Skipped, ...]) -> None:
    counts = np.bincount([item.labels["class"] for item in items], minlength=len(classes))
    for name, count in zip(classes, counts, strict=True):
        if count == 0:
            raise DataError(f"no file in the class folder {base / name} is a readable picture; {skipped[0].reason}")


# ---------------------------------------------------------------- a folder with labels.csv


def _listed(folder: Path, *, check: bool) -> Dataset:
    """Each line of the table with its classes, which are in the order of the alphabet."""
    tasks, rows = _table(folder / LABELS)
    items, skipped = (
        _readable(_listed_items(folder, tasks, rows)) if check else (_listed_items(folder, tasks, rows), ())
    )
    for task in tasks:
        seen = {item.labels[task.name] for item in items}
        if lost := [label for index, label in enumerate(task.labels) if index not in seen]:
            raise DataError(f"no picture of {task.name} {', '.join(lost)} in {folder} is readable; {skipped[0].reason}")
    return Dataset(folder.resolve().name, tasks, items, "not stated (own images)", skipped=skipped)


def _listed_items(folder: Path, tasks: Sequence[Task], rows: Mapping[str, Mapping[str, str]]) -> tuple[Item, ...]:
    return tuple(
        Item(file, {task.name: task.labels.index(row[task.name]) for task in tasks}, partial(read_image, folder / file))
        for file, row in sorted(rows.items())
    )


def _table(path: Path) -> tuple[tuple[Task, ...], dict[str, dict[str, str]]]:
    """The tasks, and the labels of each file by task; raises :class:`DataError` with the line that is wrong."""
    names, found = read_table(path)
    classes = {name: tuple(sorted({row[name] for row in found.values()})) for name in names}
    if single := [name for name, labels in classes.items() if len(labels) < 2]:
        raise DataError(f"{path} has fewer than two labels of {', '.join(single)}; there is nothing to tell apart")
    return tuple(Task(name, classes[name]) for name in names), found


def read_table(path: Path) -> tuple[list[str], dict[str, dict[str, str]]]:
    """The tasks' names, and each file's labels by task; raises :class:`DataError` with the line that is wrong."""
    names, rows = _rows(path)
    found: dict[str, dict[str, str]] = {}
    for line, row in rows:
        file = Path(row["file"] or "")
        outside = not file.parts or file.is_absolute() or ".." in file.parts
        if outside or file.as_posix() in found or EXTRA in row or not all(row[name] for name in names):
            raise DataError(
                f"line {line} of {path} has to name a file of the folder that no other line names, and a label for "
                f"each of {', '.join(names)}"
            )
        found[file.as_posix()] = {name: row[name] for name in names}
    return names, found


def _rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The names of the tasks, and each line's number with its fields by name."""
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, restkey=EXTRA, strict=True)
        try:
            rows = [(reader.line_num, row) for row in reader]
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{path} is no table: {error}") from error
    first, *names = reader.fieldnames or [""]
    if first != "file" or not names or len(set(names)) < len(names) or not all(map(TASK_NAME.fullmatch, names)):
        raise DataError(
            f"the first line of {path} is {','.join([first, *names])!r}; want file and then a name for each task, such "
            "as file,defect,cell_type (lower-case letters, digits and '_', at most 32, each once)"
        )
    return names, rows
