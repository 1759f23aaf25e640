"""The sections of docs/results.md, each made from files of results.

A file states ``date``, ``machine`` and ``command`` (`benchmarks.measure.machine.record`), and may hold a ``note`` on
what has to be known about it.
"""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.experiments import KINDS, NAMES
from benchmarks.measure import gains, speeds
from benchmarks.measure.missing import BROKE, HELD
from benchmarks.report.kinds import lines_of
from benchmarks.report.tables import markdown

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = "benchmarks/results"
DATASETS = {
    "hadgem": "HadGEM temperature",
    "era5": "ERA5 1°, 5 variables",
    "navy": "navy winds, 2 components",
    "speedy": "SPEEDY T30, 7 variables",
}
BOUNDS = (0.1, 0.05, 0.01, 0.001, 0.0001)
"""Of the tables; all bounds are in the files."""

Results = Mapping[str, Any]


# --- Reading and writing figures ------------------------------------------------------------------------------------


def read(name: str) -> Results:
    """Return a file of results, by its path in the repository."""
    return json.loads((ROOT / name).read_text())


def number(value: Any) -> str:
    """Return a cell: numbers with three digits that count, text as it is, a dash for nothing."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")
    return f"{value:,}" if isinstance(value, int) else str(value)


def percent(share: float) -> str:
    """Return a share of the range as a bound is named in tables."""
    return f"{100 * share:g} %"


def typical(values: Sequence[float], worst: Callable[[Iterable[float]], float] = min) -> str:
    """Return the median, and the worst in brackets."""
    return f"{median(values):.2f} ({worst(values):.2f})"


def origin(results: Results, file: str, data: str) -> str:
    """Return where figures come from: data, machine, date, command, file and note."""
    machine = results["machine"]
    cores = "1 core" if machine["cores"] == 1 else f"{machine['cores']} cores"
    threads = f", OMP_NUM_THREADS={machine['threads']}" if machine.get("threads") else ""
    lines = [
        f"- Data: {data}",
        f"- Machine: {machine['cpu']}, {cores}{threads}. Date: {results['date'][:10]}.",
        f"- Command: `{results['command']}`. File: [{file}](../{file}).",
    ]
    if results.get("note"):
        lines.append(f"- Note: {results['note']}")
    return "\n".join(lines)


def bold(cells: Mapping[str, float | None], best: Callable[..., Any] = min) -> list[str]:
    """Return the cells of a line, the best of them bold."""
    top = best(value for value in cells.values() if value is not None)
    return [f"**{number(value)}**" if value == top else number(value) for value in cells.values()]


# --- Sections -------------------------------------------------------------------------------------------------------


def held_out() -> str:
    """Return the section on the pipeline's own run."""
    file = "metrics/evaluate.json"
    results = read(file)
    with open(ROOT / "plots/bounded.csv", newline="") as opened:
        rows = list(csv.DictReader(opened))
    parts = ["## Held-out maps", ""]
    for variable, facts in results["test"].items():
        by_bound = {float(bound): bits for bound, bits in facts["bits_per_value"].items()}
        names = list(next(iter(by_bound.values())))
        sizes = [[percent(bound), *bold({n: bits.get(n) for n in names})] for bound, bits in by_bound.items()]
        psnr = [[percent(bound), *(number(_psnr(rows, variable, n, bound)) for n in names)] for bound in by_bound]
        parts += [
            origin(
                results,
                file,
                f"`{variable}`, {facts['signals']} maps of the source's test split, which training did not see "
                "(HadGEM: trained on scenario E1, tested on A1B from map 140 on). Bounds are fractions of the "
                "training range.",
            ),
            "",
            f"Before quantisation the model reaches {facts['psnr_db_unquantised']:.2f} dB. It has "
            f"{results['model']['bytes']:,} bytes, which are not counted in this table; nor are the EOF basis'. "
            f"Counted on these maps alone, they would add {number(_model_cost(rows, variable))} bits per value.",
            "",
            "Bits per value, in real bytes, decoded again:",
            "",
            markdown(["maximum error", *names], sizes),
            "",
            "PSNR in dB at the same bounds (peak: the training range). SPERR's errors are smaller on average than its "
            "bound asks for:",
            "",
            markdown(["maximum error", *names], psnr),
        ]
    for archive in results["archives"]:
        for name, facts in archive["variables"].items():
            parts += [
                "",
                f"The archive `{archive['archive']}` holds {facts['values']:,} values of `{name}` in "
                f"{facts['bytes']:,} "
                f"bytes of chunks, {number(facts['bits_per_value'])} bits per value, or "
                f"{number(facts['bits_per_value_with_model'])} with the model. The largest error is "
                f"{facts['max_abs_error']:.4g} at a bound of {facts['bound']['value']:.4g}.",
            ]
    return "\n".join(parts)


