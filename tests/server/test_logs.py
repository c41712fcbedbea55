from __future__ import annotations

import json
import logging

import pytest

from headwater.server.logs import JsonFormatter, TextFormatter


def record(message: str, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("headwater.server", logging.WARNING, __file__, 1, message, ("x",), None)
    made.__dict__.update(extra)
    return made


def test_json_is_one_object_a_line_with_the_extras() -> None:
    line = JsonFormatter().format(record("two\nlines %s", bundles="tiny", path=object))
    assert "\n" not in line
    read = json.loads(line)
    assert (read["level"], read["message"], read["bundles"]) == ("warning", "two\nlines x", "tiny")


def test_json_has_the_traceback() -> None:
    made = record("broke %s")
    with pytest.raises(ValueError, match="why") as caught:
        int("why")
    made.exc_info = (caught.type, caught.value, caught.tb)
    assert "ValueError: invalid literal" in json.loads(JsonFormatter().format(made))["exception"]


def test_text_has_the_extras_behind_the_message() -> None:
    assert TextFormatter().format(record("hello %s", bundles="tiny")).endswith("WARNING hello x bundles=tiny")
