"""Scenes: the renderer and its gradient, poses, the inner loop, and archives of fields by the command line."""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

import vcinr
from benchmarks.data import scenes as furniture
from vcinr.cli import app
from vcinr.config import Patches
from vcinr.errors import CorruptError, InputError
from vcinr.formats.base import KIND_OF_SIGNAL
from vcinr.formats.write import write_dataset
from vcinr.models import load_model
from vcinr.scenes import field, fit, kernels, sets
from vcinr.scenes.field import Camera, Frame
from vcinr.scenes.fit import pace_of
from vcinr.scenes.train import mirror_images, train_scenes

SIZE = 24
CAMERA = Camera(SIZE, SIZE, 30.0, 30.0, SIZE / 2, SIZE / 2)
FRAME = Frame((-1.0, -1.0, -1.0), 2.0)
WHOLE = np.array([0, 0, 0, 255, 255, 255], np.uint8)
SETTINGS = Patches(size=(2, 2, 2), back=(1, 1, 1), ahead=(0, 1, 1), experts=2, rounds=2, count=4000, psnr=27.0)
COARSE = 6


def look(angle: float, height: float = 0.5, distance: float = 4.0) -> np.ndarray:
    """The pose of a camera that looks at the origin."""
    flat = math.sqrt(1 - height * height)
    back = np.array([flat * math.cos(angle), flat * math.sin(angle), height])
    right = np.array([-math.sin(angle), math.cos(angle), 0.0])
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(back, right), back, distance * back], 1)
    return pose


def ball(radius: float = 0.6, colour: tuple[float, float, float] = (0.8, 0.2, 0.1), coarse: int = COARSE) -> np.ndarray:
    """The field of a ball around the origin, in the box WHOLE."""
    vertices = field.FINE * coarse
    axis = np.linspace(-1, 1, vertices)
    distance = np.sqrt(sum(a * a for a in np.meshgrid(axis, axis, axis, indexing="ij")))
    levels = np.clip((radius - distance) / (axis[1] - axis[0]), -1, 1)
    return field.joined(levels, np.broadcast_to(np.array(colour), (coarse, coarse, coarse, 3)))


POSES = np.stack([look(a, h) for a, h in zip(np.arange(8) * 2.4, np.linspace(0.1, 0.8, 8), strict=True)])


def scene(radius: float, colour: tuple[float, float, float]) -> fit.Views:
    images = field.views(ball(radius, colour), WHOLE, FRAME, CAMERA, POSES)
    return fit.Views(images, POSES, CAMERA, "scene")


@pytest.fixture(scope="module")
def scenes() -> list[fit.Views]:
    colours = [(0.8, 0.2, 0.1), (0.1, 0.3, 0.8), (0.2, 0.7, 0.2), (0.5, 0.5, 0.5)]
    return [scene(0.4 + 0.1 * i, colour) for i, colour in enumerate(colours)]