def _model_cost(rows: Sequence[Mapping[str, str]], variable: str) -> float:
    """Return the bits per value of the model's bytes on the test split."""
    own = next(row for row in rows if row["variable"] == variable and row["codec"] == "vcinr")
    return float(own["bits_per_value_with_model"]) - float(own["bits_per_value"])


def _psnr(rows: Sequence[Mapping[str, str]], variable: str, codec: str, bound: float) -> float | None:
    """Return the PSNR of the smallest row of a codec."""
    own = [
        row
        for row in rows
        if row["variable"] == variable
        and (row["codec"] == codec or (codec == gains.LEARNED and row["codec"].startswith(codec)))
        and math.isclose(float(row["bound_fraction"]), bound, rel_tol=1e-6)
    ]
    smallest = min(own, key=lambda row: float(row["bits_per_value"]), default=None)
    return float(smallest["psnr_db"]) if smallest and smallest["psnr_db"] else None


def gain_table(rows: Sequence[Mapping[str, Any]], bounds: Sequence[float] = BOUNDS) -> str:
    """Return the table of gains: a line a bound, a column a data set."""
    at = {(gain.dataset, gain.bound): gain for gain in gains.gains(gains.cells(rows))}
    lines = []
    for bound in bounds:
        several = {dataset: gain for (dataset, b), gain in at.items() if b == bound}
        lines.append([percent(bound), *(_gain(several[d]) if d in several else "–" for d in DATASETS)])
    return markdown(["maximum error / range", *DATASETS.values()], lines)


def _gain(gain: gains.Gain) -> str:
    return f"{number(gain.mean)}" + (f" ({number(gain.least)})" if len(gain.bits) > 1 else "")


def every_data_set() -> str:
    """Return the section on all data sets and rivals."""
    file = f"{RESULTS}/table.json"
    results = read(file)
    rows = results["rows"]
    cells = gains.cells(rows)
    shipped = [gain for gain in gains.gains(cells) if gain.models]
    learned = [cell.ours / cell.learned for cell in cells if cell.dataset == "speedy" and cell.learned]
    behind = [
        f"- {c.dataset} {c.variable} at {percent(c.bound)}: {c.ours / bits:.3f} times the bits of {name}"
        for c, name, bits in gains.behind(cells)
    ]
    points = [
        [p["codec"], f"{p['psnr_db']:.1f}", number(p["bits_per_value"]), number(p["sperr"]), f"{p['ratio']:.2f}"]
        for p in gains.equal_psnr(rows)
    ]
    parts = [
        "## Every data set and rival",
        "",
        origin(
            results,
            file,
            "HadGEM, trained on scenario E1, tested on A1B from map 140 on; ERA5 at 1 degree, 2 m temperature, "
            "sea-level pressure, 10 m wind and precipitation, trained on the first 18 times, tested on the last 6; "
            "navy winds, first 108 months and last 24; SPEEDY T30, daily, two months of another run than the one "
            "trained on. See data/README.md.",
        ),
        "",
        "How many times fewer bits vcinr takes than the best rival: the smallest of SZ3, SPERR, ZFP, BitRound, "
        "quantisation + pcodec and + JPEG XL, each at the best of its settings, and EBCC (one setting, not on "
        "SPEEDY), of those that hold the bound. Geometric mean over the variables, the least in brackets:",
        "",
        gain_table(rows),
        "",
        "The same without any model:",
        "",
        gain_table([row for row in rows if not row.get("model")]),
        "",
        "A model's bytes are counted for SPEEDY alone, where they are shared out over one simulated year, and the "
        "choice of models with the best mean is taken. The models' sizes were chosen on these two months. Bits per "
        "value that the models cost:",
        "",
        markdown(
            ["maximum error / range", "models"],
            [[percent(g.bound), ", ".join(f"{n} {number(b)}" for n, b in g.models.items())] for g in shipped],
        ),
        "",
        "Where a rival takes more than 1 % fewer bits, no model's bytes counted:"
        if behind
        else "No rival takes more than 1 % fewer bits anywhere, not even an EOF basis (no model's bytes counted, "
        f"nor the basis'). On SPEEDY vcinr takes {min(learned):.2f} to {max(learned):.2f} times the bits of the basis.",
        *behind,
        "",
        "Without a bound, at equal PSNR, HadGEM in bits per value. The residual coder is made for a bound on every "
        "value, so this is not its strength:",
        "",
        markdown(["codec", "PSNR dB", "bits", "SPERR's bits", "ratio"], points),
    ]
    return "\n".join(parts)


