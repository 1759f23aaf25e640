"""The results page: made from the committed files alone, and up to date."""

import json
import subprocess
from xml.etree import ElementTree

import pytest

from benchmarks import results
from benchmarks.report.dots import Line, Mark, dot_plot
from benchmarks.report.sections import number

FILES = [
    *sorted((results.ROOT / results.RESULTS).rglob("*.json")),
    results.ROOT / "metrics/evaluate.json",
]


def measured_again() -> bool:
    """Whether results differ from the committed ones, as after `make repro`."""
    command = ["git", "diff", "--quiet", "HEAD", "--", "metrics", "plots", "benchmarks/results"]
    return subprocess.run(command, cwd=results.ROOT, capture_output=True, check=False).returncode == 1


def test_the_page_the_picture_and_the_readme_are_what_the_command_makes(capsys):
    if measured_again():
        pytest.skip("results were measured again since the last commit: `make results` takes them over")
    assert results.main(["--check"]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_of_results_states_its_run(path):
    found = json.loads(path.read_text())
    assert found["date"][:2] == "20" and found["machine"]["cpu"] and found["machine"]["cores"]
    assert found["command"].split()[0] in ("python", "dvc", "make")


def test_a_file_that_is_out_of_date_is_named(monkeypatch, capsys):
    monkeypatch.setattr(results, "made", lambda: {"docs/results.md": "other figures"})
    before = (results.ROOT / "docs/results.md").read_text()
    assert results.main(["--check"]) == 1
    assert "docs/results.md: out of date" in capsys.readouterr().out
    assert (results.ROOT / "docs/results.md").read_text() == before


def test_the_readme_keeps_all_but_the_table():
    text = f"before\n{results.BEGIN}\nold\n{results.END}\nafter\n"
    new = results.readme(text)
    assert new.startswith("before\n") and new.endswith("\nafter\n") and "old" not in new and "| 10 % |" in new
    assert results.readme(new) == new


def test_numbers_have_three_digits_that_count():
    assert [number(v) for v in (0.0012355, 1.3, 49.53, 2063.2, 12, None, "a")] == [
        "0.00124", "1.30", "49.5", "2063", "12", "–", "a"
    ]  # fmt: skip


def test_a_dot_lies_where_its_number_does():
    marks = {"a": Mark("#000000"), "b": Mark("#ffffff", hollow=True)}
    lines = [Line("group <1>", "one", {"a": 0.1, "b": 10.0}), Line("group <1>", "two", {"a": 1.0})]
    svg = dot_plot("title & more", "bits", lines, marks, (0.1, 1, 10))
    tree = ElementTree.fromstring(svg)
    name = "{http://www.w3.org/2000/svg}circle"
    x = [float(c.get("cx", "")) for c in tree.iter(name)][len(marks) :]
    assert x == [796.0, 210.0, 503.0]  # the right end, the left end, the middle
    assert "group &lt;1&gt;" in svg and "title &amp; more" in svg
