"""The command line: thin wrappers over the Python interface. Every failure is one line and a non-zero exit status."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vcinr.errors import InputError, ModelError, VcinrError, naming
from vcinr.progress import Progress

app = typer.Typer(
    help="Neural compression of scientific arrays with a verified error bound.",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
)  # fmt: skip

Variables = Annotated[
    list[str] | None,
    typer.Option(
        "--var", help="A variable to use; repeat the option for several. Default: all suitable numeric variables."
    ),
]


Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="How many processes work at a time. Default in bulk: one for each core."),
]
EngineName = Annotated[
    str, typer.Option("--engine", help="Who works: processes, threads, serial, dask, or another package's engine.")
]
DaskAddress = Annotated[
    str, typer.Option("--dask", metavar="ADDRESS", help="Work on this Dask cluster, for example tcp://node1:8786.")
]


@app.command()
def train(
    inputs: Annotated[list[str], typer.Argument(help="Files, folders of files or URLs to learn from.")],
    out: Annotated[Path, typer.Option("--out", help="The model file to write, for example t2m.vcinr.")],
    var: Variables = None,
    dims: Annotated[
        str,
        typer.Option(
            "--dims",
            help="Dimensions of one signal, separated by commas. Default: latitude and longitude, else the last two.",
        ),
    ] = "",
    features: Annotated[
        str,
        typer.Option("--features", help="Dimension along which a point has several features, for example component."),
    ] = "",
    system: Annotated[
        Literal["auto", "box", "sphere", "spectral"],
        typer.Option(
            "--system",
            help="How coordinates enter the network. spectral: values on the nodes of a mesh or graph whose edges the "
            "file holds, without positions. Default: auto, by the dimensions.",
        ),
    ] = "auto",
    eigenvectors: Annotated[
        int, typer.Option("--eigenvectors", min=1, help="For --system spectral: the number of eigenvectors.")
    ] = 32,
    kind: Annotated[
        str,
        typer.Option(
            "--kind",
            help="Kind of signal: grid, image, sound, video, volume, shape or scenes. Default: it is seen from the "
            "files.",
        ),
    ] = "",
    method: Annotated[
        str,
        typer.Option(
            "--method",
            help="One of basis, vcinr, coinpp, functa, mscn, coin, gated-basis and experts. Default: experts where "
            "each file is one signal, such as an image, and else basis.",
        ),
    ] = "",
    profile: Annotated[
        str, typer.Option("--profile", help="Size of the method: cpu, or gpu for the published size. Default: cpu.")
    ] = "",
    params: Annotated[
        Path | None,
        typer.Option("--params", help="A params.yaml with all parameters, instead of a method and a profile."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=0, help="Steps of meta-training, instead of the parameters' number.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            "--minutes", min=0.01, help="Time budget in minutes: training ends by then, with the best model so far."
        ),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            "--processes", min=1, help="Processes of this machine that train the network together. Default: 1."
        ),
    ] = None,
) -> None:
    """Train a model and its quantiser on a data set. If interrupted, the same command resumes."""
    try:
        from vcinr import kinds
        from vcinr.meta.ranks import is_first
        from vcinr.training import train as run
        from vcinr.training import usual_params
    except ImportError as error:
        raise InputError(f"training needs the package {error.name}: pip install 'vcinr[train]'") from None
    if params and (method or profile):
        raise InputError(
            f"--params {params}: this file says the method and the profile; leave out --method and --profile"
        )
    chosen = None
    if params:
        chosen = kinds.load(params)
    elif method or profile or steps is not None or minutes is not None or processes is not None:
        chosen = usual_params(inputs, kind or None, method, profile or "cpu")
    if chosen is not None and chosen.method == "experts" and (steps is not None or minutes is not None):
        raise InputError(
            "--steps and --minutes are for networks, and experts are found without; leave them out, or choose another "
            "--method"
        )
    if chosen is not None and steps is not None:
        chosen = chosen.model_copy(update={"meta": chosen.meta.model_copy(update={"steps": steps})})
    if chosen is not None and minutes is not None:
        chosen = chosen.model_copy(update={"minutes": minutes})
    if chosen is not None and processes is not None:
        chosen = chosen.model_copy(update={"processes": processes})
    model = run(
        inputs, out, variables=var or (), signal_dims=[d for d in dims.split(",") if d] or None,
        feature_dim=features or None, system=system, eigenvectors=eigenvectors, kind=kind or None, params=chosen,
        watch=_watch,
    )  # fmt: skip
    if is_first():
        _say(f"{out}: model {model.sha256[:12]}, {len(model.data):,} bytes, for {', '.join(model.normalisation)}")


@app.command()
def compress(
    places: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE... TARGET",
            help="The file or URL to compress, and last the Zarr archive to write: a folder, NAME.zip, or a URL. "
            "Several files, or folders of files, of which each is one signal (images, sounds, ...) share an archive. "
            "In bulk, with a quoted pattern ('in/*.nc'), a TARGET that ends in /, or any of --workers, --engine, "
            "--dask, --part, --concat and --dry-run, each file becomes an archive in the folder TARGET.",
        ),
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            help="The trained model to predict with; or PATTERN=FILE, repeatable, for variables by their names; or a "
            "YAML file of such lines. Default: none, the residual coders work alone.",
        ),
    ] = None,
    abs_error: Annotated[
        float | None, typer.Option("--abs-error", help="Largest error, in the variables' own units.")
    ] = None,
    rel_error: Annotated[
        float | None, typer.Option("--rel-error", help="Largest error, as a fraction of each variable's range.")
    ] = None,
    point_rel_error: Annotated[
        float | None,
        typer.Option("--point-rel-error", help="Largest error, as a fraction of each value's own magnitude."),
    ] = None,
    psnr: Annotated[
        float | None, typer.Option("--psnr", help="A PSNR of at least so many dB; the peak is each variable's range.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", help="At most so many bits per value, in every chunk.")
    ] = None,
    iou: Annotated[
        float | None,
        typer.Option(
            "--iou", help="For shapes, which are 0 or 1 everywhere: a mean IoU of at least so much, for example 0.9."
        ),
    ] = None,
    var: Variables = None,
    chunk: Annotated[
        int | None,
        typer.Option(
            "--chunk", min=1, help="About how many signals a chunk holds. Default: enough for a million values."
        ),
    ] = None,
    kind: Annotated[
        str,
        typer.Option(
            "--kind",
            help="Kind of signal of files of which each is one: image, sound, video, volume or shape. Default: it is "
            "seen from the files. Several meshes, and one with --kind shape, become solid voxels.",
        ),
    ] = "",
    resolution: Annotated[
        int | None,
        typer.Option("--resolution", min=1, max=512, help="Voxels along each axis that meshes become. Default: 64."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing archive of this name.")] = False,
    effort: Annotated[
        Literal["fast", "best"],
        typer.Option("--effort", help="best for the fewest bytes; fast for much less time and more bytes."),
    ] = "best",
    workers: Workers = None,
    engine: EngineName = "",
    dask: DaskAddress = "",
    part: Annotated[
        str,
        typer.Option(
            "--part",
            metavar="I/N",
            help="Do the part I of N, from 1 to N, of a job array; `vcinr commit TARGET` finishes.",
        ),
    ] = "",
    concat: Annotated[
        str, typer.Option("--concat", metavar="DIM", help="Join all files along this dimension to one archive.")
    ] = "",
    memory: Annotated[
        str, typer.Option("--memory", help="What a worker may take at most, for example 1.5GB; more is refused.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Compress a file into an archive, which xarray.open_zarr can open.

    Give at most one kind of bound. Without one, compression is lossless or, with a model, as good as the model alone.
    """
    from vcinr.archive.read import info as describe
    from vcinr.bulk.request import Request, models_of
    from vcinr.bulk.source import is_pattern
    from vcinr.files import compress as run

    if len(places) < 2:
        raise InputError(f"{places[0]}: name the archive to write after it, for example {Path(places[0]).stem}.zip")
    *sources, target = places
    models = models_of(model or [])
    asked = workers is not None or bool(engine or dask or part or concat or memory) or dry_run
    if asked or target.endswith("/") or any(map(is_pattern, sources)):
        request = Request(
            models, abs_error, rel_error, point_rel_error, psnr, rate, iou, tuple(var) if var else None, chunk, effort,
            concat or None, kind or None, resolution,
        )  # fmt: skip
        _compress_in_bulk(
            sources, target, request, overwrite=overwrite, memory=_bytes(memory) if memory else None, dry_run=dry_run,
            part=_part(part) if part else None, engine=lambda: _engine(workers, engine, dask), as_json=as_json,
        )  # fmt: skip
        return
    try:
        run(
            sources, target, model=models, abs_error=abs_error, rel_error=rel_error, point_rel_error=point_rel_error,
            psnr=psnr, rate=rate, iou=iou, variables=var, chunk=chunk, kind=kind or None, resolution=resolution,
            overwrite=overwrite, effort=effort, watch=_watch,
        )  # fmt: skip
    except (InputError, ModelError) as error:
        text = str(error)
        known = text.startswith((target, *sources, *([models] if isinstance(models, str) else (models or {}).values())))
        raise type(error)(text if known else f"{sources[0]}: {text}") from None
    facts = describe(target)
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    _table(facts)
    for name, variable in facts["variables"].items():
        if model and variable["model"] is None and variable["bound"]["kind"] != "lossless":
            _say(f"{name}: coded without the model, which is of other signals")