def gaussian_bound() -> str:
    """Return the section on the Gaussian rate-distortion bound."""
    file = f"{RESULTS}/floor.json"
    results = read(file)
    lines = [[f"{row['psnr_db']:g}", number(row["bits_per_value"])] for row in results["rows"]]
    return "\n".join(
        [
            "## The Gaussian rate-distortion bound",
            "",
            origin(results, file, "HadGEM's test maps, with the variances of the test maps themselves."),
            "",
            markdown(["PSNR dB", "at least, bits per value"], lines),
        ]
    )


def speed() -> str:
    """Return the section on speed."""
    file = f"{RESULTS}/speed.json"
    results = read(file)
    every = list(speeds.ratios(results["rows"]))
    fast = [
        [percent(r.bound), "no" if "no model" in r.codec else "yes", str(r.variables), typical(r.encode),
         typical(r.decode), f"{median(r.size):.2f}", f"{median(r.best):.2f}"]
        for r in every if r.codec.startswith("vcinr fast")
    ]  # fmt: skip
    ranges = []
    for name in dict.fromkeys(row["codec"] for row in results["rows"]):
        own = [row for row in results["rows"] if row["codec"] == name]
        figures = ([row[f"{way}_mbs"] for row in own if f"{way}_mbs" in row] for way in ("encode", "decode", "cold"))
        ranges.append([name, *(" / ".join(map(number, (min(f), median(f), max(f)))) if f else "–" for f in figures)])
    return "\n".join(
        [
            "## Speed",
            "",
            origin(results, file, "15 variables of the four data sets, in memory; the fastest of 7 runs, caches warm."),
            "",
            "`--effort fast`: times as fast as SPERR and SZ3, median of the variables and the least in brackets; "
            "times the bytes of SZ3 and of the default effort, median:",
            "",
            markdown(
                ["maximum error / range", "model", "variables", "encoding / SPERR", "decoding / SZ3", "bytes / SZ3",
                 "bytes / default"],
                fast,
            ),
            "",
            "MB of raw values a second, over all bounds and variables: least / median / most. `best` is the default "
            "effort, for the fewest bytes. Cold is the first decoding after a model was loaded, which evaluates its "
            "network on the grid.",
            "",
            markdown(["codec", "encoding", "decoding", "cold decoding"], ranges),
        ]
    )  # fmt: skip


def missing_data() -> str:
    """Return the sections on missing cells and on their positions."""
    file = f"{RESULTS}/missing.json"
    results = read(file)
    groups: dict[tuple[str, str, str, float], list[Mapping[str, Any]]] = {}
    for row in results["rows"]:
        key = row["codec"], row["field"], row["case"], row["bound_fraction"]
        groups.setdefault(key, []).append(row)
    best = {key: min(rows, key=lambda r: (r["outcome"] != HELD, r["bytes"] or 0)) for key, rows in groups.items()}
    lines = []
    for codec in dict.fromkeys(key[0] for key in best):
        gaps = Counter(row["outcome"] for key, row in best.items() if key[0] == codec and key[2] != "complete")
        whole = Counter(row["outcome"] for key, row in best.items() if key[0] == codec and key[2] == "complete")
        crashed = sum(n for outcome, n in gaps.items() if outcome not in (HELD, BROKE))
        lines.append([codec, str(gaps[HELD]), str(gaps[BROKE]), str(crashed), f"{whole[HELD]} of {whole.total()}"])
    fewer = [best["SZ3", *key[1:]]["bytes"] / row["bytes"] for key, row in best.items()
             if key[0] == "vcinr" and key[2] != "complete"]  # fmt: skip
    positions_file = f"{RESULTS}/positions.json"
    positions = read(positions_file)
    facts = positions["summary"]
    return "\n".join(
        [
            "## Missing data",
            "",
            origin(
                results,
                file,
                "ocean fields (COADS, Levitus) with land as NaN, as 1e20, complete but for one infinity, and "
                "complete, at 1 % and 0.1 % of the range.",
            ),
            "",
            "Every codec gets the array as it is. Runs in which the bound and the positions of missing cells held, in "
            "which they did not, and in which the codec crashed:",
            "",
            markdown(["codec", "held", "bound broken", "crashed", "complete fields, held"], lines),
            "",
            f"Where cells are missing, vcinr without a model takes {min(fewer):.2f} to {max(fewer):.1f} times fewer "
            "bits "
            f"than SZ3 (median {median(fewer):.1f}).",
            "",
            "## Positions of missing cells",
            "",
            origin(
                positions, positions_file, "gridded files of public packages, pinned in benchmarks/data/packages.py."
            ),
            "",
            f"{facts['files_opened']} files of {facts['packages']} packages were opened. All {facts['variables']} "
            "variables with missing cells were compressed at 1 % of their range, as stored and as xarray decodes "
            "them, and read back with plain xarray. Outcomes: "
            + ", ".join(f"{outcome} {n}" for outcome, n in facts["outcomes"].items())
            + ". Held means that what is missing is where it was, bit for bit, and the bound holds elsewhere.",
        ]
    )


