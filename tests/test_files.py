"""Images, sounds, videos and volumes, a signal a file: through an archive and back, on the command line."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import vcinr
from tests.test_cli import error
from vcinr import cli
from vcinr.config import Patches
from vcinr.errors import InputError
from vcinr.formats.open import open_dataset, open_groups
from vcinr.formats.write import write_dataset
from vcinr.kinds import KINDS, deferred, files
from vcinr.kinds.files import joined, kind_of_data, open_files, separated, write_files
from vcinr.models import load_model
from vcinr.patches.model import PatchModel
from vcinr.training import usual_params

with warnings.catch_warnings():  # of packages that are imported for the first time
    warnings.simplefilter("ignore")
    for module in ("PIL.Image", "imagecodecs", "soundfile", "av", "nibabel"):
        pytest.importorskip(module)


def vcinr_(*arguments) -> str:
    """What a command prints, run in this process."""
    argv, sys.argv = sys.argv, ["vcinr", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(io.StringIO()) as written, contextlib.redirect_stderr(io.StringIO()):
            cli.app(standalone_mode=False)
    finally:
        sys.argv = argv
    return written.getvalue()


def picture(height: int, width: int, channels: int = 3, seed: int = 0, dtype: str = "u1") -> np.ndarray:
    """Soft edges in a few directions, whose colours go together."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 16
    grey = sum(np.tanh(4 * np.sin(a * x + b * y + c)) for a, b, c in rng.uniform(-2, 2, (4, 3)))
    colours = grey[..., None] * rng.uniform(0.5, 1, channels) + 0.1 * rng.standard_normal((height, width, 1))
    top = np.iinfo(dtype).max
    values = np.clip((colours + 5) / 10, 0, 1) * top
    return np.rint(values[..., 0] if channels == 1 else values).astype(dtype)


def image(path: Path, values: np.ndarray, alpha: np.ndarray | None = None, **attrs) -> Path:
    """Write an image."""
    dims = ("y", "x", "channel")[: values.ndim]
    if values.ndim == 3:
        attrs["channels"] = ["red", "green", "blue"]
    data = xr.Dataset({"image": (dims, values, attrs)})
    if alpha is not None:
        data["alpha"] = (("y", "x"), alpha)
    write_dataset(data, path)
    return path


def sound(path: Path, values: np.ndarray, **attrs) -> Path:
    data = xr.Dataset({"sound": (("time", "channel")[: values.ndim], values, {"sample_rate": 8000, **attrs})})
    write_dataset(data, path)
    return path


def tones(length: int, channels: int = 1, seed: int = 0, top: int = 30000) -> np.ndarray:
    rng, t = np.random.default_rng(seed), np.arange(length)[:, None] / 8000
    waves = sum(np.sin(2 * np.pi * f * t + p) for f, p in zip(rng.uniform(100, 900, 3), rng.random(3), strict=True))
    values = np.rint(top / 3 * waves * rng.uniform(0.5, 1, channels))
    return values[:, 0] if channels == 1 else values


def same(a: Path, b: Path) -> None:
    """Both files hold the same data set, to the bit."""
    xr.testing.assert_identical(open_dataset(a), open_dataset(b))


def largest(a: Path, b: Path, name: str) -> float:
    old, new = open_dataset(a)[name], open_dataset(b)[name]
    assert old.dtype == new.dtype and old.sizes == new.sizes and old.attrs == new.attrs
    return float(np.abs(old.values.astype("f8") - new.values.astype("f8")).max(initial=0))


@pytest.fixture(scope="session")
def colours(tmp_path_factory) -> Path:
    """A folder with photographs, and the model that was trained on them by the command."""
    folder = tmp_path_factory.mktemp("colours")
    (folder / "in").mkdir()
    for i in range(6):
        image(folder / "in" / f"{i}.png", picture(128, 128, seed=i))
    image(folder / "in" / "icon.png", picture(5, 3, seed=9))  # too small to learn from
    said = vcinr_("train", folder / "in", "--out", folder / "m.vcinr")
    assert "model" in said and "for image" in said
    assert sorted(p.name for p in folder.iterdir()) == ["in", "m.vcinr"], "the work folder is gone"
    return folder


# --- images


def test_a_model_of_images_is_made_of_experts(colours):
    model = load_model(colours / "m.vcinr")
    assert isinstance(model, PatchModel) and model.features == 3 and model.feature_dim == "channel"
    assert model.dims == ("y", "x") and set(model.normalisation) == {"image"} and len(model.basis) >= 1
    assert model.provenance["method"] == "experts"


