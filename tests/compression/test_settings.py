"""Settings: which layer wins, what each kind takes, and what every mistake is answered with."""

import doctest
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from headwater.compression import settings
from headwater.compression.errors import SettingsError
from headwater.compression.settings import Origin, Resolved, between, descriptions, find_file, resolve


@dataclass(frozen=True)
class Camera:
    """A section with a key of every kind."""

    section: ClassVar[str] = "camera"

    rate: float = 2.0
    """Frames a second."""
    count: int = 3
    grey: bool = False
    name: str = "north"
    folder: Path = Path("frames")
    order: Literal["random", "sorted"] = "sorted"
    widths: tuple[float, ...] = (0.5, 1.0)
    places: tuple[Path, ...] = ()
    limit: int | None = None
    until: float | None = field(default=9.5)
    """When it stops,
    in hours."""

    def __post_init__(self) -> None:
        between("rate", self.rate, 0.1, 100)


@dataclass(frozen=True)
class Needy:
    section: ClassVar[str] = "needy"

    server: str


@pytest.fixture(autouse=True)
def _sections(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    points = EntryPoints(EntryPoint(name, f"nowhere:{name}", settings.ENTRY_POINTS) for name in ("camera", "engine"))
    monkeypatch.setattr(settings, "entry_points", lambda group: points.select(group=group))
    monkeypatch.chdir(tmp_path)


def toml(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def camera(*, file: str | None = None, **environment: str) -> Resolved[Camera]:
    variables = {f"HEADWATER_CAMERA_{key.upper()}": value for key, value in environment.items()}
    path = toml(Path("given.toml"), f"[camera]\n{file}") if file is not None else None
    return resolve(Camera, environment={"HOME": "/nowhere", **variables}, file=path)


def test_the_module_s_examples_hold() -> None:
    assert doctest.testmod(settings).failed == 0


def test_defaults_alone() -> None:
    resolved = camera()
    assert resolved.value == Camera()
    assert set(resolved.origin.values()) == {Origin("default")}
    assert list(resolved.origin) == [name for name in Camera.__dataclass_fields__ if name != "section"]


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    path = toml(tmp_path / "c.toml", "[camera]\ncount = 10\nrate = 10\nname = 'file'\n")
    environment = {"HEADWATER_CAMERA_COUNT": "20", "HEADWATER_CAMERA_RATE": "20"}
    resolved = resolve(Camera, {"count": 30, "rate": None}, environment=environment, file=path)
    assert (resolved.value.count, resolved.value.rate, resolved.value.name) == (30, 20.0, "file")
    assert {key: str(resolved.origin[key]) for key in ("count", "rate", "name", "grey")} == {
        "count": "flag --count",
        "rate": "environment HEADWATER_CAMERA_RATE",
        "name": f"file {path}",
        "grey": "default",
    }


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("rate", "4", 4.0),
        ("rate", "1e1", 10.0),
        ("count", "-7", -7),
        ("grey", "on", True),
        ("grey", "FALSE", False),
        ("name", "", ""),
        ("name", "7", "7"),
        ("folder", "/data", Path("/data")),
        ("order", "random", "random"),
        ("widths", "0.25, 1", (0.25, 1.0)),
        ("widths", "", ()),
        ("places", "a,b", (Path("a"), Path("b"))),
        ("limit", "5", 5),
        ("until", "", None),
    ],
)
def test_a_variable_s_text_becomes_its_kind(key: str, text: str, value: object) -> None:
    got = getattr(camera(**{key: text}).value, key)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("rate = 4", "rate", 4.0),
        ("grey = true", "grey", True),
        ("widths = [1, 0.5]", "widths", (1.0, 0.5)),
        ("limit = ''", "limit", None),
        ("folder = '/data'", "folder", Path("/data")),
    ],
)
def test_a_file_s_value_becomes_its_kind(line: str, key: str, value: object) -> None:
    assert getattr(camera(file=line).value, key) == value


def test_relative_paths_in_a_file_start_from_its_folder(tmp_path: Path) -> None:
    path = toml(tmp_path / "etc" / "c.toml", "[camera]\nfolder = 'pictures'\nplaces = ['a', '/b']\n")
    value = resolve(Camera, environment={}, file=path).value
    assert value.folder == tmp_path / "etc" / "pictures"
    assert value.places == (tmp_path / "etc" / "a", Path("/b"))