def scattered() -> str:
    """Return the section on meshes, curvilinear grids and stations."""
    file = f"{RESULTS}/unstructured.json"
    results = read(file)
    groups: dict[tuple[str, float], dict[str, Mapping[str, Any]]] = {}
    for row in results["rows"]:
        groups.setdefault((row["field"], row["bound_fraction"]), {})[row["codec"]] = row
    rivals = ("SZ3", "SPERR", "linear + pcodec")
    names, lines = ("vcinr", "vcinr without positions", *rivals), []
    for (field, bound), group in groups.items():
        bits = bold({name: group[name]["bits_per_value"] for name in names})
        values, mask = group["vcinr"]["values"], group["vcinr"]["mask_bytes"]
        masked = number(8 * mask / values) if mask else "–"
        lines.append([field, number(values), percent(bound), *bits, masked, number(group["vcinr"]["target"])])
    fewer = [
        min(group[name]["bits_per_value"] for name in rivals) / group["vcinr"]["bits_without_mask"]
        for group in groups.values()
    ]
    return "\n".join(
        [
            "## Meshes, curvilinear grids and stations, without a model",
            "",
            origin(
                results,
                file,
                "fields of CAM-SE, ICON, a geodesic grid, FESOM2, a finite-element model of the Chesapeake Bay, NEMO "
                "ORCA1 and of weather stations, from public packages.",
            ),
            "",
            "Bits per valid value. vcinr finds the latitudes and longitudes by CF and UGRID; they are stored without "
            "loss beside the variable and not counted. Rivals get the valid values alone, in the better of two orders; "
            "no mask is counted for them. kNN: a target, the entropy of the errors of planes through the eight nearest "
            "known points, no mask counted.",
            "",
            markdown(["field", "values", "bound", *names, "of vcinr, the mask", "kNN"], lines),
            "",
            f"The best rival takes {min(fewer):.2f} to {max(fewer):.1f} times vcinr's bits without the mask (median "
            f"{median(fewer):.1f}).",
        ]
    )


def graphs() -> str:
    """Return the section on signals on a graph."""
    file = f"{RESULTS}/graphs.json"
    results = read(file)
    rows = {(row["coordinates"], row["latents"]): row for row in results["rows"]}
    sizes = sorted({latents for _, latents in rows} - {0})
    names = list(dict.fromkeys(name for name, _ in rows))
    lines = [[str(latents), *(f"{rows[name, latents]['psnr_db']:.1f}" for name in names)] for latents in sizes]
    ways = list(dict.fromkeys(row["way"] for row in results["archives"]))
    at = {(row["bound_fraction"], row["way"]): row for row in results["archives"]}
    bits = [
        [percent(bound), *bold({way: at[bound, way]["bits_per_value"] for way in ways})]
        for bound in dict.fromkeys(bound for bound, _ in at)
    ]
    largest = {name: rows[name, sizes[-1]] for name in names if name.startswith("spectral")}
    cost = ", ".join(
        f"{name.rpartition(' ')[2]}: {row['node_bytes']:,} of {row['model_bytes']:,}" for name, row in largest.items()
    )
    one = next(row for row in results["archives"] if row["model_bytes"])
    values = 8 * one["bytes"] / one["bits_per_value"]
    signals = results["signals"]
    return "\n".join(
        [
            "## Graphs: a mesh without its coordinates",
            "",
            origin(
                results,
                file,
                f"FESOM2's temperature on a mesh of {results['nodes']:,} nodes and {results['edges']:,} edges, annual "
                "means of 1948 and 1949, the levels at which half of the nodes or more are wet: "
                f"{signals['train']} signals to learn from, {signals['valid']} that choose the parameters, and "
                f"{signals['test']} to test, every third level of both years, whose neighbours in depth are learned.",
            ),
            "",
            "Held-out PSNR in dB by the number of latents, before quantisation, over wet nodes; method basis, "
            f"{results['steps']} steps, one seed. Spectral: eigenvectors of the mesh's Laplacian, so many, and no "
            "positions. Unit sphere: the same network with the positions. Node number: the same with nothing but the "
            "order in the file. EOF: as many principal components of the training signals, which are values at every "
            f"node; the mean alone: {rows['EOF', 0]['psnr_db']:.1f} dB. Levels are much alike, which favours EOFs.",
            "",
            markdown(["latents", *names], lines),
            "",
            "The nodes' coordinates are in the model, in 8 bits a number. Their bytes of the model's, by "
            f"eigenvectors: {cost}.",
            "",
            "Bits per valid value of the test levels, with a model of 32 eigenvectors and 32 latents and without one. "
            f"The model's {one['model_bytes']:,} bytes are not counted: of these {values:,.0f} values alone they would "
            f"be {8 * one['model_bytes'] / values:.3g} bits each, so it pays only where many more fields share the "
            "mesh. Neither are edges and positions, by which the residual coder finds neighbours where they are in the "
            "file.",
            "",
            markdown(["bound", *ways], bits),
        ]
    )


