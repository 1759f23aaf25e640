"""The shape of the house: imports go downward only, and reading an archive stays light."""

import ast
from pathlib import Path

import vcinr

# From top to bottom; a room may import rooms below it and its own members.
ROOMS = [
    "cli", "training", "report", "archive", "codec", "quantise", "meta", "coding", "inr", "datasets", "signals",
    "progress", "config", "plugins", "places", "errors",
]  # fmt: skip
ROOT = Path(vcinr.__file__).parent


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "vcinr" and len(parts) > 1 and parts[1] in ROOMS else None


def test_imports_go_downward_only():
    wrong = []
    for path in ROOT.rglob("*.py"):
        own = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        assert own in ROOMS, f"{path} is in no known room"
        for name in imported(path):
            other = room(name)
            if other is not None and ROOMS.index(other) < ROOMS.index(own):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert wrong == []


def test_the_package_knows_nothing_of_its_orchestration():
    for path in ROOT.rglob("*.py"):
        roots = {name.split(".")[0] for name in imported(path)}
        assert not roots & {"prefect", "dvc", "flows", "benchmarks"}, path


def test_flows_do_no_maths():
    for path in (ROOT.parent / "flows").glob("*.py"):
        assert not {name.split(".")[0] for name in imported(path)} & {"numpy", "torch", "scipy"}, path


READERS = ["contents", "manifest", "metadata", "models", "netcdf", "read", "sharding", "store", "verify", "zarr_codec"]


def test_nothing_that_reads_an_archive_imports_what_writes_one():
    for name in READERS:
        path = ROOT / "archive" / f"{name}.py"
        writers = {f"vcinr.archive.{m}" for m in ("plan", "work", "write", "spool", "bulk")}
        assert not imported(path) & writers, path


def test_the_files_of_the_archive_import_one_another_in_no_circle():
    folder = ROOT / "archive"
    names = {p.stem for p in folder.glob("*.py")} - {"__init__"}
    uses = {n: {m for m in names if f"vcinr.archive.{m}" in imported(folder / f"{n}.py")} for n in names}
    while free := {n for n, others in uses.items() if not others}:  # each round takes away what imports nothing
        uses = {n: others - free for n, others in uses.items() if n not in free}
    assert uses == {}, "these import one another"
