"""The shape of the house: imports go downward only, in no circles, and reading an archive stays light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import vcinr

ROOMS = [
    ["__main__"],
    ["cli"],
    ["warm_up"],
    ["training", "files", "worker"],
    ["bulk"],
    ["stages"],
    ["archive"],
    ["codec"],
    ["models"],
    ["quantise"],
    ["meta"],
    ["scenes"],
    ["inr", "patches"],
    ["datasets"],
    ["kinds"],
    ["formats"],
    ["signals"],
    ["coding"],
    ["processes"],
    ["quality", "places", "progress", "config", "plugins", "errors", "compiled", "container"],
]
"""From top to bottom; a room may import rooms below it, and its own members and those on its own line."""

ROOT = Path(vcinr.__file__).parent
GOLDEN = Path(__file__).parent / "golden" / "v1"


@dataclass(frozen=True)
class Contract:
    """What some modules never import, themselves or by way of what they import."""

    modules: tuple[str, ...]
    never: tuple[str, ...]
    inside: tuple[tuple[str, str], ...] = ()
    """Imports (from, of what) that are made where a function needs them, and are no part of the contract."""


CONTRACTS = {
    "the package knows nothing of its orchestration": Contract(
        ("vcinr",), ("prefect", "dvc", "flows", "benchmarks", "tests")
    ),
    "reading imports no search, planning or training": Contract(
        (
            "vcinr.archive.read", "vcinr.archive.at", "vcinr.archive.zarr_codec", "vcinr.archive.sharding",
            "vcinr.codec.at", "vcinr.codec.decode",
        ),
        (
            "vcinr.cli", "vcinr.training", "vcinr.meta",
            "vcinr.codec.encode", "vcinr.codec.search", "vcinr.codec.latents", "vcinr.codec.trial",
            "vcinr.archive.plan", "vcinr.archive.work", "vcinr.archive.write", "vcinr.bulk",
            "vcinr.quantise.train", "vcinr.quantise.refine", "vcinr.quantise.variational", "vcinr.quantise.joint",
            "torch", "prefect", "dvc", "pydantic", "matplotlib",
        ),
        inside=(("vcinr.archive.zarr_codec", "vcinr.codec.encode"),),
    ),
    "opening a file needs the base install alone": Contract(
        ("vcinr.formats.open",), ("vcinr.config", "vcinr.signals", "torch", "pydantic", "scipy", "dask", "cfgrib")
    ),
}  # fmt: skip


class Import(NamedTuple):
    """A statement that imports `name`; at the top of its file, it is run when the file is imported."""

    name: str
    top: bool


@cache
def modules() -> dict[str, Path]:
    """The files of the package by the names of their modules."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = ("vcinr", *path.relative_to(ROOT).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def statements(node: ast.AST, top: bool = True) -> Iterator[tuple[ast.stmt, bool]]:
    """Imports below a node, and whether they stand outside of functions; those for type checkers are left out."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, top
        elif isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            yield from statements(ast.Module(child.orelse, []), top)
        else:
            inner = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from statements(child, top and not inner)


def imports(source: str, module: str = "", package: bool = False) -> set[Import]:
    """What a file imports, by full names: of an attribute of a module, the module."""
    found = set()
    for node, top in statements(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {Import(alias.name, top) for alias in node.names}
            continue
        parent = node.module or ""
        if node.level:
            parts = module.split(".")
            above = parts[: len(parts) - node.level + package]
            parent = ".".join([*above, *filter(None, [node.module])])
        for alias in node.names:
            whole = f"{parent}.{alias.name}"
            found.add(Import(whole if whole in modules() else parent, top))
    return found


@cache
def imported(module: str) -> frozenset[Import]:
    """What a module of the package imports."""
    path = modules()[module]
    return frozenset(imports(path.read_text(), module, path.name == "__init__.py"))


def chains(module: str, contract: Contract) -> Iterator[str]:
    """The imports by which a module comes to each thing that it never imports."""
    before: dict[str, str] = {module: ""}
    queue = [module]
    while queue:
        here = queue.pop(0)
        if here != module and below(here, contract.never):
            found = [here]
            while before[found[0]]:
                found.insert(0, before[found[0]])
            yield " -> ".join(found)
            continue
        if here not in modules():
            continue
        targets = {i.name for i in imported(here) if i.top or (here, i.name) not in contract.inside}
        for target in sorted(targets.union(packages(here), *map(packages, targets))):
            if target not in before:
                before[target] = here
                queue.append(target)


def below(module: str, names: tuple[str, ...]) -> bool:
    """Whether a module is one of those or inside of one."""
    return any(f"{module}.".startswith(f"{name}.") for name in names)


def packages(module: str) -> set[str]:
    """The packages of vcinr around a module, whose `__init__` runs before it."""
    parts = module.split(".")
    return {".".join(parts[:i]) for i in range(1, len(parts))} & set(modules())


def floor(module: str) -> int | None:
    """The line of `ROOMS` that a module belongs to; None for what is not in a room."""
    parts = module.split(".")
    room = parts[1] if parts[0] == "vcinr" and len(parts) > 1 else None
    return next((i for i, rooms in enumerate(ROOMS) if room in rooms), None)


def test_imports_go_downward_only():
    wrong = []
    for module in modules():
        if module == "vcinr":
            continue
        own = floor(module)
        assert own is not None, f"{module} is in no known room"
        for name, _ in imported(module):
            other = floor(name)
            if other is not None and other < own:
                wrong.append(f"{module} imports {name}")
    assert sorted(wrong) == []


def test_imports_form_no_circle():
    graph = {module: {i.name for i in imported(module)} & set(modules()) for module in modules()}
    circles = []
    while True:
        try:
            TopologicalSorter(graph).prepare()
            break
        except CycleError as error:
            circle = error.args[1][::-1]
            circles.append(" -> ".join(circle))
            graph[circle[0]] = graph[circle[0]] - {circle[1]}  # go on, to name every circle at once
    assert circles == []


@pytest.mark.parametrize("name", CONTRACTS)
def test_contract_is_kept(name):
    starts = [m for m in modules() if m in CONTRACTS[name].modules or "vcinr" in CONTRACTS[name].modules]
    assert [line for module in starts for line in chains(module, CONTRACTS[name])] == []


def test_a_reader_loads_nothing_else():
    never = CONTRACTS["reading imports no search, planning or training"].never
    code = "import sys, vcinr; [vcinr.open(path).load() for path in sys.argv[1:]]; print(*sys.modules, sep='\\n')"
    archives = [GOLDEN / "absolute.zip", GOLDEN / "model.zip"]
    child = subprocess.run([sys.executable, "-c", code, *archives], capture_output=True, text=True, check=True)
    assert [module for module in child.stdout.split() if below(module, never)] == []


def test_every_contract_names_modules_that_exist():
    for contract in CONTRACTS.values():
        assert set(contract.modules) & set(modules())


def test_imports_are_seen_wherever_they_stand():
    source = """
import torch.nn
from vcinr import errors
from vcinr.errors import InputError
if TYPE_CHECKING:
    import prefect
else:
    import zarr
try:
    from . import read
except ImportError:
    pass
class A:
    def f(self):
        from ..codec import encode
"""
    assert imports(source, "vcinr.archive.write") == {
        Import("torch.nn", True), Import("vcinr.errors", True), Import("zarr", True),
        Import("vcinr.archive.read", True), Import("vcinr.codec.encode", False),
    }  # fmt: skip


def test_flows_do_no_maths():
    for path in (ROOT.parent / "flows").glob("*.py"):
        assert not {name.split(".")[0] for name, _ in imports(path.read_text())} & {"numpy", "torch", "scipy"}, path
