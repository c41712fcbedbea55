"""Charts are valid, complete and readable without colour."""

import re
from xml.etree import ElementTree as ET

import pytest

from headwater.simulations.charts import Cloud, Dot, duration, log_ticks, rate_accuracy, share_bars, time_bars


def parsed(figure: str) -> ET.Element:
    return ET.fromstring(figure)  # noqa: S314 - our own output


def texts(root: ET.Element) -> list[str]:
    return ["".join(element.itertext()) for element in root.iter("text")]


def drawn(root: ET.Element) -> ET.Element:
    svg = root.find("svg")
    assert svg is not None
    assert svg.get("role") == "img"
    assert svg.get("aria-label")
    return svg


def test_labels_of_points_do_not_lie_on_one_another() -> None:
    dots = tuple(Dot(30 + at, 0.85 + at / 1000, f"link {at}", error=0.01) for at in range(6))
    cloud = Cloud("codec <A>", tuple(Dot(100 * 2**at, 0.7 + at / 40) for at in range(6)), line=True)
    root = parsed(rate_accuracy([Cloud("ours", dots), cloud], 0.87, "unsplit", "what & why"))
    svg = drawn(root)
    labels = [element for element in svg.iter("text") if (element.text or "").startswith("link ")]
    assert len(labels) == 6
    boxes = [(float(e.get("x", "")), float(e.get("y", "")), 7 * len(e.text or "")) for e in labels]
    for at, (x, y, width) in enumerate(boxes):
        assert 0 <= x <= 920 - width
        for other_x, other_y, other_width in boxes[at + 1 :]:
            assert x + width <= other_x or other_x + other_width <= x or abs(y - other_y) >= 14
    assert "codec <A>" in "".join(root.itertext())


def test_points_lie_where_their_values_say() -> None:
    dots = (Dot(10, 0.5, title="low"), Dot(100, 0.7, title="mid"), Dot(1000, 0.9, title="high"))
    svg = drawn(parsed(rate_accuracy([Cloud("ours", dots)], 0.8, "level", "d")))
    spots = [(float(c.get("cx", "")), float(c.get("cy", ""))) for c in svg.iter("circle")]
    (x0, y0), (x1, y1), (x2, y2) = spots
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)  # decades are evenly spaced
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    assert y0 > y1 > y2


def test_a_bar_s_length_is_its_time() -> None:
    rows = [("slow", {"ours": 0.2, "JPEG": 2.0}), ("fast", {"ours": 0.002})]
    svg = drawn(parsed(time_bars(rows, ["ours", "JPEG"], "d")))
    widths = [float(rect.get("width", "")) for rect in svg.iter("rect")]
    assert widths[1] == pytest.approx(10 * widths[0], rel=0.01)
    assert widths[2] == 1.0  # too short to see: a hairline says that it is there
    assert {"200 ms", "2.0 s", "slow", "fast"} <= set(texts(svg))


def test_shares_fill_the_bar_and_the_total_stands_beside_it() -> None:
    rows = [("slow", {"a": 300.0, "b": 100.0}), ("fast", {"a": 1.0, "b": 1.0})]
    svg = drawn(parsed(share_bars(rows, ["a", "b"], "d")))
    widths = [float(rect.get("width", "")) for rect in svg.iter("rect")]
    assert widths[0] == pytest.approx(3 * widths[1], abs=0.05)
    assert widths[2] == widths[3]
    assert widths[0] + widths[1] == pytest.approx(widths[2] + widths[3], abs=0.05)
    assert {"75%", "25%", "50%", "400 ms", "2.0 ms"} <= set(texts(svg))


def test_durations_have_a_unit_and_two_digits() -> None:
    shown = [duration(value) for value in (0.00042, 0.002, 0.00996, 0.2144, 0.9996, 2.06, 31.4)]
    assert shown == ["0.42 ms", "2.0 ms", "10 ms", "214 ms", "1.0 s", "2.1 s", "31 s"]


@pytest.mark.parametrize("values", [[30, 900], [5], [0.002, 2.1], [100, 100]])
def test_ticks_enclose_the_values(values: list[float]) -> None:
    ticks = log_ticks(values)
    assert ticks[0] <= min(values)
    assert ticks[-1] >= max(values)
    assert len(ticks) >= 2


def test_colours_exist_in_both_themes() -> None:
    from headwater.simulations.charts import STYLE

    light, dark = STYLE.split("@media (prefers-color-scheme: dark)")
    for theme in (light, dark):
        assert {f"--k{at}" for at in range(8)} <= set(re.findall(r"--k\d", theme))


def test_settings_far_below_are_counted_and_ours_always_shown() -> None:
    ours = Cloud("ours", (Dot(30, 0.5, "bad"),))
    codec = Cloud("JPEG", (Dot(100, 0.3), Dot(200, 0.4), Dot(900, 0.85)), line=True)
    root = parsed(rate_accuracy([ours, codec], 0.87, "unsplit: 87%", "d"))
    assert len(list(drawn(root).iter("path"))) == 1  # one triangle of three
    assert len(list(drawn(root).iter("circle"))) == 1
    legend = ["".join(item.itertext()) for item in root.iter("li")]
    assert legend[-2:] == ["- - unsplit: 87%", "2 settings below 67% are in the table only"]
