"""Kinds of signals: their own parameters in params.yaml, and one that another package adds."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import vcinr
from vcinr import config, kinds
from vcinr.config import Patches, Selection, Source
from vcinr.datasets.ingest import archive_variables, ingest, open_archive
from vcinr.errors import ConfigError, InputError
from vcinr.formats.open import open_dataset
from vcinr.formats.write import write_dataset
from vcinr.kinds.sound import patch_length
from vcinr.models import load_model
from vcinr.patches.train import train_patches
from vcinr.signals import read_signals

ROOT = Path(__file__).resolve().parent.parent
COMMON = "train: [{path: a.nc}], archive: [{path: a.nc}]"


def load(folder: Path, source: str) -> Source:
    """The source that a params file has."""
    (folder / "params.yaml").write_text(f"sources: {{mine: {{{source}, {COMMON}}}}}")
    return kinds.load(folder / "params.yaml").sources["mine"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("kind: voxels, resolutoin: 8", r"resolutoin: unknown parameter; did you mean 'resolution'\?"),
        ("kind: voxels, varables: [v]", r"varables: unknown parameter; did you mean 'variables'\?"),
        ("kind: voxels, tiling: {sytem: box}", r"tiling\.sytem: unknown parameter; did you mean 'system'\?"),
        ("kind: voxels, resolution: 0", r"resolution: .*greater than 0, got 0"),
        ("kind: voxels, resolution: many", r"resolution: .*valid integer, got 'many'"),
        ("resolution: 8", r"resolution: unknown parameter; known: kind, .*valid_every"),
        ("kind: voxels, function: 'm:f'", r"function: unknown parameter; known: .*resolution, limit"),
        ("kind: vocals", r"kind: kinds: unknown 'vocals'; known: grid, image, .*voxels, python"),
    ],
)
def test_a_wrong_parameter_is_named(source: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"params\.yaml: sources\.mine\.{message}") as caught:
        load(tmp_path, source)
    assert "\n" not in str(caught.value)


def test_a_function_is_needed(tmp_path: Path) -> None:
    for function in ("limit: 2", "function: null", "function: ''"):
        with pytest.raises(ConfigError, match=r"params\.yaml: sources\.mine: kind 'python' needs function"):
            load(tmp_path, f"kind: python, {function}")
    assert load(tmp_path, "kind: python, function: 'm:f'").own == {"function": "m:f"}


def test_the_method_is_the_usual_one_of_the_kind(tmp_path: Path) -> None:
    def params(kind: str, more: str = "") -> config.Params:
        text = f"source: {{name: mine, archive: mine}}\nsources: {{mine: {{kind: {kind}, {COMMON}}}}}\n{more}"
        (tmp_path / "params.yaml").write_text(text)
        return kinds.load(tmp_path / "params.yaml")

    assert params("grid").method == params("voxels").method == "basis"
    volume = params("volume", "method: null\npatches: {experts: null, rounds: 3}")
    assert (volume.method, volume.patches.experts, volume.patches.rounds, volume.patches.psnr) == ("experts", 4, 3, 38)
    assert params("volume", "patches: {experts: 7}").patches.experts == 7
    assert params("image", "method: coinpp").inr.conditioning == "shifts"
    with pytest.raises(ConfigError, match=r"params\.yaml: method: unknown 'expert'"):
        params("image", "method: expert")


def test_scenes_have_no_stages(tmp_path: Path) -> None:
    source = load(tmp_path, "kind: scenes")
    with pytest.raises(ConfigError, match=r"a\.nc: kind scenes has no stages.*vcinr train --kind scenes"):
        ingest(source, tmp_path, tmp_path / "signals")


def test_parameters_given_in_python_are_checked_where_they_are_used(tmp_path: Path) -> None:
    source = Source(kind="voxels", train=(), archive=(), resolution=-1)
    for work in (lambda: ingest(source, tmp_path, tmp_path / "signals"), lambda: open_archive(source, tmp_path)):
        with pytest.raises(ConfigError, match=r"source: resolution: .*greater than 0, got -1"):
            work()


def test_a_mesh_is_opened_as_triangles(tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    data = vcinr.open_dataset(tmp_path / "a.obj").triangles
    assert data.dims == ("triangle", "corner", "axis")
    np.testing.assert_array_equal(data, [[[0, 0, 0], [1, 0, 0], [0, 1, 0]]])
    (tmp_path / "b.obj").write_text("v 0 0 0\n")
    with pytest.raises(InputError, match=r"b\.obj: it has no faces; leave it out"):
        open_dataset(tmp_path / "b.obj")


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugins_anew: None) -> Iterator[None]:
    """A package beside vcinr that adds a kind by an entry point: long recordings, cut into pieces."""
    (tmp_path / "outside_kinds.py").write_text("""