def kinds() -> str:
    """Return the section on images, sound, volumes and video beside the codecs made for them."""
    files = {name: f"{RESULTS}/kinds/{name}.json" for name in _KIND_TITLES}
    found = {name: read(file) for name, file in files.items() if (ROOT / file).exists()}
    parts = [
        "## Images, speech, volumes and video beside their own codecs",
        "",
        "The test files of a kind become one archive, of which everything counts but the model. The rivals' files are "
        "counted one by one, as a whole, and for images and video also net of a flat grey one at the same setting; net "
        "of vcinr are its streams. Where a rival has fewer bits, a ratio is above 1. Speech and video are counted in "
        "packets without a container. PSNRs are means over signals, with a peak of 255 for images and video and of 1 "
        "for signals mapped to [0, 1]; rates between measured points are interpolated, and a dash stands where a "
        "codec's points do not reach. KLT floor: principal axes of blocks learned from the same training data, with "
        "ideal codes from learned tables. Rivals need no model; JPEG XL is tuned for the eye.",
    ]
    for name, kind in found.items():
        data = f"{kind['data']['train']}; tested on {kind['data']['test']}."
        parts += [
            "",
            f"### {_KIND_TITLES[name]}",
            "",
            origin(kind, f"{RESULTS}/kinds/{name}.json", f"trained on {data}"),
        ]
        for title, (head, *lines) in lines_of(kind, number):
            parts += ["", f"{title[:1].upper()}{title[1:]}:", "", markdown(head, lines)]
        for part in kind["sets"]:
            parts += ["", _paid(part, kind["plural"])]
            parts += [f"\n![{caption}](../{RESULTS}/kinds/{picture})" for picture, caption in part["pictures"]]
    return "\n".join(parts)


_KIND_TITLES = {
    "photo32": "Tiles of 32x32",
    "photo768": "Photographs of 768x512",
    "sentinel2": "Four bands of a Sentinel-2 scene",
    "speech": "Speech at 16 kHz",
    "volumes": "Scans of brains",
    "video": "Video: clips of 24 frames of 128x128",
}


def _paid(part: Mapping[str, Any], plural: str) -> str:
    """Return a sentence on what a model costs."""
    after = [
        f"at {row['psnr_db']:g} dB "
        + ("never" if row["count"] is None else f"after {number(float(row['count']))}")
        + f" ({row['rival']})"
        for row in part["paid"]
    ]
    return (
        f"The model of {part['title']} has {part['model']['bytes']:,} bytes. Beside the best rival's whole files it is "
        f"won back, counted in {plural}, {', '.join(after)}."
    )


