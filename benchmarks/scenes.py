"""Scenes as radiance fields beside their views as video: ``python -m benchmarks.scenes [--raw DIR] [--out FILE]``.

Furniture of a Debian package is rendered by Embree (`benchmarks.data.scenes`): 24 views of each object are given, and 8
others judge. A model learns from two libraries; objects of two others are compressed as ``vcinr compress`` does it.
Views are rendered from the archive, as ``vcinr render`` does it. The first row counts every byte of that archive but
the model's, poses and names included; the other rows count the streams of fields and six bytes of a box for each scene.

Beside it stand the white ground, the mean field (all latents zero), the hull of the silhouettes in the mean colour, and
HEVC of the given views as one video of each scene. A video has no other views: at an unseen pose, that of the nearest
camera stands for it. PSNRs are means over views and scenes, with a peak of 255.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import vcinr
from benchmarks.data import scenes as data
from benchmarks.data.packages import FURNITURE
from benchmarks.measure.machine import record
from benchmarks.report import samples
from benchmarks.report.tables import aligned
from benchmarks.rivals.images import from_ycbcr, hevc, hevc_pictures, to_ycbcr
from vcinr.config import preset
from vcinr.datasets.fetch import fetch
from vcinr.formats.write import write_dataset
from vcinr.kinds import KINDS
from vcinr.models import load_model
from vcinr.patches.model import PatchModel
from vcinr.progress import Watch, silent, terminal
from vcinr.scenes import field, fit
from vcinr.scenes.field import Camera, Frame
from vcinr.scenes.fit import Fitted, Views, coded, pace_of, usual_pace
from vcinr.scenes.sets import mean_psnr, rendered
from vcinr.scenes.train import train_scenes

TRAIN = (("Scopia", 36), ("BlendSwap-CC-0", 18), ("BlendSwap-CC-BY", 18))
TEST = (("KatorLegaz", 17), ("Reallusion", 7))
"""Libraries, and how many of their objects are taken."""
HELD_OUT = (("Scopia", 6), ("BlendSwap-CC-0", 3), ("BlendSwap-CC-BY", 3))
"""Others of the libraries that are learned from: the usual rate was chosen for them (``--choose``)."""
TEST_SHARE, HELD_OUT_SHARE = 0.5, 0.7
"""Which of n objects are taken, see `benchmarks.data.scenes.meshes`. While the method was made, the first of n of the
test libraries were looked at. None of them is in the test."""
FINER = (-6, 6)
"""Steps of latents beside that of the archive, as differences from it."""
QPS = (51, 46, 41, 36)
_SEEN = 0.01  # share of the pixels of the given views that an object covers, at least
_FOCAL = data.SIZE / 2 / float(np.tan(data.ANGLE / 2))
CAMERA = Camera(data.SIZE, data.SIZE, _FOCAL, _FOCAL, data.SIZE / 2, data.SIZE / 2)
GIVEN, UNSEEN = data.poses(data.FITTED), data.poses(data.UNSEEN, 0.7)

Row = dict[str, Any]


def rendered_objects(
    raw: Path, libraries: Sequence[tuple[str, int]], share: float = 0.0, watch: Watch = silent
) -> tuple[list[Views], list[np.ndarray]]:
    """The given views of objects, and their views at unseen poses; hardly visible objects are left out."""
    folder = fetch(FURNITURE, raw, watch) / "usr/share/sweethome3d/furniture"
    scenes, unseen = [], []
    for library, limit in libraries:
        for mesh in data.meshes(folder / f"{library}.sh3f", limit, share):
            views = data.render(mesh, np.concatenate([GIVEN, UNSEEN]))
            if fit.silhouettes(views[: data.FITTED]).mean() < _SEEN:
                continue
            scenes.append(Views(views[: data.FITTED], GIVEN, CAMERA, mesh.name.replace("/", "-")))
            unseen.append(views[data.FITTED :])
    return scenes, unseen


def through_archive(scenes: Sequence[Views], model: Path, folder: Path, watch: Watch) -> tuple[Row, np.ndarray]:
    """Compress transforms.json files to an archive, and render it at the unseen poses: bytes, and views."""
    files, camera = [], {key: getattr(CAMERA, key) for key in CAMERA._fields[2:]}
    for views in scenes:
        files.append(folder / views.name / "transforms.json")
        files[-1].parent.mkdir(parents=True)
        dataset = xr.Dataset(
            {"views": (("view", "y", "x", "channel"), views.images, camera)},
            coords={"pose": (("view", "row", "column"), views.poses),
                    "file": ("view", np.array([f"r_{i}.png" for i in range(len(views.images))], object))},
        )  # fmt: skip
        write_dataset(dataset, files[-1])
    archive = folder / "scenes.zip"
    facts = vcinr.compress(files, archive, model=model, watch=watch)
    size = facts["total_bytes"] - sum(facts["models"].values())
    with vcinr.open(archive, decode=False) as opened:
        shown = rendered(opened.load(), str(archive), (CAMERA, UNSEEN, [str(i) for i in range(len(UNSEEN))]))
    in_order = shown.isel(item=np.argsort(np.argsort([v.name for v in scenes])))  # an archive sorts scenes by name
    row = {"bytes": size, "stream_bytes": facts["variables"]["field"]["bytes"]}
    return row, np.asarray(in_order["views"].values)


def fields(scenes: Sequence[Views], found: Sequence[Fitted], cells: np.ndarray, frame: Frame) -> list[np.ndarray]:
    """Views of fields at the unseen poses."""
    return [
        field.views(one, fitted.box, frame, views.camera, UNSEEN)
        for views, fitted, one in zip(scenes, found, cells, strict=True)
    ]


def measure(
    scenes: Sequence[Views], unseen: Sequence[np.ndarray], path: Path, folder: Path, watch: Watch,
    tell: Callable[[str], None],
) -> tuple[list[Row], dict[str, np.ndarray]]:  # fmt: skip
    """Rows of all ways to represent the scenes, and views at unseen poses for pictures."""
    model = load_model(path)
    assert isinstance(model, PatchModel)
    pace, coarse, rate = pace_of(model, str(path))
    frame = fit.frame_of(np.concatenate([views.poses for views in scenes]), CAMERA, "scenes")
    rows: list[Row] = []

    def add(
        name: str, size: float | None, views: Sequence[np.ndarray], given: float | None = None, **more: Any
    ) -> None:
        score = [mean_psnr(true, shown) for true, shown in zip(unseen, views, strict=True)]
        each = None if size is None else size / len(scenes)
        rows.append({"name": name, "bytes_per_scene": each, "psnr_db": float(np.mean(score)), "given_psnr_db": given,
                     "scenes_psnr_db": [round(s, 2) for s in score], **more})  # fmt: skip
        tell(f"{name}: {'' if each is None else f'{each:.0f} bytes, '}{np.mean(score):.2f} dB")

    start = time.perf_counter()
    row, shown = through_archive(scenes, path, folder, watch)
    seconds = (time.perf_counter() - start) / len(scenes)
    add("vcinr, whole archive", row["bytes"], list(shown), rate=rate, encode_s=seconds)
    boxes = 6 * len(scenes)
    add("vcinr, streams", row["stream_bytes"] + boxes, list(shown), rate=rate)
    free = [fit.fit(views, frame, coarse, pace, i) for i, views in enumerate(scenes)]
    add("vcinr, not quantised", None, fields(scenes, free, np.stack([f.cells for f in free]), frame))
    stream, cells = coded(model, np.stack([f.cells for f in free]), rate)
    add("vcinr, not refined", len(stream) + boxes, fields(scenes, free, cells, frame), rate=rate)
    for step in (rate + finer for finer in FINER):
        found = [
            fit.refine(views, f, frame, pace, model, step, i)
            for i, (views, f) in enumerate(zip(scenes, free, strict=True))
        ]
        stream, cells = coded(model, np.stack([f.cells for f in found]), step)
        add("vcinr, streams", len(stream) + boxes, fields(scenes, found, cells, frame), rate=step)
    usual = usual_pace()
    found = [fit.fit(views, frame, coarse, usual, i) for i, views in enumerate(scenes)]
    found = [
        fit.refine(views, f, frame, usual, model, rate, i)
        for i, (views, f) in enumerate(zip(scenes, found, strict=True))
    ]
    stream, cells = coded(model, np.stack([f.cells for f in found]), rate)
    size = len(stream) + boxes
    add("vcinr, step sizes not learned", size, fields(scenes, found, cells, frame), rate=rate)
    mean = np.broadcast_to(np.array(model.provenance["mean"]), cells.shape)
    add("mean field", 6.0 * len(scenes), fields(scenes, free, mean, frame))
    add("white", 0.0, [np.full_like(views, 255) for views in unseen])
    hulls = [fit.start(v, fit.silhouettes(v.images), f.box, frame, coarse) for v, f in zip(scenes, free, strict=True)]
    add("silhouettes, mean colour", None, fields(scenes, free, np.stack(hulls), frame))
    nearest = (UNSEEN[:, None, :3, 2] * GIVEN[None, :, :3, 2]).sum(-1).argmax(1)
    for qp in QPS:
        size, videos = 0, []
        for views in scenes:
            video = hevc(np.stack([to_ycbcr(image) for image in views.images]), qp, "slow", "keyint=48")
            size += len(video)
            videos.append(np.stack([from_ycbcr(planes) for planes in hevc_pictures(video)]))
        given = float(np.mean([mean_psnr(v.images, video) for v, video in zip(scenes, videos, strict=True)]))
        add(f"HEVC, qp {qp}", size, [video[nearest] for video in videos], given)
    return rows, {views.name: shown[i] for i, views in enumerate(scenes)}


def choose(raw: Path, path: Path, tell: Callable[[str], None], rates: Sequence[int] = (36, 39, 42, 45)) -> None:
    """Tell the bytes and PSNRs of held-out scenes of the training libraries at some rates."""
    model = load_model(path)
    assert isinstance(model, PatchModel)
    pace, coarse, _ = pace_of(model, str(path))
    scenes, unseen = rendered_objects(raw, HELD_OUT, HELD_OUT_SHARE)
    frame = fit.frame_of(np.concatenate([views.poses for views in scenes]), CAMERA, "scenes")
    free = [fit.fit(views, frame, coarse, pace, i) for i, views in enumerate(scenes)]
    for rate in rates:
        pairs = zip(scenes, free, strict=True)
        found = [fit.refine(views, f, frame, pace, model, rate, i) for i, (views, f) in enumerate(pairs)]
        stream, cells = coded(model, np.stack([f.cells for f in found]), rate)
        shown = fields(scenes, found, cells, frame)
        score = np.mean([mean_psnr(true, views) for true, views in zip(unseen, shown, strict=True)])
        tell(f"rate {rate}: {len(stream) / len(scenes) + 6:.0f} bytes a scene, {score:.2f} dB")


def picture(out: Path, scenes: Sequence[Views], unseen: Sequence[np.ndarray], shown: dict[str, np.ndarray]) -> None:
    """Unseen views of some objects, what the archive renders there, and the error, as a PNG."""
    columns = []
    for i in np.linspace(0, len(scenes) - 1, 6).astype(int):
        true, ours = unseen[i][2], shown[scenes[i].name][2]
        error = 255 - np.minimum(255, 2 * np.abs(true.astype(np.int64) - ours)).astype(np.uint8)
        columns.append(np.concatenate([true, ours, error]))
    samples.images(out, {f"scene {k + 1}": column for k, column in enumerate(columns)})


def main(arguments: Sequence[str] | None = None) -> int:
    """Render, train, measure, and write results and a picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw", type=Path, default=Path("data/raw"), help="folder of unpacked packages")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/scenes.json"))
    parser.add_argument("--model", type=Path, default=Path("models/scenes.vcinr"), help="the model to write")
    parser.add_argument("--keep", action="store_true", help="take the model that is there, and do not train")
    parser.add_argument("--choose", action="store_true", help="print what held-out scenes take at some rates, no more")
    options = parser.parse_args(arguments)

    def tell(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    tell("rendering")
    if options.choose:
        choose(options.raw, options.model, tell)
        return 0
    scenes, unseen = rendered_objects(options.raw, TEST, TEST_SHARE, terminal)
    if not options.keep:
        learned, _ = rendered_objects(options.raw, TRAIN, 0.0, terminal)
        settings = preset("experts").patches.model_copy(update=dict(KINDS["scenes"].patches))
        options.model.parent.mkdir(parents=True, exist_ok=True)
        train_scenes(learned, settings, seed=0, out=options.model, watch=terminal)
    model = load_model(options.model)
    assert isinstance(model, PatchModel)
    with tempfile.TemporaryDirectory(prefix="scenes-") as folder:
        rows, shown = measure(scenes, unseen, options.model, Path(folder), terminal, tell)
    picture(options.out.parent / "scenes" / "views.png", scenes, unseen, shown)
    about = {
        "train": [name for name, _ in TRAIN], "train_scenes": model.provenance["scenes"],
        "test": [name for name, _ in TEST], "test_scenes": len(scenes),
        "given": data.FITTED, "unseen": data.UNSEEN, "size": data.SIZE,
    }  # fmt: skip
    result = record(data=about, model_bytes=len(model.data), pace=model.provenance["pace"], rows=rows)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    lines = [["what", "bytes a scene", "dB, unseen poses", "dB, given poses"]]
    for row in rows:
        size, given = row["bytes_per_scene"], row["given_psnr_db"]
        cells = [
            "-" if size is None else f"{size:.0f}",
            f"{row['psnr_db']:.2f}",
            "-" if given is None else f"{given:.2f}",
        ]
        lines.append([row["name"], *cells])
    print(aligned(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