from vcinr.formats.open import open_dataset
from vcinr.kinds import Kind, Options

class PieceOptions(Options):
    length: int = 8

def open_selection(path, selection, options, watch):
    (samples,) = open_dataset(path).data_vars.values()
    pieces = samples.size // options.length
    whole = samples[: pieces * options.length].variable.data.reshape(pieces, options.length)
    return samples.to_dataset(name="pieces").drop_dims(samples.dims).assign(pieces=(("piece", "time"), whole))

KIND = Kind(
    open=open_selection, variables=lambda source, dataset: ("pieces",), signal_dims=("time",), options=PieceOptions,
    members=lambda opened: [("pieces", dataset) for _, dataset in opened[:1]],
)
""")
    info = tmp_path / "outside_kinds-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-kinds\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[vcinr.kinds]\npieces = outside_kinds:KIND\nbroken = outside_kinds:NONE\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("outside_kinds", None)


@pytest.mark.usefixtures("outside")
def test_another_package_adds_a_kind(tmp_path: Path) -> None:
    samples = np.sin(np.arange(250) / 5).astype("f4")
    np.save(tmp_path / "a.npy", samples)
    with pytest.raises(ConfigError, match=r"sources\.mine\.lenght: unknown parameter; did you mean 'length'\?"):
        load(tmp_path, "kind: pieces, lenght: 10")
    with pytest.raises(ConfigError, match=r"sources\.mine\.kind: vcinr\.kinds: 'broken' .* cannot be loaded"):
        load(tmp_path, "kind: broken")
    chosen = (Selection(path=str(tmp_path / "a.npy")),)
    source = load(tmp_path, "kind: pieces, length: 10").model_copy(update={"train": chosen, "archive": chosen})
    summary = ingest(source, tmp_path, tmp_path / "signals")
    assert summary["signals"] == {"train": 23, "valid": 2, "test": 25} and summary["grid"] == {"time": 10}
    signals = read_signals(tmp_path / "signals")
    np.testing.assert_array_equal(signals.splits["test"].features.ravel(), samples)
    ((name, data),) = open_archive(source, tmp_path)
    assert name == "pieces" and archive_variables(source, data) == ("pieces",)
    vcinr.compress(data, tmp_path / "a.zarr", variables=archive_variables(source, data), abs_error=0.01)
    with vcinr.open(tmp_path / "a.zarr") as back:
        assert float(np.abs(back.pieces.values.ravel() - samples).max()) <= 0.01


@pytest.fixture
def spectra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugins_anew: None) -> Iterator[Path]:
    """The package of docs/guide.md, installed; a folder for its files."""
    section = (ROOT / "docs" / "guide.md").read_text().partition("## A kind of your own")[2].partition("\n## ")[0]
    code, points = (section.partition(f"```{language}\n")[2].partition("```")[0] for language in ("python", "toml"))
    assert len(code.strip().splitlines()) <= 45
    (tmp_path / "spectra.py").write_text(code)
    info = tmp_path / "spectra-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: spectra\nVersion: 1\n")
    groups = tomllib.loads(points)["project"]["entry-points"]
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in names.items()) for group, names in groups.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "files"
    sys.modules.pop("spectra", None)


def test_the_kind_of_the_guide(spectra: Path, tmp_path: Path) -> None:
    spectra.mkdir()
    rng = np.random.default_rng(0)
    x = np.linspace(0, 1, 1024)
    for i in range(12):
        peaks = sum(np.exp(-(((x - c) / 0.02) ** 2)) for c in rng.random(5))
        values = "\n".join(repr(float(np.float32(v))) for v in peaks)
        (spectra / f"{i}.spectrum").write_text(f"# spectrum\n{values}\n")
    model = vcinr.train([spectra], tmp_path / "m.vcinr")
    assert model.dims == ("wavelength",)
    vcinr.compress([spectra], tmp_path / "a.zip", model=model, psnr=40)
    assert vcinr.verify(tmp_path / "a.zip", [spectra])[0] == []
    written = vcinr.decompress(tmp_path / "a.zip", tmp_path / "back")
    assert [p.name for p in written] == sorted(p.name for p in spectra.iterdir())
    first, back = (open_dataset(p)["spectrum"].values for p in (spectra / "0.spectrum", tmp_path / "back/0.spectrum"))
    assert 0 < np.abs(first - back).max() < 0.2


def test_a_package_that_cannot_be_loaded_is_left_out_with_a_warning(
    outside: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING", "vcinr"):
        assert "broken" not in kinds.every() and "grid" in kinds.every()
    assert "'broken' of outside_kinds:NONE cannot be loaded" in caplog.text


# --- lengths of patches of sound


@pytest.mark.parametrize(
    ("rate", "length"), [(8000, None), (16000, None), (22050, 176), (44100, 352), (48000, 384), (192000, 512)]
)
def test_patches_of_sound_last_8_ms(rate, length):
    minutes = [({"sample_rate": rate}, 30 * rate)] * 20
    assert patch_length(minutes) == length
    assert patch_length([({"sample_rate": np.array([rate])}, 30 * rate)] * 20) == length, "as an archive has it"


def test_patches_of_sound_need_enough_to_learn_from():
    of = {"sample_rate": 44100}
    assert patch_length([(of, 44100)] * 30) == 192 <= np.sqrt(30 * 44100 / 32)
    assert patch_length([(of, 44100)] * 10) is None
    assert patch_length([(of, 2000)] * 10_000) == 240, "an eighth of a file"
    assert patch_length([({}, 10**7)]) is patch_length([]) is None
    some = [({"sample_rate": 16000}, 10**7), (of, 10**7), (of, 10**7)]
    assert patch_length(some) == 352 and patch_length(some[:2]) is None, "the middle one, or the lower of two"


@pytest.mark.parametrize(("rate", "size", "tile"), [(16000, 128, 4096), (44100, 352, 20 * 352)])
def test_a_model_of_sound_has_patches_by_the_sample_rate(rate, size, tile, tmp_path):
    """And applies to files of another rate; a length that is given is taken."""
    rng, t = np.random.default_rng(0), np.arange(7200)
    for i in range(560):
        wave = 9000 * np.sin(t * rng.uniform(0.01, 0.1)) + 300 * rng.standard_normal(len(t))
        data = xr.Dataset({"sound": ("time", np.rint(wave).astype("i2"), {"sample_rate": rate, "bits": 16})})
        write_dataset(data, tmp_path / f"{i:03}.wav")
    selection = Selection(path=str(tmp_path / "*.wav"))
    source = Source(kind="sound", train=(selection,), archive=(Selection(path=str(tmp_path / "000.wav")),))
    store = tmp_path / "signals.zarr"
    assert ingest(source, tmp_path, store)["grid"] == {"time": tile}
    quick = Patches(experts=1, rounds=1, count=3000)
    train_patches(store, quick, seed=0, out=tmp_path / "a.vcinr")
    model = load_model(tmp_path / "a.vcinr")
    assert model.geometry.size == (1, 1, size) and model.geometry.back == (0, 0, 256)
    assert ("patch_length" in model.provenance) == (size != 128)
    given = train_patches(store, quick.model_copy(update={"size": (64,)}), seed=0, out=tmp_path / "b.vcinr")
    assert given["model_bytes"] < 10**5 and load_model(tmp_path / "b.vcinr").geometry.size == (1, 1, 64)
    other = data["sound"].copy(data=data["sound"].values)
    other.attrs["sample_rate"] = 8000
    (tmp_path / "other").mkdir()
    write_dataset(other.to_dataset(), tmp_path / "other" / "slow.wav")
    vcinr.compress(tmp_path / "other", tmp_path / "c.zarr", model=model, abs_error=300)
    assert vcinr.verify(tmp_path / "c.zarr", tmp_path / "other")[0] == []