def scenes() -> str:
    """Return the section on scenes."""
    file = f"{RESULTS}/scenes.json"
    results = read(file)
    data = results["data"]
    lines = [
        [row["name"] + (f", rate {row['rate']}" if "rate" in row else ""), number(row["bytes_per_scene"]),
         number(row["psnr_db"]), number(row["given_psnr_db"])]
        for row in results["rows"]
    ]  # fmt: skip
    return "\n".join(
        [
            "## Scenes",
            "",
            origin(
                results,
                file,
                f"furniture rendered by Embree at {data['size']}x{data['size']}; trained on {data['train_scenes']} "
                f"objects of {', '.join(data['train'])}; tested on {data['test_scenes']} of "
                f"{' and '.join(data['test'])}, none of which was looked at before. Of each object {data['given']} "
                f"views are given, and {data['unseen']} others judge.",
            ),
            "",
            "Bytes and PSNRs are means over scenes. The whole archive counts poses, names and metadata, too; all rows "
            "leave out the model, which is kept once in an archive: "
            f"{results['model_bytes']:,} bytes. A rate is a step of the quantiser. A video holds the given views "
            "alone; at an unseen pose the nearest of them stands for it. Silhouettes, and the field that is not "
            "quantised, are not coded.",
            "",
            markdown(["what", "bytes a scene", "dB, unseen poses", "dB, given poses"], lines),
            "",
            f"![Objects at a pose that was not given: rendered from the mesh, from the archive, and twice the "
            f"difference](../{RESULTS}/scenes/views.png)",
        ]
    )


def occupancy() -> str:
    """Return the section on solid shapes."""
    file = f"{RESULTS}/occupancy.json"
    results = read(file)
    data, some, fine = results["data"], results["lossy"], results["fine"]
    which = "All shapes" if some["every"] == 1 else f"{some['shapes']} of the shapes, one of every {some['every']}"
    exact = ["codec", "setting", "bytes a shape", "bits per voxel", "exact"]
    lossy = ["codec", "setting", "bytes a shape", "of these, the chunk", "mean IoU", "lowest IoU", "equal voxels"]
    return "\n".join(
        [
            "## Solid shapes",
            "",
            origin(
                results,
                file,
                f"{data['shapes']} pieces of furniture of the libraries {' and '.join(data['libraries'])} as "
                f"{data['resolution']}^3 voxels, {percent(round(data['occupied'], 3))} of them solid. No model.",
            ),
            "",
            "Rivals code bytes or packed bits, whichever takes less. Of an archive the whole file counts:",
            "",
            markdown(exact, _solid_rows(results["rows"])),
            "",
            f"{which}, with loss, in one chunk. A limit on bytes is for the chunk. Majorities of blocks are floors: "
            "one stream of vcinr's coder of bits, without an archive.",
            "",
            markdown(lossy, _simpler_rows(some["rows"])),
            "",
            "![Four shapes: as they are, and in at most 90 and 20 bytes](../benchmarks/results/kinds/shapes.png)",
            "",
            f"The first {fine['shapes']} shapes of {data['libraries'][0]} as {fine['resolution']}^3 voxels:",
            "",
            markdown(exact, _solid_rows(fine["rows"])),
            "",
            markdown(lossy, _simpler_rows(fine["lossy"])),
        ]
    )