def test_a_path_may_start_at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert camera(file="folder = '~/pictures'").value.folder == tmp_path / "pictures"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("count = '3'", r"given.toml: \[camera\] count is '3'; it must be an integer"),
        ("count = true", "count is True; it must be an integer"),
        ("count = 3.0", "count is 3.0; it must be an integer"),
        ("rate = 'fast'", "rate is 'fast'; it must be a number"),
        (f"rate = 1{'0' * 400}", "rate is 10+; it must be a number"),
        ("grey = 1", "grey is 1; it must be true or false"),
        ("name = 5", "name is 5; it must be a text"),
        ("folder = 5", "folder is 5; it must be a path"),
        ("order = 'last'", "order is 'last'; it must be one of random, sorted"),
        ("widths = 1.0", "widths is 1.0; it must be a list, each item a number"),
        ("widths = ['a']", "widths is 'a'; it must be a number"),
        ("limit = 'no'", "limit is 'no'; it must be an integer"),
        ("cuont = 3", r"unknown key cuont in \[camera\]; did you mean count\?"),
        ("zzz = 3", r"unknown key zzz in \[camera\]; known are count, folder, .*"),
        ("[camra]\nrate = 1", r"unknown section \[camra\]; did you mean camera\?"),
        ("[engine]\nanything = 1\n[camera.deep]", r"unknown key deep in \[camera\]"),
        ("count = ", "given.toml cannot be read as TOML"),
        ("rate = 0.01", "rate is 0.01; it must be from 0.1 to 100. .*rate from file given.toml"),
    ],
)
def test_a_mistake_in_the_file_is_named(line: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        camera(file=line)


def test_a_value_where_a_section_belongs_is_named(tmp_path: Path) -> None:
    path = toml(tmp_path / "c.toml", "camera = 3\n")
    with pytest.raises(SettingsError, match=r"write \[camera\] and its keys below"):
        resolve(Camera, environment={}, file=path)


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("HEADWATER_CAMERA_COUNT", "three", "HEADWATER_CAMERA_COUNT is 'three'; it must be an integer"),
        ("HEADWATER_CAMERA_GREY", "maybe", "GREY is 'maybe'; it must be true or false"),
        ("HEADWATER_CAMERA_WIDTHS", "1,x", "WIDTHS is 'x'; it must be a number"),
        ("HEADWATER_CAMERA_CONUT", "1", r"HEADWATER_CAMERA_CONUT; did you mean HEADWATER_CAMERA_COUNT\?"),
        ("HEADWATER_CAMRA_COUNT", "1", r"HEADWATER_CAMRA_COUNT; did you mean HEADWATER_CAMERA_COUNT\?"),
        ("HEADWATER_CONFG", "x", r"HEADWATER_CONFG; did you mean HEADWATER_CONFIG\?"),
        ("HEADWATER_CAMERA_FOLDER", "~nobody-here/x", "FOLDER is '~nobody-here/x', and there is no such home folder"),
        ("HEADWATER_CAMERA_RATE", "nan", "HEADWATER_CAMERA_RATE is nan; it must be a number"),
        ("HEADWATER_CAMERA_RATE", "inf", "HEADWATER_CAMERA_RATE is inf; it must be a number"),
        ("HEADWATER_CAMERA_RATE", "9" * 400, "HEADWATER_CAMERA_RATE is inf; it must be a number"),
    ],
)
def test_a_mistake_in_the_environment_is_named(variable: str, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        resolve(Camera, environment={variable: text})


def test_other_sections_variables_are_their_own_business() -> None:
    assert (
        resolve(Camera, environment={"HEADWATER_ENGINE_X": "1", "HEADWATER_DEBUG": "1", "PATH": "x"}).value == Camera()
    )


def test_a_flag_of_the_wrong_type_is_named() -> None:
    with pytest.raises(SettingsError, match="--count is 'x'; it must be an integer"):
        resolve(Camera, {"count": "x"}, environment={})


def test_a_key_without_default_must_come_from_somewhere() -> None:
    with pytest.raises(SettingsError, match=r"nothing sets --server \(HEADWATER_NEEDY_SERVER\)"):
        resolve(Needy, environment={})
    assert resolve(Needy, {"server": "edge:1"}, environment={}).value.server == "edge:1"


def test_one_file_is_read_the_first_that_there_is(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path / "home")}
    assert find_file(environment) is None
    assert find_file({}) is None
    user = toml(tmp_path / "home" / ".config" / "headwater" / "config.toml", "")
    assert find_file(environment) == user
    assert find_file({**environment, "XDG_CONFIG_HOME": str(tmp_path / "home" / ".config")}) == user
    assert find_file({**environment, "XDG_CONFIG_HOME": "/nowhere"}) is None
    toml(tmp_path / "headwater.toml", "")
    assert find_file(environment) == Path("headwater.toml")
    named = toml(tmp_path / "named.toml", "")
    assert find_file({**environment, "HEADWATER_CONFIG": str(named)}) == named
    flagged = toml(tmp_path / "flagged.toml", "")
    assert find_file({"HEADWATER_CONFIG": str(named)}, flagged) == flagged


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none.toml is not a file, but --config names it"):
        find_file({}, tmp_path / "none.toml")
    with pytest.raises(SettingsError, match=r"none.toml is not a file, but HEADWATER_CONFIG names it"):
        find_file({"HEADWATER_CONFIG": str(tmp_path / "none.toml")})


def test_a_file_that_is_no_text_is_a_settings_error(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="cannot be read as TOML"):
        resolve(Camera, environment={}, file=path)


def test_the_process_environment_is_the_default_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_CAMERA_COUNT", "77")
    assert resolve(Camera).value.count == 77


def test_descriptions_are_the_docstrings_of_the_keys() -> None:
    assert descriptions(Camera) == {"rate": "Frames a second.", "until": "When it stops,\nin hours."}