@pytest.mark.parametrize("modelled", [False, True])
@pytest.mark.parametrize("bound", [("--psnr", 36), ("--abs-error", 6), ("--rate", 2.5)])
def test_photographs_of_all_sizes(modelled, bound, colours, tmp_path):
    originals = tmp_path / "my photographs"
    originals.mkdir()
    for i, (height, width) in enumerate([(40, 56), (40, 56), (33, 17), (1, 1), (3, 30)]):
        image(originals / f"a view.{i}.png", picture(height, width, seed=50 + i))
    with_model = ("--model", colours / "m.vcinr") if modelled else ()
    said = vcinr_("compress", originals, tmp_path / "a.zip", *with_model, *bound, "--effort", "fast")
    assert "image" in said
    vcinr_("verify", tmp_path / "a.zip", "--against", originals)
    assert f"{len(list(originals.iterdir()))} files" in vcinr_("decompress", tmp_path / "a.zip", tmp_path / "back")
    assert sorted(p.name for p in (tmp_path / "back").iterdir()) == sorted(p.name for p in originals.iterdir())
    for path in originals.iterdir():
        worst = largest(path, tmp_path / "back" / path.name, "image")
        assert worst <= (6 if bound[0] == "--abs-error" else 255)
    if bound[0] == "--rate":
        rates = {v["values"]: v["bound"]["value"] for v in vcinr.info(tmp_path / "a.zip")["variables"].values()}
        assert rates == {2 * 40 * 56 * 3: 2.5, 33 * 17 * 3: 2.5, 3: 512 / 3, 3 * 30 * 3: 2.5}


def test_the_model_pays(colours, tmp_path):
    image(tmp_path / "new.png", picture(128, 128, seed=77))
    sizes = []
    for options in ((), ("--model", colours / "m.vcinr")):
        archive = tmp_path / f"{len(sizes)}.zip"
        vcinr_("compress", tmp_path / "new.png", archive, "--psnr", 34, *options)
        vcinr_("verify", archive, "--against", tmp_path / "new.png")
        sizes.append(vcinr.info(archive)["variables"]["image"]["bytes"])
    assert sizes[1] < 0.9 * sizes[0]


def test_every_sort_of_png_in_one_archive(tmp_path):
    """Colour, grey, with alpha, of 16 bits, with a colour profile: each in its group, and exactly as it was."""
    from PIL import Image, ImageCms

    folder = tmp_path / "in"
    folder.mkdir()
    image(folder / "colour.png", picture(20, 30))
    image(folder / "grey.png", picture(20, 30, 1))
    image(folder / "grey too.png", picture(20, 30, 1, seed=2))
    image(folder / "deep.png", picture(20, 30, 1, dtype="u2"))
    image(folder / "alpha.png", picture(20, 30), np.arange(600, dtype="u1").reshape(20, 30))
    image(folder / "dots.png", picture(20, 30), dpi=[300.0, 300.0])
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(picture(20, 30, seed=3)).save(folder / "profile.png", icc_profile=profile)
    groups, variables = open_files([str(folder)])
    assert len(variables) == 6 and len(groups) == 7 and groups[""].attrs["kind_of_signal"] == "image"
    vcinr_("compress", folder, tmp_path / "a.zip", "--abs-error", 3)
    vcinr_("verify", tmp_path / "a.zip", "--against", folder)
    vcinr_("decompress", tmp_path / "a.zip", tmp_path / "out")
    for path in folder.iterdir():
        assert largest(path, tmp_path / "out" / path.name, "image") <= 3
        old, new = open_dataset(path), open_dataset(tmp_path / "out" / path.name)
        xr.testing.assert_identical(old.drop_vars("image"), new.drop_vars("image"))
    # Without a bound and a model all is exact.
    vcinr_("compress", folder, tmp_path / "exact.zip")
    vcinr_("decompress", tmp_path / "exact.zip", tmp_path / "exact")
    for path in folder.iterdir():
        same(path, tmp_path / "exact" / path.name)
    vcinr_("decompress", tmp_path / "a.zip", tmp_path / "all.nc")
    with xr.open_datatree(tmp_path / "all.nc") as tree:
        assert len(tree.children) == 6


