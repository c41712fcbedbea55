"""A chart as a file of its own: valid SVG, every series named in its legend, nothing outside the picture."""

from xml.etree import ElementTree as ET

from headwater.server.charts import COLOURS, Chart

SVG = "{http://www.w3.org/2000/svg}"


def test_a_chart_stands_alone_as_a_file() -> None:
    chart = Chart("bytes", "accuracy", log_x=True, percent_y=True)
    for at in range(len(COLOURS)):
        chart.line(f"series <{at}> & more", [10, 100], [0.5, 0.6 + at / 100])
    root = ET.fromstring(chart.file("Title & all", "what it shows"))  # noqa: S314 - our own text
    assert root.tag == f"{SVG}svg"
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    texts = {text.text: text for text in root.iter(f"{SVG}text")}
    for at in range(len(COLOURS)):
        entry = texts[f"series <{at}> & more"]
        assert 0 < float(entry.attrib["x"]) < width
        assert 0 < float(entry.attrib["y"]) < height
    assert root.findtext(f"{SVG}title") == "Title & all"
    assert len(list(root.iter(f"{SVG}polyline"))) == len(COLOURS)


def test_the_last_label_of_an_axis_is_inside_the_picture() -> None:
    root = ET.fromstring(Chart("bytes", "accuracy", log_x=True).line("a", [1, 100_000], [0, 1]).file("a", "b"))  # noqa: S314
    (label,) = [text for text in root.iter(f"{SVG}text") if text.text == "100,000"]
    assert label.attrib["text-anchor"] == "middle"
    half = len("100,000") * 12 * 0.6 / 2  # at 12 pixels; a digit is little more than half as wide as it is high
    assert float(label.attrib["x"]) + half < 640