@pytest.fixture(scope="module")
def trained(scenes: list[fit.Views], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scenes") / "s.vcinr"
    facts = train_scenes(scenes, SETTINGS, seed=0, out=out, coarse=COARSE, pace=fit.usual_pace(12, 6))
    assert facts["model_bytes"] == out.stat().st_size
    return out


def folder_of(views: fit.Views, folder: Path) -> Path:
    """A transforms.json with its images."""
    folder.mkdir(parents=True)
    attrs = {key: getattr(views.camera, key) for key in ("fl_x", "fl_y", "cx", "cy")}
    files = np.array([f"r_{i}.png" for i in range(len(views.images))], object)
    dataset = xr.Dataset(
        {"views": (("view", "y", "x", "channel"), views.images, attrs)},
        coords={"pose": (("view", "row", "column"), views.poses), "file": ("view", files)},
    )
    write_dataset(dataset, folder / "transforms.json")
    return folder / "transforms.json"


def seen(grid: np.ndarray, origins: np.ndarray, rays: np.ndarray) -> np.ndarray:
    out = np.empty((len(rays), 4))
    kernels.render(grid, field.empty_cells(grid), origins, rays, out, np.empty(8))
    return out


# --- Renderer -------------------------------------------------------------------------------------------------------


def test_weights_and_transmittance_sum_to_one() -> None:
    """A white object on the white ground cannot be seen, whatever its opacity."""
    grid = np.random.default_rng(0).uniform(-0.5, 0.5, (5, 6, 7, 4))
    grid[..., 1:] = 1.0
    rng = np.random.default_rng(1)
    origins = np.array([2.0, 2.5, 3.0]) + rng.normal(0, 1, (50, 3)) * 0.5 - 10 * np.array([1.0, 0, 0])
    rays = np.repeat([[1.0, 0.0, 0.0]], 50, 0)
    out = seen(grid, origins, rays)
    np.testing.assert_allclose(out[:, :3], 1.0, atol=1e-12)
    assert (out[:, 3] < 0.9).any()


def test_an_opaque_field_shows_its_colour_and_rays_beside_it_the_ground() -> None:
    grid = np.ones((4, 4, 4, 4))
    grid[..., 1:] = [0.1, 0.2, 0.3]
    rays = np.array([[0.0, 0.0, -1.0]] * 2)
    out = seen(grid, np.array([[1.5, 1.5, 9.0], [5.0, 1.5, 9.0]]), rays)
    np.testing.assert_allclose(out, [[0.1, 0.2, 0.3, 0.0], [1, 1, 1, 1]], atol=1e-12)


def test_empty_cells_change_nothing() -> None:
    grid = field.grid_of(ball())
    empty = field.empty_cells(grid)
    assert 0 < empty.mean() < 1
    origins, rays = field.within(*field.rays_of(CAMERA, POSES[0]), *field.box_of(WHOLE, FRAME), len(grid))
    whole = np.empty((len(rays), 4))
    kernels.render(grid, np.zeros_like(empty), origins, rays, whole, np.empty(8))
    np.testing.assert_array_equal(seen(grid, origins, rays), whole)


def test_the_gradient_is_that_of_the_views() -> None:
    rng = np.random.default_rng(2)
    cells = np.concatenate([rng.uniform(-0.2, 0.2, (3, 3, 3, 8)), rng.uniform(0, 1, (3, 3, 3, 3))], -1)
    views = fit.Views(rng.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8), POSES[:2],
                      Camera(8, 8, 12.0, 12.0, 4.0, 4.0), "v")  # fmt: skip
    rays = fit.Rays(views, WHOLE, FRAME, 6)
    chosen = np.arange(128)
    slope = rays.gradient(cells, chosen)[1]
    for where in [tuple(rng.integers(0, n) for n in cells.shape) for _ in range(20)]:
        errors = []
        for change in (1e-5, -1e-5):
            moved = cells.copy()
            moved[where] += change
            errors.append(rays.gradient(moved, chosen)[0])
        np.testing.assert_allclose(slope[where], 3 * (errors[0] - errors[1]) / 2e-5, rtol=1e-3, atol=1e-7)


def test_poses_are_those_of_nerf() -> None:
    """The camera looks along its own -z, with x to the right and y up."""
    pose = np.eye(4)
    pose[:3, 3] = [0, 0, 5]
    small = np.full((COARSE, COARSE, COARSE, field.FEATURES), -1.0)
    small[-1, 0, 2, : field.LEVELS] = 1.0  # x high, y low
    image = field.views(small, WHOLE, FRAME, CAMERA, [pose])[0]
    row, column = np.argwhere(image.min(-1) < 128).mean(0)
    assert column > SIZE / 2 and row > SIZE / 2


def test_layouts_are_inverse() -> None:
    rng = np.random.default_rng(3)
    cells = rng.normal(size=(3, 3, 3, field.FEATURES))
    np.testing.assert_array_equal(field.joined(*field.split(cells)), cells)
    colours, slope = rng.normal(size=(3, 3, 3, 3)), rng.normal(size=(6, 6, 6, 3))
    np.testing.assert_allclose(
        (field.spread(colours, 6) * slope).sum(), (colours * field.gathered(slope, 3)).sum(), rtol=1e-12
    )
    levels, turned = field.split(cells)[0], mirror_images(cells)
    np.testing.assert_array_equal(field.split(turned[1])[0], levels[::-1])
    np.testing.assert_array_equal(field.split(turned[2])[0], levels[:, ::-1])
    np.testing.assert_array_equal(field.split(turned[4])[0], levels.swapaxes(0, 1))


# --- Inner loop -----------------------------------------------------------------------------------------------------


def test_silhouettes_give_box_and_start_and_descent_finds_the_field(scenes: list[fit.Views]) -> None:
    views = scenes[2]
    masks = fit.silhouettes(views.images)
    box = fit.box_around(views, masks, FRAME)
    low, high = field.box_of(box, FRAME)
    assert (low < -0.55).all() and (high > 0.55).all() and (high - low < 1.9).all()
    other = np.stack([look(a, 0.3) for a in (0.5, 1.9, 4.0)])
    target = field.views(ball(0.6, (0.2, 0.7, 0.2)), WHOLE, FRAME, CAMERA, other)
    first = fit.start(views, masks, box, FRAME, COARSE)
    fitted = fit.fit(views, FRAME, COARSE, fit.usual_pace(25, 0))
    before, after = (
        sets.mean_psnr(target, field.views(cells, box, FRAME, CAMERA, other)) for cells in (first, fitted.cells)
    )
    assert after > before + 2 and after > 26
    assert fitted.agreement["descent"].shape == (25, 2) and np.abs(fitted.agreement["descent"]).max() <= 1


