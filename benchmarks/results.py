"""The results page, its picture and the README's table: ``python -m benchmarks.results [--check]``.

All figures come from what the benchmarks and the pipeline wrote: benchmarks/results/*.json, metrics/*.json and
plots/bounded.csv. docs/results.md, docs/sizes.svg and the lines between the markers of README.md are written anew;
nothing there is edited by hand. With --check nothing is written, and the exit status is 1 if anything would change.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from statistics import geometric_mean

from benchmarks.measure import gains
from benchmarks.report.dots import Line, Mark, dot_plot
from benchmarks.report.sections import DATASETS, RESULTS, ROOT, SECTIONS, gain_table, percent, read

BEGIN, END = "<!-- results: made by `python -m benchmarks.results` -->", "<!-- end of results -->"


def page() -> str:
    """Return docs/results.md."""
    head = (
        "# Results\n\nThis page, its picture and the README's table are made by `python -m benchmarks.results` from "
        "the files named below; none of it is edited by hand. Sizes are real bytes, decoded again. Errors are "
        "fractions of the range of what is compressed, unless stated otherwise.\n\n"
        "![Bits per value of vcinr and its rivals at three error bounds](sizes.svg)\n"
    )
    return "\n\n".join([head.rstrip(), *(section() for section in SECTIONS)]) + "\n"


# --- Picture and README ---------------------------------------------------------------------------------------------

MARKS = {
    "vcinr": Mark("#D55E00", 6),
    "vcinr, no model": Mark("#D55E00", 4.5, hollow=True),
    "SZ3": Mark("#0072B2"),
    "SPERR": Mark("#009E73"),
    "ZFP": Mark("#CC79A7"),
    "best other codec": Mark("#BBBBBB", 3),
}


def picture() -> str:
    """Return docs/sizes.svg: bits per value of every codec, a line a data set and bound."""
    rows = read(f"{RESULTS}/table.json")["rows"]
    cells = gains.cells(rows)
    ours = {(gain.dataset, gain.bound): gain.bits for gain in gains.gains(cells)}
    lines = []
    for dataset, title in DATASETS.items():
        for bound in (0.1, 0.01, 0.001):
            some = [cell for cell in cells if (cell.dataset, cell.bound) == (dataset, bound)]
            numbers = {"vcinr": geometric_mean(ours[dataset, bound])}
            numbers["vcinr, no model"] = geometric_mean([cell.alone for cell in some])
            common = set.intersection(*(set(cell.rivals) for cell in some))
            means = {name: geometric_mean([cell.rivals[name] for cell in some]) for name in common}
            numbers |= {name: mean for name, mean in means.items() if name in MARKS}
            others = [mean for name, mean in means.items() if name not in MARKS]
            if others:
                numbers["best other codec"] = min(others)
            lines.append(Line(title, f"error ≤ {percent(bound)}", numbers))
    return dot_plot(
        "Size at the same maximum error: less is better",
        "bits per value (float32: 32), geometric mean of the variables, logarithmic",
        lines,
        MARKS,
        (0.001, 0.01, 0.1, 1, 10, 32),
    )


def readme(text: str) -> str:
    """Return the README with the table between its markers made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    rows = read(f"{RESULTS}/table.json")["rows"]
    return f"{before}{BEGIN}\n\n{gain_table(rows)}\n\n{END}{after}"


def made() -> dict[str, str]:
    """Return the text of every file that is made, by path."""
    readme_text = (ROOT / "README.md").read_text()
    return {"docs/results.md": page(), "docs/sizes.svg": picture(), "README.md": readme(readme_text)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files, or with --check say which are out of date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if a file is out of date")
    options = parser.parse_args(arguments)
    old = {name: (ROOT / name).read_text() if (ROOT / name).exists() else "" for name in made()}
    stale = {name: text for name, text in made().items() if text != old[name]}
    for name, text in stale.items():
        print(f"{name}: {'out of date; run `python -m benchmarks.results`' if options.check else 'written'}")
        if not options.check:
            (ROOT / name).write_text(text)
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
