"""Solid shapes, a file each: meshes and voxels through an archive and back, on the command line."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import vcinr
from tests.test_cli import error
from tests.test_files import vcinr_
from vcinr.codec.promise import ious
from vcinr.errors import InputError
from vcinr.formats.mesh import surface
from vcinr.formats.open import open_dataset
from vcinr.formats.write import write_dataset
from vcinr.kinds.files import open_files
from vcinr.kinds.shape import as_voxels

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for module in ("skimage", "trimesh", "scipy"):
        pytest.importorskip(module)

SIZE = 24


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """A ball and two boxes that touch, as meshes of four formats, and a ball of fewer voxels."""
    z, y, x = np.indices((SIZE,) * 3)
    ball = (z - 12) ** 2 + (y - 10) ** 2 + (x - 11) ** 2 < 90
    boxes = (abs(z - 12) < 4) & (y < 9) | (abs(x - 12) < 2) & (abs(z - 8) < 5)
    places = []
    for name, solid in (
        ("ball.obj", ball),
        ("boxes.stl", boxes),
        ("ring.ply", ball & ~boxes),
        ("half.glb", ball & (y < 11)),
    ):
        triangles = surface(solid).astype(np.float32).astype(float) + np.array([5.0, 0.0, -7.0])
        places.append(tmp_path / name)
        write_dataset(xr.Dataset({"triangles": (("triangle", "corner", "axis"), triangles)}), places[-1])
    small = xr.Dataset(
        {"occupancy": (("z", "y", "x"), ball[:9, :9, 2:8].astype("u1"), {"translate": [0.5, 0, 1], "scale": 3.0})}
    )
    write_dataset(small, tmp_path / "small.binvox")
    return [*places, tmp_path / "small.binvox"]


def test_meshes_become_voxels_and_come_back(files, tmp_path):
    said = vcinr_("compress", *files, tmp_path / "a.zip", "--resolution", SIZE)
    assert "bound lossless" in said
    told = vcinr_("verify", tmp_path / "a.zip", *(word for file in files for word in ("--against", file)))
    assert "5 signals, exact, " in told and "verified against" in told
    vcinr_("decompress", tmp_path / "a.zip", tmp_path / "back")
    for file in files:
        expected = as_voxels(open_dataset(file), SIZE)
        back = open_dataset(tmp_path / "back" / f"{file.stem}.binvox")["occupancy"]
        np.testing.assert_array_equal(back.values, expected["occupancy"].values)
        assert back.attrs["translate"] == expected["translate"].values.tolist()
        assert back.attrs["scale"] == float(expected["scale"])
    assert vcinr.open(tmp_path / "a.zip", group="occupancy-24x24x24")["occupancy"].shape == (4, SIZE, SIZE, SIZE)


def test_voxels_lie_where_the_mesh_does(files):
    """The middle of a mesh's box is that of its voxels."""
    triangles = open_dataset(files[1])["triangles"].values
    voxels = as_voxels(open_dataset(files[1]), SIZE)
    inside = np.argwhere(voxels["occupancy"].values)[:, ::-1]
    low, high = (
        voxels["translate"].values + float(voxels["scale"]) * edge / SIZE for edge in (inside.min(0), inside.max(0) + 1)
    )
    one = float(voxels["scale"]) / SIZE
    assert (abs(low - triangles.min((0, 1))) <= one).all() and (abs(high - triangles.max((0, 1))) <= one).all()


def test_an_iou_of_each_shape_is_verified(files, tmp_path):
    vcinr_("compress", *files[:4], tmp_path / "a.zip", "--resolution", SIZE, "--iou", 0.85)
    told = vcinr_("verify", tmp_path / "a.zip", *(word for file in files[:4] for word in ("--against", file)))
    assert "mean IoU 0." in told and all(f"{file.name}: " in told for file in files[:4])
    facts = vcinr.info(tmp_path / "a.zip")["variables"]["occupancy"]
    assert facts["iou"] >= 0.85 and facts["bytes"] < 200
    assert "mean IoU" in vcinr_("info", tmp_path / "a.zip")
    vcinr_("decompress", tmp_path / "a.zip", tmp_path / "back")
    found = [
        ious(
            as_voxels(open_dataset(f), SIZE)["occupancy"].values,
            open_dataset(tmp_path / "back" / f"{f.stem}.binvox")["occupancy"].values,
        )
        for f in files[:4]
    ]
    assert np.mean(found) >= 0.85


@pytest.mark.parametrize("ending", [".stl", ".obj", ".ply", ".glb"])
def test_one_shape_comes_back_as_a_mesh(ending, files, tmp_path):
    vcinr_("compress", files[0], tmp_path / "a.zip", "--kind", "shape", "--resolution", SIZE)
    vcinr_("decompress", tmp_path / "a.zip", tmp_path / f"back{ending}")
    triangles, original = (open_dataset(f)["triangles"].values for f in (tmp_path / f"back{ending}", files[0]))
    one = (original.max() - original.min()) / SIZE
    assert abs(triangles.max((0, 1)) - original.max((0, 1))).max() < 2 * one
    assert abs(triangles.min((0, 1)) - original.min((0, 1))).max() < 2 * one


def test_voxels_are_seen_and_a_single_mesh_stays_one(files, tmp_path):
    groups, variables = open_files([str(files[4])])
    assert variables == ["occupancy"] and set(groups[""].variables) >= {"occupancy", "translate", "scale", "name"}
    assert "triangles" in open_files([str(files[0])])[0][""]
    assert open_files([str(files[0])], resolution=8)[0][""]["occupancy"].shape == (1, 8, 8, 8)
    vcinr_("compress", files[4], tmp_path / "a.zip", "--iou", 0.9)
    assert vcinr.verify(tmp_path / "a.zip", files[4])[0] == []


def test_what_is_no_shape_is_refused(files, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 5)))
    with pytest.raises(InputError, match=r"a\.npy: no occupancy"):
        vcinr.compress([files[0], tmp_path / "a.npy"], tmp_path / "a.zip")
    with pytest.raises(InputError, match="kind 'shap' is unknown"):
        vcinr.compress(files, tmp_path / "a.zip", kind="shap")
    assert "--kind shape for a mesh" in error("compress", files[0], tmp_path / "a.zip", "--iou", "0.9")