def test_the_frame_holds_what_cameras_look_at() -> None:
    frame = fit.frame_of(POSES, CAMERA, "s")
    np.testing.assert_allclose(np.array(frame.corner) + frame.side / 2, 0, atol=1e-9)
    assert 1 < frame.side / 2 < 4 * SIZE / 2 / 30
    with pytest.raises(InputError, match="look in one direction"):
        fit.frame_of(np.stack([look(0.3)] * 3), CAMERA, "s")
    away = POSES.copy()
    away[:, :3, 2] *= -1
    with pytest.raises(InputError, match="look away from each other"):
        fit.frame_of(away, CAMERA, "s")


def test_step_sizes_are_learned_and_refinement_helps(trained: Path, scenes: list[fit.Views]) -> None:
    model = load_model(trained)
    assert isinstance(model, vcinr.PatchModel)
    pace, coarse, _ = pace_of(model, "m")
    assert coarse == COARSE and (pace.descent != fit.usual_pace(12, 6).descent).any()
    frame = fit.frame_of(POSES, CAMERA, "s")
    free = fit.fit(scenes[1], frame, coarse, pace)
    longer = pace._replace(refinement=np.repeat(pace.refinement, 3, 0))
    refined = fit.refine(scenes[1], free, frame, longer, model, 40)
    scores = []
    for fitted in (free, refined):
        decoded = fit.coded(model, fitted.cells[None], 40)[1][0]
        scores.append(sets.mean_psnr(scenes[1].images, field.views(decoded, fitted.box, frame, CAMERA, POSES)))
    assert scores[1] > scores[0]


def test_a_model_of_other_data_is_refused(trained: Path) -> None:
    model = load_model(trained)
    model.provenance.pop("pace")  # type: ignore[union-attr, attr-defined]
    with pytest.raises(InputError, match=r"m: a model that was not trained on scenes"):
        pace_of(model, "m")  # type: ignore[arg-type]


# --- Files ----------------------------------------------------------------------------------------------------------


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_views_of_a_transforms_json_are_composited_on_white(tmp_path: Path) -> None:
    from PIL import Image

    clear = np.zeros((4, 6, 4), np.uint8)
    clear[1, 2] = [255, 0, 0, 255]
    (tmp_path / "train").mkdir()
    Image.fromarray(clear).save(tmp_path / "train" / "r_0.png")
    text = {"camera_angle_x": 0.7, "frames": [{"file_path": "./train/r_0", "transform_matrix": look(0.1).tolist()}]}
    (tmp_path / "transforms.json").write_text(json.dumps(text))
    dataset = vcinr.open_dataset(tmp_path)
    assert dataset["views"].dtype == np.uint8
    assert dataset["views"].values[0, 1, 2].tolist() == [255, 0, 0] and (dataset["views"].values[0, 0] == 255).all()
    assert dataset["views"].attrs["fl_x"] == pytest.approx(3 / math.tan(0.35))
    for change, message in (
        ({"frames": []}, "no frames"),
        ({"frames": [{"file_path": "train/r_0"}]}, "needs a transform_matrix"),
        ({"frames": [{"file_path": "no", "transform_matrix": look(0.1).tolist()}]}, "'no' does not exist"),
        ({"frames": [{"file_path": "train/r_0", "transform_matrix": (2 * look(0.1)).tolist()}]}, "no rotation"),
        ({"camera_angle_x": "wide"}, "no camera_angle_x"),
    ):
        (tmp_path / "transforms.json").write_text(json.dumps({**text, **change}))
        with pytest.raises(InputError, match=message):
            vcinr.open_dataset(tmp_path / "transforms.json")


def test_scenes_go_through_the_command_line(trained: Path, scenes: list[fit.Views], tmp_path: Path) -> None:
    files = [folder_of(views, tmp_path / "in" / name) for name, views in zip("ab", scenes, strict=False)]
    archive = tmp_path / "scenes.zip"
    run("compress", *files, archive, "--model", trained)
    run("verify", archive)
    assert "field" in run("info", archive)
    run("decompress", archive, tmp_path / "back")
    for name, views in zip("ab", scenes, strict=False):
        back = vcinr.open_dataset(tmp_path / "back" / name / "transforms.json")
        np.testing.assert_array_equal(back["pose"], POSES)
        assert back["views"].shape == views.images.shape
        assert sets.mean_psnr(views.images, back["views"].values) > 18
    poses = {"frames": [{"transform_matrix": look(0.2).tolist()}], "camera_angle_x": 0.7, "w": 10, "h": 8}
    (tmp_path / "poses.json").write_text(json.dumps(poses))
    run("render", archive, tmp_path / "new", "--poses", tmp_path / "poses.json")
    assert vcinr.open_dataset(tmp_path / "new" / "b" / "transforms.json")["views"].shape == (1, 8, 10, 3)
    fine = tmp_path / "fine.zip"
    run("compress", *files, fine, "--model", trained, "--psnr", "24")
    shown = sets.rendered(vcinr.open(fine, decode=False).load(), "fine")
    assert np.mean([sets.mean_psnr(v.images, s) for v, s in zip(scenes, shown["views"].values, strict=False)]) > 23.5
    with pytest.raises(InputError, match="whose views have no bound"):
        vcinr.verify(archive, files)
    with pytest.raises(InputError, match="rel_error: views that a model renders keep no such bound"):
        vcinr.compress(files, tmp_path / "no.zip", model=trained, rel_error=0.1)
    with pytest.raises(InputError, match="dB with this model, not 90"):
        vcinr.compress(files, tmp_path / "no.zip", model=trained, psnr=90)
    with pytest.raises(InputError, match="two scenes are called a"):
        vcinr.compress([files[0], files[0]], tmp_path / "no.zip", model=trained)
    with pytest.raises(InputError, match="the data are none"):
        vcinr.compress(np.zeros((2, 8, 8), np.float32), tmp_path / "no.zip", model=trained)