def test_photographs_that_are_not_written_come_back_as_png(tmp_path):
    """Names with dots keep them, and a JPEG beside a PNG of its name keeps its own."""
    from PIL import Image

    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.jpg", "b.1.JPG", "b.2.jpeg", "no suffix", "from.2020"):
        Image.fromarray(picture(24, 32)).save(folder / name, format="JPEG")
    image(folder / "a.png", picture(24, 32, seed=1))
    vcinr_("compress", folder, tmp_path / "a.zarr", "--abs-error", 2)
    vcinr_("decompress", tmp_path / "a.zarr", tmp_path / "back")
    back = {"a.jpg.png": "a.jpg", "b.1.png": "b.1.JPG", "b.2.png": "b.2.jpeg", "no suffix.png": "no suffix"}
    back |= {"from.2020.png": "from.2020", "a.png": "a.png"}
    assert {p.name for p in (tmp_path / "back").iterdir()} == set(back)
    for name, original in back.items():
        old, new = open_dataset(folder / original)["image"], open_dataset(tmp_path / "back" / name)["image"]
        assert np.abs(old.astype("i2") - new.astype("i2")).max() <= 2


def test_bands_that_png_cannot_hold_come_back_as_tiff(tmp_path):
    """An image whose format is not written takes the first usual one that holds it; a name that is given stays."""
    rng = np.random.default_rng(3)
    bands = rng.integers(0, 4000, (9, 7, 5)).astype(np.uint16)
    dataset = xr.Dataset({"image": (("y", "x", "channel"), bands)})
    (path,) = write_files([("scene.jpg", dataset)], KINDS["image"], tmp_path / "out")
    assert path == tmp_path / "out" / "scene.tif"
    np.testing.assert_array_equal(open_dataset(path)["image"], bands)
    with pytest.raises(InputError, match=r"one\.png: \.png files hold grey"):
        write_files([("scene.jpg", dataset)], KINDS["image"], tmp_path / "one.png")


def test_a_grey_image_among_colours_is_coded_without_their_model(colours, tmp_path):
    grey = image(tmp_path / "grey.png", picture(20, 24)[..., 0])
    one = colours / "in" / "0.png"
    said = vcinr_("compress", one, grey, tmp_path / "a.zip", "--model", colours / "m.vcinr", "--psnr", 30)
    variables = vcinr.info(tmp_path / "a.zip")["variables"]
    (without,) = (name for name, v in variables.items() if v["model"] is None)
    assert len(variables) == 2 and f"{without}: coded without the model" in said
    vcinr_("verify", tmp_path / "a.zip", "--against", one, "--against", grey)


def test_a_chunk_of_many_images_is_decoded_once(tmp_path, monkeypatch):
    from vcinr.archive import zarr_codec

    (tmp_path / "in").mkdir()
    for i in range(9):
        image(tmp_path / "in" / f"{i}.png", picture(8, 8, seed=i))
    vcinr_("compress", tmp_path / "in", tmp_path / "a.zip", "--abs-error", 2)
    calls, real = [], zarr_codec.decode
    monkeypatch.setattr(zarr_codec, "decode", lambda *a, **b: calls.append(1) or real(*a, **b))
    assert "9 files" in vcinr_("decompress", tmp_path / "a.zip", tmp_path / "back")
    assert len(calls) == 1


def test_one_file_to_one_file(tmp_path):
    source = image(tmp_path / "one.png", picture(30, 40))
    vcinr_("compress", source, tmp_path / "a.zip")
    for name in ("two.png", "two.tif", "two.webp"):
        assert f"{name}: " in vcinr_("decompress", tmp_path / "a.zip", tmp_path / name)
        assert largest(source, tmp_path / name, "image") == 0
    vcinr_("decompress", tmp_path / "a.zip", tmp_path / "folder")
    same(source, tmp_path / "folder" / "one.png")
    (tmp_path / "a.b").mkdir()
    vcinr_("decompress", tmp_path / "a.zip", tmp_path / "a.b")
    same(source, tmp_path / "a.b" / "one.png")
    assert "not written" in error("decompress", tmp_path / "a.zip", tmp_path / "two.jpg")


# --- sounds, volumes, videos


