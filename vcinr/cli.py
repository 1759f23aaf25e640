"""The command line: thin wrappers over the Python interface. Every failure is one line and a non-zero exit status."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vcinr.errors import InputError, ModelError, VcinrError
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
            "Several files, or folders of files, of which each is one signal (images, sounds, ...) share an archive.",
        ),
    ],
    model: Annotated[
        Path | None,
        typer.Option(
            "--model", help="The trained model to predict with. Default: none, the residual coders work alone."
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
) -> None:
    """Compress a file into an archive, which xarray.open_zarr can open.

    Give at most one kind of bound. Without one, compression is lossless or, with a model, as good as the model alone.
    """
    from vcinr.archive.read import info as describe
    from vcinr.files import compress as run

    if len(places) < 2:
        raise InputError(f"{places[0]}: name the archive to write after it, for example {Path(places[0]).stem}.zip")
    *sources, target = places
    try:
        run(
            sources, target, model=model, abs_error=abs_error, rel_error=rel_error, point_rel_error=point_rel_error,
            psnr=psnr, rate=rate, iou=iou, variables=var, chunk=chunk, kind=kind or None, resolution=resolution,
            overwrite=overwrite, effort=effort, watch=_watch,
        )  # fmt: skip
    except (InputError, ModelError) as error:
        text = str(error)
        known = text.startswith((target, *sources, *([str(model)] if model else [])))
        raise type(error)(text if known else f"{sources[0]}: {text}") from None
    facts = describe(target)
    _table(facts)
    for name, variable in facts["variables"].items():
        if model and variable["model"] is None and variable["bound"]["kind"] != "lossless":
            _say(f"{name}: coded without the model, which is of other signals")


@app.command()
def decompress(
    archive: Annotated[str, typer.Argument(help="The archive to read: a folder, a .zip file or a URL.")],
    target: Annotated[
        Path,
        typer.Argument(
            help="The netCDF file to write; of images, sounds, shapes and the like the folder, or the one file."
        ),
    ],
) -> None:
    """Write the contents of an archive to a netCDF file, and signals such as images to files of their usual formats."""
    from vcinr.files import decompress as run

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
    archive: Annotated[str, typer.Argument(help="The archive to check: a folder, a .zip file or a URL.")],
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against",
            help="The original file or URL, or a folder of files, to check every bound against it; repeatable.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Decode every chunk. The exit status is 0 only if all is sound and, with --against, every bound holds.

    Of images, sounds and the like, --against also shows the largest error and the PSNR of each file. The peak is the
    largest number of an unsigned integer's bits (255, 65535), for sound full scale, and else the range of the data.
    """
    from vcinr.archive.verify import whole
    from vcinr.files import verify as run

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