def test_without_a_model_views_come_back_exactly(scenes: list[fit.Views], tmp_path: Path) -> None:
    file = folder_of(scenes[0], tmp_path / "in" / "a")
    vcinr.compress([file], tmp_path / "exact.zip")
    vcinr.decompress(tmp_path / "exact.zip", tmp_path / "back")
    back = vcinr.open_dataset(tmp_path / "back" / "a")
    np.testing.assert_array_equal(back["views"], scenes[0].images)
    with pytest.raises(InputError, match="no scenes that can be rendered"):
        vcinr.render(tmp_path / "exact.zip", tmp_path / "new", file)


def test_training_by_the_command_line(scenes: list[fit.Views], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vcinr.scenes.train.usual_pace", lambda: fit.usual_pace(2, 1))
    files = [folder_of(views, tmp_path / str(i)) for i, views in enumerate(scenes[:2])]
    run("train", *files, "--kind", "scenes", "--out", tmp_path / "s.vcinr")
    assert pace_of(load_model(tmp_path / "s.vcinr"), "m")[0].descent.shape == (2, 2)  # type: ignore[arg-type]


def test_a_malformed_field_is_refused() -> None:
    dataset = xr.Dataset({"field": (("item", "x", "y", "z", "feature"), np.zeros((1, 2, 2, 2, 11)))},
                         attrs={KIND_OF_SIGNAL: "scenes"})  # fmt: skip
    with pytest.raises(CorruptError, match="no fields of scenes that can be rendered"):
        sets.rendered(dataset, "a.zip")


# --- Data of the benchmark ------------------------------------------------------------------------------------------


def test_meshes_have_the_colours_of_their_materials(tmp_path: Path) -> None:
    library = tmp_path / "library.sh3f"
    with zipfile.ZipFile(library, "w") as archive:
        archive.writestr("PluginFurnitureCatalog.properties", "name#1=Box\nmodel#1=/lib/box.obj\n")
        archive.writestr("lib/box.mtl", "newmtl a\nKd 1 0 0\nnewmtl b\nKd 0 0 1\n")
        archive.writestr(
            "lib/box.obj",
            "mtllib box.mtl\nv -1 0 0\nv 1 0 0\nv 1 2 0\nv -1 2 0\nusemtl a\nf 1 2 3 4\nusemtl b\nf 1/1 3/1 -1/1\n"
            "usemtl other\nf 1 2 3\n",
        )
    (mesh,) = furniture.meshes(library)
    np.testing.assert_array_equal(mesh.colours, [[1, 0, 0], [1, 0, 0], [0, 0, 1], [0.7, 0.7, 0.7]])
    np.testing.assert_allclose(np.linalg.norm(mesh.triangles, axis=-1).max(), 0.5)
    assert np.ptp(mesh.triangles[..., 2]) > 0.5 > np.ptp(mesh.triangles[..., 1]) == 0  # z is up
    pytest.importorskip("embreex")
    views = furniture.render(mesh, furniture.poses(3))
    assert views.shape == (3, furniture.SIZE, furniture.SIZE, 3) and 0.02 < fit.silhouettes(views).mean() < 0.9


def test_cameras_look_at_the_origin() -> None:
    poses = furniture.poses(24)
    np.testing.assert_allclose(poses[:, :3, :3] @ poses[:, :3, :3].transpose(0, 2, 1), np.eye(3) + np.zeros((24, 1, 1)),
                               atol=1e-12)  # fmt: skip
    np.testing.assert_allclose(poses[:, :3, 3], furniture.DISTANCE * poses[:, :3, 2])
    assert (np.linalg.det(poses[:, :3, :3]) > 0).all() and (poses[:, 2, 1] > 0).all()