@pytest.mark.parametrize("modelled", [False, True])
def test_sounds(modelled, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for i, length in enumerate([5000, 70, 9000, 9000, 1]):
        sound(folder / f"mono {i}.wav", tones(length, seed=i).astype("i2"))
    sound(folder / "stereo.wav", tones(3000, 2).astype("i2"))
    sound(folder / "stereo 2.wav", tones(2000, 2, 1).astype("i2"))
    sound(folder / "nothing.wav", np.zeros(0, "i2"))
    full = np.where(np.arange(800) % 160 < 80, 2**23 - 1, -(2**23)).astype("i4")
    sound(folder / "deep.wav", full, bits=24)
    with_model = ()
    if modelled:
        learnt_from = [folder / f"mono {i}.wav" for i in (0, 1, 2, 3)]
        for i in range(9):  # as many values as a model needs at least
            learnt_from.append(tmp_path / f"more {i}.wav")
            sound(learnt_from[-1], tones(9000, seed=10 + i).astype("i2"))
        vcinr_("train", *learnt_from, "--out", tmp_path / "m.vcinr")
        assert load_model(tmp_path / "m.vcinr").dims == ("time",)
        with_model = ("--model", tmp_path / "m.vcinr")
        for name in ("stereo.wav", "stereo 2.wav", "deep.wav"):
            (folder / name).unlink()
    groups, variables = open_files([str(folder)])
    assert variables == (["sound"] if modelled else ["sound", "sound-2", "sound-2-2"]) or len(variables) in (1, 3)
    vcinr_("compress", folder, tmp_path / "a.zip", "--abs-error", 40, *with_model)
    vcinr_("verify", tmp_path / "a.zip", "--against", folder)
    vcinr_("decompress", tmp_path / "a.zip", tmp_path / "back")
    assert {p.name for p in (tmp_path / "back").iterdir()} == {p.name for p in folder.iterdir()}
    for path in folder.iterdir():
        assert largest(path, tmp_path / "back" / path.name, "sound") <= 40
    assert len(groups) >= 1


def test_volumes(tmp_path):
    import nibabel

    z, y, x = np.mgrid[:12, :14, :10]
    values = np.rint(1000 * np.exp(-((z - 6) ** 2 + (y - 7) ** 2 + (x - 5) ** 2) / 30)).astype("i2")
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    (tmp_path / "in").mkdir()
    for i in range(2):
        nibabel.save(nibabel.Nifti1Image(np.roll(values, i, 0).T, affine), tmp_path / "in" / f"brain.{i}.nii.gz")
    floats = nibabel.Nifti1Image(values.T.astype("f4") / 7, affine)
    nibabel.save(floats, tmp_path / "in" / "floats.nii")
    vcinr_("train", tmp_path / "in" / "brain.0.nii.gz", "--out", tmp_path / "m.vcinr", "--params", small(tmp_path))
    for options in ((), ("--model", tmp_path / "m.vcinr")):
        archive, back = tmp_path / f"{len(options)}.zarr", tmp_path / f"back {len(options)}"
        vcinr_("compress", tmp_path / "in", archive, "--abs-error", 5, *options)
        vcinr_("verify", archive, "--against", tmp_path / "in")
        vcinr_("decompress", archive, back)
        for path in (tmp_path / "in").iterdir():
            assert largest(path, back / path.name, "volume") <= 5
            old, new = nibabel.load(path), nibabel.load(back / path.name)
            assert np.array_equal(old.affine, new.affine) and old.header == new.header


def small(folder: Path) -> Path:
    """Parameters for data of a few patches."""
    (folder / "small.yaml").write_text(
        "method: experts\npatches: {size: [2, 2, 2], back: [1, 1, 1], ahead: [0, 1, 1], experts: 2, rounds: 2}\n"
    )
    return folder / "small.yaml"


def test_a_video(tmp_path):
    frames = np.stack([np.roll(picture(24, 32), t, 1) for t in range(9)])
    data = xr.Dataset({"video": (("frame", "y", "x", "channel"), frames, {"frame_rate": "25/1"})})
    write_dataset(data, tmp_path / "clip.mkv")
    vcinr_("train", tmp_path / "clip.mkv", "--out", tmp_path / "m.vcinr", "--params", small(tmp_path))
    assert load_model(tmp_path / "m.vcinr").dims == ("frame", "y", "x")
    for options in (("--psnr", 34), ("--psnr", 34, "--model", tmp_path / "m.vcinr")):
        archive, back = tmp_path / f"{len(options)}.zip", tmp_path / f"{len(options)}.mkv"
        vcinr_("compress", tmp_path / "clip.mkv", archive, *options, "--effort", "fast")
        vcinr_("verify", archive, "--against", tmp_path / "clip.mkv")
        vcinr_("decompress", archive, back)
        old, new = (open_dataset(p)["video"] for p in (tmp_path / "clip.mkv", back))
        spread = float(np.ptp(old.values))
        assert new.attrs["frame_rate"] == "25/1" and old.shape == new.shape
        assert np.square(old.values - new.values.astype("f8")).mean() <= spread**2 / 10**3.4


# --- what is refused


def test_files_that_do_not_go_together(colours, tmp_path):
    out = tmp_path / "a.zip"
    one = image(tmp_path / "one.png", picture(20, 20))
    grey = image(tmp_path / "grey.png", picture(20, 20, 1))
    beep = sound(tmp_path / "beep.wav", tones(500).astype("i2"))
    (tmp_path / "sub").mkdir()
    again = image(tmp_path / "sub" / "one.png", picture(20, 20))
    (tmp_path / "empty").mkdir()
    fields = [tmp_path / f"{i}.nc" for i in range(2)]
    for path in fields:
        xr.Dataset({"t": (("y", "x"), np.zeros((4, 4)))}).to_netcdf(path)
    assert "two files are called one.png; rename one" in error("compress", one, again, out)
    assert "empty: a folder without files" in error("compress", tmp_path / "empty", out)
    assert "empty: a folder without files" in error("train", tmp_path / "empty", "--out", tmp_path / "m.vcinr")
    assert "beep.wav: no image, it holds sound" in error("compress", one, beep, out)
    assert "one.png: no sound, it holds image" in error("compress", beep, one, out)
    assert "1.nc: several files share an archive only where" in error("compress", *fields, out)
    assert "0.nc: no image, it holds t" in error("compress", one, fields[0], out)
    line = error("compress", grey, out, "--model", colours / "m.vcinr", "--psnr", 30)
    assert "3 features along dimension 'channel', and here are 0" in line and "grey.png" in line
    assert "beep.wav" in error("compress", beep, out, "--model", colours / "m.vcinr", "--psnr", 30)
    assert "name the archive to write after it" in error("compress", one)
    line = error("train", one, grey, "--out", tmp_path / "m.vcinr")
    assert "grey.png" in line and "features" in line
    line = error("train", one, beep, "--out", tmp_path / "m.vcinr")
    assert "beep.wav" in line and "'image'" in line
    assert "too few" in error("train", one, "--out", tmp_path / "m.vcinr")
    point = image(tmp_path / "point.png", picture(1, 1))
    line = error("train", point, "--out", tmp_path / "m.vcinr")
    assert "\n" not in line and ("too few" in line or "one training signal" in line)
    line = error("train", one, "--out", tmp_path / "m.vcinr", "--steps", 5)
    assert "--steps and --minutes are for networks" in line
    assert "cannot write there" in error("train", one, "--out", one / "m.vcinr")
    vcinr_("compress", one, out)
    for target in (tmp_path / "grey.png", tmp_path / "sub"):
        assert "exists already" in error("decompress", out, target)
    (tmp_path / "taken").write_text("mine")
    assert "taken: exists already" in error("decompress", out, tmp_path / "taken")
    assert "taken: cannot make this folder" in error("decompress", out, tmp_path / "taken" / "one.png")
    vcinr_("compress", one, grey, tmp_path / "two.zip")
    assert "grey.png: exists already" in error("decompress", tmp_path / "two.zip", tmp_path / "grey.png")
    assert open_dataset(grey)["image"].dims == ("y", "x") and (tmp_path / "taken").read_text() == "mine"
    left = {p.name for p in tmp_path.iterdir()}
    assert not {name for name in left if name.startswith(".") or name == "m.vcinr"}, left


def test_what_is_wrong_with_the_originals_is_said(colours, tmp_path):
    for i in range(2):
        image(tmp_path / f"{i}.png", picture(20, 20, seed=i))
    vcinr_("compress", tmp_path / "0.png", tmp_path / "1.png", tmp_path / "a.zip", "--abs-error", 2)
    image(tmp_path / "1.png", picture(20, 20, seed=5))
    problems, _ = vcinr.verify(tmp_path / "a.zip", open_files([str(tmp_path / f"{i}.png") for i in range(2)])[0])
    assert len(problems) == 1 and "image" in problems[0]


def test_data_that_only_have_the_name_of_a_signal(tmp_path):
    """A grid of other variables, or of other dimensions, is what it always was."""
    rng = np.random.default_rng(0)
    dims = ("z", "y", "x")
    many = xr.Dataset({"volume": (dims, rng.random((3, 8, 8))), "t": (dims, rng.random((3, 8, 8)))})
    lake = xr.Dataset({"volume": (("time",), rng.random(50))}, {"time": np.arange(50.0)})
    placed = xr.Dataset({"volume": (dims, rng.random((3, 8, 8)))}, {"z": [1.0, 2.0, 4.0]})
    for data in (many, lake, placed):
        assert kind_of_data(data) is None
        data.to_netcdf(tmp_path / "in.nc")
        vcinr_(
            "compress", tmp_path / "in.nc", tmp_path / "a.zip", "--abs-error", 0.01, "--overwrite", "--var", "volume"
        )
        assert set(vcinr.info(tmp_path / "a.zip")["variables"]) == {"volume"}
        vcinr_("verify", tmp_path / "a.zip", "--against", tmp_path / "in.nc")
        (tmp_path / "back.nc").unlink(missing_ok=True)
        vcinr_("decompress", tmp_path / "a.zip", tmp_path / "back.nc")
        with xr.open_dataset(tmp_path / "back.nc") as back:
            assert back.sizes == data.sizes
    assert kind_of_data(xr.Dataset({"image": (("y", "x"), np.zeros((2, 2)))})) == "image"


# --- Python


def test_parameters_suit_the_kind(colours, tmp_path):
    beep = sound(tmp_path / "beep.wav", tones(500).astype("i2"))
    for method in ("", "experts"):
        params = usual_params([str(beep)], method=method)
        assert params.method == "experts" and params.patches.psnr == 50.0
    assert usual_params([str(beep)], method="basis").method == "basis"
    assert usual_params([str(colours / "in")]).patches == Patches()
    assert usual_params([str(beep)], kind="grid").method == "basis"


def test_training_in_python(colours, tmp_path):
    model = vcinr.train([colours / "in" / f"{i}.png" for i in range(6)], tmp_path / "m.vcinr")
    assert isinstance(model, PatchModel)
    # The icon was not learned from, so the same files give the same experts.
    with_icon = load_model(colours / "m.vcinr")
    assert all(np.array_equal(getattr(model, n), getattr(with_icon, n)) for n in ("middle", "predict", "basis"))
    new = [image(tmp_path / f"{i}.png", picture(30, 40, seed=60 + i)) for i in range(2)]
    vcinr.compress(new, tmp_path / "a.zip", model=tmp_path / "m.vcinr", psnr=34)
    assert vcinr.verify(tmp_path / "a.zip", new)[0] == []
    with vcinr.open(tmp_path / "a.zip") as archive:
        assert archive.image.dims == ("item", "y", "x", "channel") and list(archive.name.values) == ["0.png", "1.png"]
    assert sorted(p.name for p in vcinr.decompress(tmp_path / "a.zip", tmp_path / "back")) == ["0.png", "1.png"]
    with pytest.raises(InputError, match="this is a folder"):
        vcinr.train([colours / "in" / "0.png"], tmp_path)


def test_signals_are_taken_apart_as_they_were_joined(tmp_path):
    opened = []
    for i, shape in enumerate([(4, 5), (6, 5), (4, 5)]):
        values = np.full(shape, i, "u1")
        opened.append((f"/somewhere/{i}.png", xr.Dataset({"image": (("y", "x"), values, {"dpi": [7.0, 7.0]})})))
    opened.append(("9.png", opened[0][1].assign(image=opened[0][1].image.assign_attrs(dpi=[8.0, 7.0]))))
    groups = joined(opened, "image")
    assert [d.sizes.get("item") for d in groups.values()] == [None, 2, 1, 1]
    back = dict(separated(groups))
    assert set(back) == {"0.png", "1.png", "2.png", "9.png"}
    for path, before in opened:
        xr.testing.assert_identical(back[Path(path).name], before)
    assert open_groups(image(tmp_path / "a.png", picture(3, 4)))[""].sizes == {"y": 3, "x": 4, "channel": 3}


# --- what verify says of each file


def said_of(archive: Path, originals: Path) -> tuple[dict, dict[str, dict]]:
    """The JSON of verify, and its signals by name."""
    found = json.loads(vcinr_("verify", archive, "--against", originals, "--json"))
    signals = [s for fact in found["variables"].values() for s in fact["signals"]]
    return found, {s["name"]: s for s in signals}


def check_signals(archive: Path, originals: Path, variable: str, back: Path, peak: float) -> dict:
    """Compare what verify says with the files that come back."""
    found, signals = said_of(archive, originals)
    assert found["problems"] == [] and sorted(signals) == sorted(p.name for p in originals.iterdir())
    vcinr_("decompress", archive, back)
    squared, count = 0.0, 0
    for path in originals.iterdir():
        old, new = (open_dataset(p)[variable].values.astype("f8") for p in (path, back / path.name))
        errors = old - new
        assert signals[path.name]["max_abs_error"] == pytest.approx(np.abs(errors).max(initial=0))
        expected = 10 * np.log10(peak**2 / np.square(errors).mean()) if errors.any() else None
        assert signals[path.name]["psnr_db"] == (None if expected is None else pytest.approx(expected))
        squared, count = squared + float(np.square(errors).sum()), count + errors.size
    whole = found["whole"]
    assert whole["signals"] == len(signals) and whole["psnr_db"] == pytest.approx(
        10 * np.log10(peak**2 * count / squared)
    )
    assert whole["max_abs_error"] == max(s["max_abs_error"] for s in signals.values())
    return found


def test_verify_shows_error_and_quality_of_every_image(colours, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for i, (height, width) in enumerate([(40, 56), (40, 56), (40, 56), (33, 17)]):
        image(folder / f"{i}.png", picture(height, width, seed=50 + i))
    image(folder / "flat.png", np.full((9, 9, 3), 7, "u1"))
    options = ("--model", colours / "m.vcinr", "--abs-error", 6, "--effort", "fast", "--chunk", 1)
    vcinr_("compress", folder, tmp_path / "a.zip", *options)
    found = check_signals(tmp_path / "a.zip", folder, "image", tmp_path / "back", 255)
    assert found["whole"]["peak_is"] == "255"
    model = (colours / "m.vcinr").stat().st_size
    values = 3 * (3 * 40 * 56 + 33 * 17 + 81)
    size = (tmp_path / "a.zip").stat().st_size
    assert found["whole"]["bits_per_value"] == pytest.approx(8 * (size - model) / values, rel=0.05)
    lines = vcinr_("verify", tmp_path / "a.zip", "--against", folder).splitlines()
    assert [line.partition(":")[0] for line in lines[-7:-2]] == ["0.png", "1.png", "2.png", "3.png", "flat.png"]
    assert lines[-7].endswith(" dB") and "largest error" in lines[-7] and lines[-3] == "flat.png: exact"
    assert "5 signals, largest error" in lines[-1] and "(peak 255)" in lines[-1] and "bits per value" in lines[-1]
    assert len(vcinr_("verify", tmp_path / "a.zip").splitlines()) == len(lines) - 6, "without the originals as before"


def test_verify_shows_every_sound_and_every_volume(tmp_path):
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    for i, length in enumerate([5000, 70, 9000, 1]):
        sound(sounds / f"{i}.wav", tones(length, seed=i).astype("i2"))
    vcinr_("compress", sounds, tmp_path / "s.zip", "--abs-error", 40, "--chunk", 3000)
    check_signals(tmp_path / "s.zip", sounds, "sound", tmp_path / "sounds back", 2**15)
    volumes = tmp_path / "volumes"
    volumes.mkdir()
    rng = np.random.default_rng(0)
    levels = rng.normal(size=(2, 6, 7, 8)).cumsum(3).astype("f4")
    for i, values in enumerate(levels):
        write_dataset(xr.Dataset({"volume": (("z", "y", "x"), values)}), volumes / f"{i}.nrrd")
    vcinr_("compress", volumes, tmp_path / "v.zip", "--abs-error", 0.3)
    found = check_signals(tmp_path / "v.zip", volumes, "volume", tmp_path / "volumes back", float(np.ptp(levels)))
    assert found["whole"]["peak_is"] == "the range"


def test_a_problem_is_in_the_json_too(tmp_path):
    for i in range(2):
        image(tmp_path / f"{i}.png", picture(20, 20, seed=i))
    vcinr_("compress", tmp_path / "0.png", tmp_path / "1.png", tmp_path / "a.zip", "--abs-error", 2)
    image(tmp_path / "1.png", picture(20, 20, seed=5))
    command = [
        sys.executable,
        "-m",
        "vcinr.cli",
        "verify",
        "a.zip",
        "--against",
        "0.png",
        "--against",
        "1.png",
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    found = json.loads(done.stdout)
    assert done.returncode == 1 and len(found["problems"]) == 1 and found["whole"] == {}
    first, second = found["variables"]["image"]["signals"]
    assert first["max_abs_error"] <= 2 < second["max_abs_error"], "the file that is another one is seen"


# --- files that are read when their values are used


def test_joined_files_are_read_as_arrays_are(tmp_path):
    """Any part of signals that are stacked, or lie end to end, is what it is of arrays in memory."""
    for i in range(4):
        image(tmp_path / f"{i}.png", picture(9, 7, seed=i))
        sound(tmp_path / f"{i}.wav", tones(50 + 10 * i, 2, seed=i).astype("i2"))
    kinds_of = {"image": [(str(p), open_dataset(p)) for p in sorted(tmp_path.glob("*.png"))]}
    kinds_of["sound"] = [(str(p), open_dataset(p)) for p in sorted(tmp_path.glob("*.wav"))]
    keys = [
        np.s_[:], np.s_[1], np.s_[1:3], np.s_[::-1], np.s_[3:0:-2], np.s_[2:2], np.s_[-1], np.s_[1:99:2],
        np.s_[:, 1], np.s_[2, :1], np.s_[55:120:7, ::-1],
    ]  # fmt: skip
    for name, opened in kinds_of.items():
        lazy, _ = open_files([path for path, _ in opened])
        whole = joined(opened, name)[""]
        assert isinstance(whole[name].variable._data, np.ndarray)
        assert not isinstance(lazy[""][name].variable._data, np.ndarray)
        xr.testing.assert_identical(lazy[""].compute(), whole)
        for key in keys:
            np.testing.assert_array_equal(lazy[""][name][key].values, whole[name][key].values, err_msg=str(key))
        for key in ([3, 0], np.s_[[2, 1], 1:]):
            np.testing.assert_array_equal(lazy[""][name][key].values, whole[name][key].values)


def test_few_of_many_files_are_held(tmp_path, monkeypatch):
    """An archive of many images holds a few of them at a time, reads each few times, and has the same bytes."""
    (tmp_path / "in").mkdir()
    for i in range(24):
        image(tmp_path / "in" / f"{i:02}.png", picture(64, 48, seed=i))
    size = 64 * 48 * 3
    data = {path: open_dataset(path) for path in sorted((tmp_path / "in").iterdir())}
    whole = joined([(str(p), d) for p, d in data.items()], "image")
    vcinr.compress(whole, tmp_path / "a.zarr", abs_error=20, chunk=2, effort="fast", variables=["image"])
    read, most = [], []
    real, opened = files.open_dataset, deferred.Held.dataset

    def counted(self, path, *rest):
        result = opened(self, path, *rest)
        most.append(sum(d["image"].nbytes for d in self._opened.values()))
        return result

    monkeypatch.setattr(files, "open_dataset", lambda path: read.append(path) or real(path))
    monkeypatch.setattr(deferred.Held, "dataset", counted)
    monkeypatch.setattr(deferred.Held.__init__, "__defaults__", (3 * size,))
    vcinr.compress(tmp_path / "in", tmp_path / "b.zarr", abs_error=20, chunk=2, effort="fast")
    assert max(most) <= 3 * size and len(read) <= 3 * 24, "once to look, once for their range, once to encode"
    chunks = [sorted((tmp_path / a / "image").rglob("*")) for a in ("a.zarr", "b.zarr")]
    assert [f.read_bytes() for f in chunks[0] if f.is_file()] == [f.read_bytes() for f in chunks[1] if f.is_file()]


def test_a_file_that_changes_meanwhile_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(deferred.Held.__init__, "__defaults__", (1,))
    for i in range(2):
        image(tmp_path / f"{i}.png", picture(20, 20, seed=i))
    groups, _ = open_files([str(tmp_path)])
    (tmp_path / "0.png").unlink()
    image(tmp_path / "0.png", picture(21, 20))
    with pytest.raises(InputError, match=r"0\.png: it has changed since it was opened"):
        groups[""]["image"].values  # noqa: B018
    with pytest.raises(InputError, match=r"0\.png: it has changed"):
        vcinr.compress(groups, tmp_path / "a.zarr", abs_error=3, variables=["image"])