def _solid_rows(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    return [
        [row["codec"], row["setting"], number(row["bytes_per_shape"]), number(row["bits_per_voxel"]),
         "yes" if row["exact"] else "no"]
        for row in rows
    ]  # fmt: skip


def _simpler_rows(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    return [
        [row["codec"], row["setting"], number(row.get("bytes_per_shape")), number(row["chunk_bytes_per_shape"]),
         f"{row['iou']:.3f}", f"{row['lowest_iou']:.3f}", f"{100 * row['accuracy']:.2f} %"]
        for row in rows
    ]  # fmt: skip


def determinism() -> str:
    """Return the section on differences between processors."""
    file = f"{RESULTS}/determinism.json"
    results = read(file)
    network = results.get("network", results)
    parts = ["## The same values on other processors", ""]
    parts.append(
        origin(results, file, "those named below; the latents of the network are random, at twice their usual scale.")
    )
    for kind, title in (("golden", "golden archives"), ("made", "archives of every kind of bound, at both efforts")):
        if kind in results:
            facts = results[kind]
            wrong = {setting: arrays for setting, arrays in facts["differ"].items() if arrays}
            parts += [
                "",
                f"{len(facts['archives'])} {title}, {facts['arrays']} arrays, {len(facts['differ'])} settings of "
                "processor and libraries: "
                + (f"differences in {', '.join(wrong)}." if wrong else "no difference beyond a slack."),
            ]
    if "differences" in network:
        lines = [[name, f"{value:.2g}", percent(round(value / network["slack"], 3))]
                 for name, value in network["differences"].items()]  # fmt: skip
        parts += [
            "",
            f"The network of model `{network['model'][:12]}`, whose slack is {network['slack']:.3g} of the scale:",
            "",
            markdown(["setting", "largest difference / scale", "of the slack"], lines),
        ]
    if (ROOT / f"{RESULTS}/arm64.json").exists():
        parts += ["", *emulated()]
    return "\n".join(parts)


def emulated() -> list[str]:
    """Return the part on emulated ARM processors."""
    file = f"{RESULTS}/arm64.json"
    results = read(file)
    lines = [
        [name, facts["ran"], str(facts["arrays"]), str(len(facts["differ"]))]
        for name, facts in results["processors"].items()
    ]
    return [
        origin(results, file, "the golden archives, read by the reference decoder on emulated ARM processors."),
        "",
        markdown(["processor", "machine, Python, NumPy", "arrays", "arrays that differ"], lines),
    ]


def coinpp() -> str:
    """Return the section on COIN++'s protocol."""
    file = f"{RESULTS}/coinpp.json"
    results = read(file)
    lines = [
        [r["codec"], str(r["latents"]), "unquantised" if r["bits_per_pixel"] is None else f"{r['bits_per_pixel']:.4f}",
         f"{r['psnr_db']:.1f}"]
        for r in results["rows"]
    ]  # fmt: skip
    return "\n".join(
        [
            "## COIN++'s protocol",
            "",
            origin(
                results,
                file,
                "ERA5 2 m temperature at 46 x 90: 24 maps of one week, 18 for training and 6 for testing.",
            ),
            "",
            "Six days of weather are not the monthly means that COIN++ was published on (46.0 dB at 0.0103 bits per "
            "pixel).",
            "",
            markdown(["codec", "latents", "bits per pixel", "PSNR dB"], lines),
        ]
    )


def training() -> str:
    """Return the section on how long training takes."""
    file = f"{RESULTS}/training.json"
    results = read(file)
    lines = []
    for field in results["fields"]:
        for run in field["runs"]:
            reached, whole = run["reached"], run["whole"]
            lines.append([
                field["field"], "until nothing is gained" if run["minutes"] is None else f"{run['minutes']:g} minutes",
                str(run["steps"]), f"{run['best_psnr_db']:.2f}",
                "not" if reached is None else f"{reached['seconds']:.0f} s, step {reached['step']}",
                f"{whole['seconds']:.0f} s, {whole['cpu_seconds']:.0f} s of CPU",
            ])  # fmt: skip
    shown = results["fields"][0]
    times, levels, points = shown["shape"]
    return "\n".join(
        [
            "## Training time",
            "",
            origin(
                results,
                file,
                f"{times} maps of {levels} x {points}, {percent(round(shown['missing'], 2))} of them missing, made of "
                "observed means, seasons and patterns (benchmarks/training_curve.py says how).",
            ),
            "",
            f"The mean map has {shown['mean_map_psnr_db']:.2f} dB on held-out maps. The curve itself is in the file.",
            "",
            markdown(["field", "budget", "steps", "held-out PSNR dB", "95 % of the gain after", "whole call"], lines),
        ]
    )


def experiments() -> str:
    """Return the sections on the experiments of the source papers."""
    parts = ["## Experiments of the papers"]
    of_tiles = (f"{kind}-{name}" for name in NAMES for kind in KINDS)  # those that have been run
    for name in (*NAMES, *(n for n in of_tiles if (ROOT / f"{RESULTS}/experiments/{n}.json").exists())):
        file = f"{RESULTS}/experiments/{name}.json"
        results = read(file)
        head = list(results["summary"][0])
        lines = [[number(row.get(key)) for key in head] for row in results["summary"]]
        parts += [
            "",
            f"### {results['title']}",
            "",
            origin(results, file, results["how"]),
            "",
            markdown(head, lines),
            "",
            f"![{results['caption']}](../{RESULTS}/experiments/{name}.png)",
        ]
    presets = read(f"{RESULTS}/presets.json")
    lines = [
        [row["method"], f"{row['steps']:,}", str(row["latents"]), f"{row['psnr_db']:.1f}"] for row in presets["rows"]
    ]
    parts += [
        "",
        "### Methods by gradient at their presets' length",
        "",
        origin(presets, f"{RESULTS}/presets.json", "HadGEM's test split, before quantisation."),
        "",
        markdown(["method", "steps", "latents", "held-out PSNR dB"], lines),
    ]
    return "\n".join(parts)


def faults() -> str:
    """Return the section on kills and damaged bytes."""
    file = f"{RESULTS}/faults.json"
    results = read(file)
    return "\n".join(
        [
            "## Faults",
            "",
            origin(results, file, "bulk compression of small arrays; chunks, models and files of archives."),
            "",
            f"{results['kills']} kills of bulk compression at random moments: {results['rounds']} times all archives "
            "were finished by later runs and verified, and no finished chunk was done twice. "
            f"{results['mutations']:,} mutated inputs in {results['seconds']} seconds: no crash, "
            f"{results['accepted']:,} of them decoded, all others refused with an error that says why.",
        ]
    )


def scale() -> str:
    """Return the section on bulk compression."""
    file = f"{RESULTS}/scale.json"
    results = read(file)
    fast = results["scaling"]
    runs = [
        [f"`--effort {r['effort']}`", f"{r['bytes_in'] / 1e9:.2f}", str(r["workers"]), number(r["mbs"]),
         number(r["bytes_in"] / r["bytes_out"]), *_checks(results, r["effort"]), *_memory(r)]
        for r in results["runs"]
    ]  # fmt: skip
    engine = [
        [f"vcinr, `fast`, {r['workers']} worker{'s' if r['workers'] > 1 else ''}", f"{r['bytes_in'] / 1e9:.2f}",
         number(r["mbs"]), number(r["bytes_in"] / r["bytes_out"]), *_memory(r)]
        for r in fast
    ]  # fmt: skip
    engine += [
        [
            r["rival"],
            f"{r['bytes_in'] / 1e9:.2f}",
            number(r["mbs"]),
            number(r["bytes_in"] / r["bytes_out"]),
            *_memory(r),
        ]
        for r in results["rivals"]
    ]
    one, plan = fast[0], results["plan"]
    speedup = (
        f"In the run of this table {fast[-1]['workers']} workers with `--effort fast` are "
        f"{one['seconds'] / fast[-1]['seconds']:.2f} times as fast as one. "
        if len(fast) > 1
        else ""
    )
    return "\n".join(
        [
            "## Bulk compression",
            "",
            origin(
                results, file,
                f"{results['data']}; every variable within {percent(results['rel_error'])} of its range. MB of input a "
                "second by the clock, with start, plan and commit.",
            ),
            "",
            "All archives were verified against their originals, and written back as netCDF. Memory is the most that a "
            "worker took, and by how much it rose from the second quarter of the run to the last:",
            "",
            markdown(
                ["effort", "GB", "workers", "MB/s", "times smaller", "verify, MB/s", "decompress, MB/s", "peak, MiB",
                 "rise, MiB"],
                runs,
            ),
            "",
            f"![Resident memory of each worker over time](../{RESULTS}/scale.png)",
            "",
            _gains(),
            "",
            f"{speedup}Of one worker's time {100 * one['orchestration']:.1f} % was spent outside of batches, after "
            f"{one['start_seconds']:.1f} s for the plan and the worker's start. A plan of {plan['files']:,} files took "
            f"{plan['seconds']:.1f} s. [What 100 TB would cost](scale.md) follows from these figures.",
            "",
            "The same chunks by other codecs on the same engine, each decoded and checked as well:",
            "",
            markdown(["codec", "GB", "MB/s", "times smaller", "peak, MiB", "rise, MiB"], engine),
        ]
    )  # fmt: skip


def _gains() -> str:
    """What all cores gain, of bulk compression and of the machine itself."""
    file = f"{RESULTS}/scaling.json"
    results = read(file)
    gains, rounds = results["gains"], len(results["seconds"]["fast"]["1"])
    return (
        f"One worker against {results['workers']}, measured in turns, {rounds} rounds ({results['date'][:10]}, "
        f"`{results['command']}`, [{file}](../{file})): {gains['fast']:.2f} times as fast with `--effort fast`, "
        f"{gains['best']:.2f} times with the default effort. The machine itself gains {gains['arithmetic']:.2f} times "
        f"at arithmetic and {gains['copying']:.2f} times at copying memory."
    )


def _checks(results: Results, effort: str) -> list[str]:
    """MB a second of verifying and of writing back."""
    found = {check["what"]: check["mbs"] for check in results["checks"] if check["effort"] == effort}
    return [number(found[what]) for what in ("verify", "decompress")]


def _memory(run: Mapping[str, Any]) -> list[str]:
    """Of the workers, the largest peak of memory, and the largest rise over a run."""
    rises = [line["rise_mib"] for line in run["memory"] if line["rise_mib"] is not None]
    peaks = [line["peak_mib"] for line in run["memory"]]
    return [f"{max(peaks):.0f}" if peaks else "–", f"{max(rises):.0f}" if rises else "–"]


SECTIONS = (
    every_data_set, held_out, gaussian_bound, speed, scale, kinds, scenes, occupancy, scattered, graphs, missing_data,
    determinism, training, coinpp, experiments, faults,
)  # fmt: skip