def _compress_in_bulk(
    sources: list[str], target: str, request: Any, *, overwrite: bool, memory: int | None, dry_run: bool,
    part: tuple[int, int] | None, engine: Callable[[], Any], as_json: bool,
) -> None:  # fmt: skip
    """Compress files to an archive each, or joined to one; show the plan alone where this is a dry run."""
    from vcinr.bulk.drive import drive
    from vcinr.bulk.estimate import estimate, table
    from vcinr.bulk.plan import plan

    made = plan(sources, target, request, overwrite=overwrite, memory=memory)
    if dry_run:
        print(json.dumps(estimate(made), indent=2) if as_json else table(made), flush=True)
        if made.failed:
            raise typer.Exit(1)
        return
    outcome = drive(made, engine(), part=part, watch=_watch)
    _outcome(outcome, as_json)
    if part is not None and outcome.place is not None and not outcome.failed:
        _say(f"{target}: part {part[0] + 1} of {part[1]} has nothing left to do; vcinr commit {target} finishes")


@app.command()
def commit(
    target: Annotated[str, typer.Argument(help="The TARGET that the parts of vcinr compress were given.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Make the archives of vcinr compress --part, once all parts are done. What is missing is named."""
    from vcinr.bulk.drive import commit as run

    _outcome(run(target, _watch), as_json)


def _outcome(outcome: Any, as_json: bool) -> None:
    """Print what a bulk run has come to; the exit status is 1 where an input has failed."""
    import numpy as np

    if as_json:
        node = {"archives": outcome.archives, "failed": outcome.failed, "place": outcome.place}
        print(json.dumps(node, indent=2), flush=True)
    else:
        for place, facts in outcome.archives.items():
            values = sum(v["values"] * np.dtype(v["dtype"]).itemsize for v in facts["variables"].values())
            stored = sum(v["bytes"] for v in facts["variables"].values())
            said = "there already, and sound" if facts.get("skipped") else f"ratio {values / max(1, stored):.1f}"
            _say(f"{place}: {facts['total_bytes']:,} bytes, {said}")
    for name, problem in outcome.failed.items():
        print(f"vcinr: {naming(name, problem)}", file=sys.stderr)
    if outcome.failed:
        kept = f"; what is finished is kept in {outcome.place}, and the same command goes on from there"
        count = len(outcome.failed) + len(outcome.archives)
        print(f"vcinr: {len(outcome.failed)} of {count} inputs failed{kept}", file=sys.stderr)
        raise typer.Exit(1)


def _engine(workers: int | None, name: str, address: str) -> Any:
    """The engine that the options ask for."""
    from vcinr.bulk.engines import engine_of

    return engine_of(name or ("dask" if address else "processes"), workers=workers, address=address or None)


def _part(text: str) -> tuple[int, int]:
    """Number, from 0, and count of a part."""
    number, _, count = text.partition("/")
    try:
        i, n = int(number), int(count)
    except ValueError:
        i = n = 0
    if not 1 <= i <= n:
        raise InputError(f"--part {text}: give number and count, for example 3/8; the first part is 1/8")
    return i - 1, n


def _bytes(text: str) -> int:
    """A number of bytes, such as 800MB, 1.5GiB or 2e9."""
    units = {"": 1, "b": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([kmg]i?)?b?\s*", text.lower())
    try:
        return int(float(match[1]) * units[match[2] or ""]) if match else int("")
    except ValueError:
        raise InputError(f"--memory {text}: give a number of bytes, for example 800MB or 1.5GB") from None


@app.command()
def decompress(
    archive: Annotated[
        str,
        typer.Argument(
            help="The archive to read: a folder, a .zip file or a URL; or many, by a quoted pattern or their folder."
        ),
    ],
    target: Annotated[
        Path,
        typer.Argument(
            help="The netCDF file to write; of images, sounds, shapes and the like the folder, or the one file; of "
            "many archives the folder."
        ),
    ],
    workers: Workers = None,
    engine: EngineName = "",
    dask: DaskAddress = "",
) -> None:
    """Write the contents of an archive to a netCDF file, and signals such as images to files of their usual formats."""
    from vcinr.bulk import check
    from vcinr.files import decompress as run

    if not check.is_archive(archive):
        failed = 0
        for file, problem in check.decompress_all(
            archive, target, _engine(workers, engine, dask), watch=_watch
        ).items():
            failed += problem is not None
            if problem is None:
                _say(f"{file}: {Path(file).stat().st_size:,} bytes")
            else:
                print(f"vcinr: {problem}", file=sys.stderr)
        if failed:
            raise typer.Exit(1)
        return
    if (workers is not None or engine or dask) and target.suffix in (".nc", ".nc4"):
        check.decompress(archive, target, _engine(workers, engine, dask), watch=_watch)
        _say(f"{target}: {target.stat().st_size:,} bytes")
        return
    written = run(archive, target)
    if written == [target]:
        _say(f"{target}: {target.stat().st_size:,} bytes")
    else:
        _say(f"{target}: {len(written)} files")


@app.command()
def render(
    archive: Annotated[str, typer.Argument(help="The archive of scenes: a folder, a .zip file or a URL.")],
    target: Annotated[Path, typer.Argument(help="The folder to write; each scene has a folder in it.")],
    poses: Annotated[Path, typer.Option("--poses", help="A transforms.json with the poses; it needs no images.")],
) -> None:
    """Render the scenes of an archive at any poses, as PNG files beside a transforms.json."""
    from vcinr.files import render as run

    written = run(archive, target, poses)
    _say(f"{target}: {len(written)} scenes")


@app.command()
def verify(
    archive: Annotated[
        str,
        typer.Argument(
            help="The archive to check: a folder, a .zip file or a URL; or many, by a quoted pattern or their folder."
        ),
    ],
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against",
            help="The original file or URL, or a folder of files, to check every bound against it; repeatable. Of many "
            "archives, what vcinr compress was given as SOURCE, for example 'in/*.nc'.",
        ),
    ] = None,
    concat: Annotated[
        str, typer.Option("--concat", metavar="DIM", help="The originals were joined along this dimension.")
    ] = "",
    delete_originals: Annotated[
        bool,
        typer.Option(
            "--delete-originals",
            help="Remove each original once its whole archive was read back and every bound was kept.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --delete-originals: verify and list, but remove nothing.")
    ] = False,
    workers: Workers = None,
    engine: EngineName = "",
    dask: DaskAddress = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Decode every chunk. The exit status is 0 only if all is sound and, with --against, every bound holds.

    Of images, sounds and the like, --against also shows the largest error and the PSNR of each file. The peak is the
    largest number of an unsigned integer's bits (255, 65535), for sound full scale, and else the range of the data.
    """
    from vcinr.archive.verify import whole
    from vcinr.bulk import check
    from vcinr.files import verify as run

    if delete_originals and not against:
        raise InputError("--delete-originals: name the originals with --against; none is removed unread")
    if dry_run and not delete_originals:
        raise InputError("--dry-run: goes with --delete-originals; verifying changes nothing")
    asked = workers is not None or bool(engine or dask or concat) or delete_originals
    if asked or not check.is_archive(archive):
        _verify_in_bulk(archive, against, concat, _engine(workers, engine, dask), delete_originals, dry_run, as_json)
        return
    problems, facts = run(archive, against or None, watch=_watch)
    total = {} if problems else whole(archive, facts)
    if as_json:
        print(json.dumps({"archive": archive, "problems": problems, "variables": facts, "whole": total}, indent=2))
    for problem in problems:
        print(f"vcinr: {problem}", file=sys.stderr)
    if problems:
        print(
            f"vcinr: {archive}: {len(problems)} problem(s); restore the archive from a sound copy",
            file=sys.stderr,
        )
        raise typer.Exit(1)
    if as_json:
        return
    for name, fact in facts.items():
        error = fact["max_abs_error"]
        said = "" if error is None else f", largest error {error:g}"
        if "mean_iou" in fact and error:
            said = f", mean IoU {fact['mean_iou']:.4f}, lowest {fact['lowest_iou']:.4f}"
        _say(f"{name}: {fact['chunks']} chunks sound{said}")
    signals = [signal for fact in facts.values() for signal in fact.get("signals", ())]
    for signal in sorted(signals, key=lambda signal: signal["name"]):
        _say(f"{signal['name']}: {_quality(signal)}")
    _say(f"{archive}: verified" + (f" against {', '.join(against)}" if against else ""))
    if total:
        peak = "" if total["psnr_db"] is None else f" (peak {total['peak_is']})"
        _say(
            f"{archive}: {total['signals']} signals, {_quality(total)}{peak}, "
            f"{total['bits_per_value']:.4f} bits per value of the whole archive without its model"
        )


def _verify_in_bulk(
    archives: str, against: list[str] | None, concat: str, engine: Any, delete: bool, dry_run: bool, as_json: bool
) -> None:
    """Verify archives on an engine and, where it was asked for, remove the originals of those that are sound."""
    from vcinr.bulk import check

    every = check.pairs(archives, against, concat or None)
    originals = {pair.archive: pair for pair in every}
    found, failed = {}, 0
    for verdict in check.verify(every, engine, concat=concat or None, watch=_watch):
        found[verdict.archive] = {"problems": verdict.problems, "variables": verdict.facts}
        failed += bool(verdict.problems)
        for problem in verdict.problems:
            print(f"vcinr: {verdict.archive}: {problem}", file=sys.stderr)
        if not verdict.problems and not as_json:
            errors = [f["max_abs_error"] for f in verdict.facts.values() if f["max_abs_error"] is not None]
            largest = f", largest error {max(errors):g}" if errors else ""
            _say(f"{verdict.archive}: verified, {sum(f['chunks'] for f in verdict.facts.values())} chunks{largest}")
        if delete:
            pair = originals[verdict.archive]
            reason = check.removable(pair, verdict)
            name = pair.source.name if pair.source is not None else verdict.archive
            if reason is not None:
                print(f"vcinr: {name}: is kept, {reason}", file=sys.stderr)
            elif dry_run:
                _say(f"{name}: would be removed")
            else:
                check.remove_original(pair)
                _say(f"{name}: removed")
            found[verdict.archive]["original"] = {
                "name": name,
                "kept": reason,
                "removed": reason is None and not dry_run,
            }
    if as_json:
        print(json.dumps(found, indent=2), flush=True)
    if failed:
        print(f"vcinr: {failed} of {len(found)} archives have problems", file=sys.stderr)
        raise typer.Exit(1)


@app.command()
def info(
    archive: Annotated[str, typer.Argument(help="The archive to describe: a folder, a .zip file or a URL.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Show variables, bounds, largest errors, compression ratios with and without the model, and hashes."""
    from vcinr.archive.read import info as run

    facts = run(archive)
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        _table(facts)


@app.command()
def at(
    archive: Annotated[str, typer.Argument(help="The archive to read: a folder, a .zip file or a URL.")],
    lat: Annotated[float | None, typer.Option("--lat", help="Latitude, in degrees.")] = None,
    lon: Annotated[float | None, typer.Option("--lon", help="Longitude, in degrees.")] = None,
    places: Annotated[
        list[str] | None,
        typer.Option("--at", help="Coordinate of another dimension, as NAME=VALUE, for example level=500; repeatable."),
    ] = None,
    var: Variables = None,
) -> None:
    """Print an archive's values at one place between its samples, with their uncertainty, as CSV."""
    from vcinr.archive.at import at as run

    wanted = {k: v for k, v in (("lat", lat), ("lon", lon)) if v is not None}
    for text in places or ():
        name, _, number = text.partition("=")
        try:
            wanted[name] = float(number)
        except ValueError:
            raise InputError(f"--at {text}: give a dimension and a number, for example level=500") from None
    found = run(archive, wanted, variables=var)
    table = found.to_dataframe() if found.sizes else found.expand_dims("place").to_dataframe()
    print(table.to_csv(index=bool(found.sizes)), end="")


@app.command()
def regrid(
    archive: Annotated[str, typer.Argument(help="The archive to read: a folder, a .zip file or a URL.")],
    target: Annotated[Path, typer.Argument(help="The netCDF file to write.")],
    like: Annotated[str, typer.Option("--like", help="File or URL that has the grid to take.")],
    var: Variables = None,
) -> None:
    """Write an archive's variables on the grid of another file, with their uncertainty."""
    from vcinr.archive.at import regrid as run
    from vcinr.formats.open import open_dataset
    from vcinr.places import written_aside

    if target.exists():
        raise InputError(f"{target}: exists already; choose another name or remove it")
    found = run(archive, open_dataset(like, decode=True), variables=var)
    with written_aside(target) as aside:
        found.to_netcdf(aside)
    _say(f"{target}: {target.stat().st_size:,} bytes")


def _quality(seen: dict[str, Any]) -> str:
    """The largest error and the PSNR of a signal, or of all."""
    if not seen["max_abs_error"]:
        return "exact"
    if "iou" in seen:
        return f"IoU {seen['iou']:.4f}"
    psnr = "" if seen["psnr_db"] is None else f", {seen['psnr_db']:.2f} dB"
    return f"largest error {seen['max_abs_error']:g}{psnr}"


def _say(text: str) -> None:
    """Print a line to standard output at once."""
    print(text, flush=True)


def _watch(progress: Progress) -> None:
    """Show progress: on a terminal as a line that overwrites itself, elsewhere as plain lines."""
    if sys.stderr.isatty():
        end = "\n" if progress.step >= progress.total else ""
        print(f"\r\033[K{progress}", end=end, file=sys.stderr, flush=True)
    elif progress.step >= progress.total or progress.stage.startswith(("meta", "quant")):
        print(progress, file=sys.stderr, flush=True)


def _table(facts: dict[str, Any]) -> None:
    """Print what `vcinr.archive.read.info` says."""
    for name, v in facts["variables"].items():
        bound = v["bound"]
        promise = bound["kind"] if bound["value"] is None else f"{bound['kind']} {bound['value']:g}"
        psnr = "" if v["psnr_db"] is None else f"  {v['psnr_db']:.2f} dB"
        if v["iou"] is not None:
            psnr = f"  mean IoU {v['iou']:.4f}, lowest {v['lowest_iou']:.4f}"
        with_model = f" (with the model {v['bits_per_value_with_model']:.4f})" if v["model"] else ""
        _say(
            f"{name}: {v['values']:,} values in {v['bytes']:,} bytes, {v['bits_per_value']:.4f} bits per value"
            f"{with_model}, ratio {v['ratio']:.1f}, bound {promise}, largest error {v['max_abs_error']:g}{psnr}"
        )
        if v["note"]:
            _say(f"{name}: {v['note']}")
    for name, note in facts["kept"].items():
        if note:
            _say(f"{name}: {note}")
    _say(f"kept losslessly: {', '.join(n for n, note in facts['kept'].items() if not note) or 'nothing else'}")
    model = facts["model"]
    if model["sha256"]:
        _say(f"model {model['sha256']}, {model['bytes']:,} bytes")
    _say(f"{facts['archive']}: {facts['total_bytes']:,} bytes in all")


@app.command()
def warm_up() -> None:
    """Compile the coder for this processor now. Otherwise the first command that needs it takes about 20 s longer."""
    from vcinr.warm_up import warm_up as run

    run(_watch)


def main() -> None:
    """Entry point of the console script."""
    logging.basicConfig(format="vcinr: %(message)s", level=logging.WARNING)  # on standard error
    logging.getLogger("vcinr").setLevel(logging.INFO)
    try:
        app(standalone_mode=True)
    except VcinrError as error:
        print(f"vcinr: {error}", file=sys.stderr)
        sys.exit(1)
    except MemoryError:
        print("vcinr: not enough memory; use smaller chunks (--chunk), or a machine with more memory", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        os._exit(1)
    except KeyboardInterrupt:
        print("vcinr: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
