"""All parameters of vcinr, with their types, limits and default values.

:func:`load` reads and validates ``params.yaml``. Functions of the package receive the small frozen models below, and
never a raw mapping. A mistyped key, a wrong type or a value out of range gives an error of one line that names the
field.

In ``params.yaml`` a null under ``inr``, ``meta`` or ``quantiser`` takes the value of the chosen method
(vcinr/methods.yaml). What the method does not give either has the default value stated here, which is that of the
method ``basis``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vcinr.errors import ConfigError

META_SHARE, QUANTISER_SHARE = 0.7, 0.15
"""Shares of a time budget. Meta-training has most of it, because quality grows longest there; the quantiser has only a
few numbers for each latent to learn."""
Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Model = TypeVar("Model", bound=BaseModel)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Package(_Frozen):
    """A package of a software registry that contains data, and is downloaded for them.

    Parameters
    ----------
    registry : {"pypi", "debian"}
        The registry.
    name, version : str
        The package.
    sha256 : str
        SHA-256 of the downloaded file in hexadecimal digits; any other file is refused.
    """

    registry: Literal["pypi", "debian"]
    name: str
    version: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Selection(_Frozen):
    """Files or a store, and the part of them that is used.

    Parameters
    ----------
    path : str
        The path; see `Source`. A pattern such as ``photos/*.jpg`` stands for all files that it matches.
    package : Package, optional
        The package that contains them; by default that of the source.
    select : mapping of str to (int or None, int or None)
        Half-open index ranges by name of the dimension, as in a Python slice; everything by default.
    """

    path: str
    package: Package | None = None
    select: dict[str, tuple[int | None, int | None]] = {}


class Tiling(_Frozen):
    """How a field is cut into signals (see :mod:`vcinr.signals`).

    Parameters
    ----------
    signal_dims : tuple of str, optional
        Dimensions that are the coordinates of one signal. By default latitude and longitude where a field has both,
        and else its last two dimensions.
    feature_dim : str, optional
        The dimension along which the features of a point lie, such as the components of a wind or the colours of an
        image. All remaining dimensions count signals.
    system : {"auto", "box", "sphere", "spectral"}
        How coordinates enter the network (:mod:`vcinr.signals.coordinates`): "box" scales each of them to [-1, 1],
        "sphere" turns latitude and longitude into unit vectors, and "auto" takes the sphere for grids that go round the
        globe. "spectral" is for values on the nodes of a mesh or another graph, whose edges the file holds: it needs no
        positions, but the smoothest eigenvectors of the graph (:mod:`vcinr.signals.graph`). `signal_dims` is then the
        one dimension of the nodes, which is found where it is not given.
    eigenvectors : int
        For "spectral": their number.
    """

    signal_dims: tuple[str, ...] | None = None
    feature_dim: str | None = None
    system: Literal["auto", "box", "sphere", "spectral"] = "auto"
    eigenvectors: Positive = 32


class Source(_Frozen):
    """A data set: where it comes from, which part is used, and how it is split and tiled.

    Parameters
    ----------
    kind : str
        A kind of signal (vcinr/kinds), such as "grid": files of gridded fields. Further parameters belong to the kind,
        which checks them.
    package : Package, optional
        A package that contains the data. Paths are then those of its members; without it they are local paths or
        fsspec URLs.
    variables : tuple of str
        The variables to use.
    train, archive : tuple of Selection
        The data that the model learns from, and the data that are compressed.
    test : mapping of str to (int or None, int or None)
        The part of `archive` on which the model's quality is judged, as index ranges by dimension; by default all.
    tiling : Tiling
        How fields are cut into signals.
    valid_every : int
        Of the training signals, every so many-th is held out for validation.
    """

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    kind: str = "grid"
    package: Package | None = None
    variables: tuple[str, ...] = ()
    train: tuple[Selection, ...]
    archive: tuple[Selection, ...]
    test: dict[str, tuple[int | None, int | None]] = {}
    tiling: Tiling = Tiling()
    valid_every: Annotated[int, Field(ge=2)] = 10

    @property
    def own(self) -> dict[str, Any]:
        """The parameters that belong to the kind, as they were given."""
        return dict(self.model_extra or {})

    @property
    def packages(self) -> list[Package]:
        """All packages that contain data of the source, each once."""
        found = [self.package, *(selection.package for selection in (*self.train, *self.archive))]
        return list({package.sha256: package for package in found if package is not None}.values())


Points = Positive | Literal["all"]
"""Number of coordinates that are drawn from each signal in a training step."""


class Inr(_Frozen):
    """The SIREN that all signals share (Sitzmann et al. 2020), and how a signal's latent enters it.

    Parameters
    ----------
    width, depth : int
        Width of the hidden layers, and number of all layers.
    omega_0 : float
        Factor in the sine activations. A larger one gives finer detail, and amplifies rounding errors.
    latent : int
        Number of latents for each signal: more of them fit a signal more closely, and take more bytes.
    conditioning : str
        How the latent enters (vcinr/inr/conditioning). ``linear``: the latents are coefficients of a basis, found in
        closed form. ``gates``: low-rank gates on the weights, as in VC-INR (Schwarz et al. 2023, section 3).
        ``gated-basis``: both of these. ``shifts``: shifts of the layers, as in COIN++ and Functa. ``sparse``: `latent`
        shifts that training selects, as in MSCN. ``weights``: a network for each signal, as in COIN, where `latent` is
        ignored. Packages can add others.
    rank : int
        Rank of the gates.
    mapping_width, mapping_blocks : int
        Width and number of blocks of the residual network that maps the latent to gates or shifts. A width of 0 makes
        it a single linear map.
    gating : int
        For ``gated-basis``: how many of the latents belong to the gates.
    """

    width: Positive = 128
    depth: Annotated[int, Field(ge=3)] = 4
    omega_0: PositiveFloat = 30.0
    latent: Positive = 128
    conditioning: str = "linear"
    rank: Positive = 4
    mapping_width: Annotated[int, Field(ge=0)] = 64
    mapping_blocks: Annotated[int, Field(ge=0)] = 2
    gating: Annotated[int, Field(ge=0)] = 0


class Meta(_Frozen):
    """Meta-training of the network (Schwarz et al. 2023, Algorithm 1), and the encoder's inner loop.

    Parameters
    ----------
    steps : int
        Number of outer steps. With 0 the network stays as it is initialised, and is fitted to each signal at encoding.
    batch : int
        Number of signals in each outer step.
    points : int or "all"
        Number of coordinates that each outer step draws.
    inner : str
        The inner loop, which finds the latent of a signal (vcinr/meta/inner): ``closed-form``, ``maml``, ``meta-sgd``,
        ``first-order``, ``projected``, ``refine``, ``adam``, or one that a package adds.
    inner_steps : int
        Number of steps of an inner loop by gradient.
    inner_rate : float or (float, float)
        Initial size of such a step, for all latents; or two limits between which it is drawn for each latent.
    inner_rate_max : float, optional
        Upper limit of learned step sizes.
    phi_0 : {"learned", "zero"}
        The latent at which the inner loop starts.
    outer_rate : float
        Learning rate of the outer loop.
    warmup : int
        Number of outer steps in which this rate grows from zero.
    decay : {"cosine", "none"}
        How it falls afterwards.
    clip : float
        Largest norm of the outer gradient; larger gradients are scaled down to it.
    validate_every : int
        Number of outer steps between validations on held-out signals.
    patience : int
        Training stops after so many validations without growth of the held-out PSNR; with 0 it never does.
    encode : str, optional
        The inner loop of the encoder; by default the same as in training.
    encode_steps : int
        Number of steps of the encoder's inner loop.
    encode_points : int
        Largest number of points at which the encoder takes them; of a larger grid it uses only so many.
    """

    steps: Annotated[int, Field(ge=0)] = 4000
    batch: Positive = 16
    points: Points = 2048
    inner: str = "closed-form"
    inner_steps: Positive = 3
    inner_rate: PositiveFloat | tuple[PositiveFloat, PositiveFloat] = 300.0
    inner_rate_max: PositiveFloat | None = None
    phi_0: Literal["learned", "zero"] = "learned"
    outer_rate: PositiveFloat = 2e-3
    warmup: Annotated[int, Field(ge=0)] = 100
    decay: Literal["cosine", "none"] = "cosine"
    clip: PositiveFloat = 1.0
    validate_every: Positive = 200
    patience: Annotated[int, Field(ge=0)] = 10
    encode: str | None = None
    encode_steps: Positive = 10
    encode_points: Positive = 16384

    @property
    def inner_rates(self) -> tuple[float, float]:
        """The limits between which the initial inner step sizes are drawn; they are equal for a single `inner_rate`."""
        return self.inner_rate if isinstance(self.inner_rate, tuple) else (self.inner_rate, self.inner_rate)


class Quantiser(_Frozen):
    """The quantiser of the latents, its entropy model, and their training.

    Parameters
    ----------
    kind : str
        ``factorised``: Algorithm 2 of VC-INR (Schwarz et al. 2023). ``hyperprior``: the same with side information
        (Ballé et al. 2018). ``uniform``: that of COIN++, for which only `bits` and `coder` count. Packages can add
        others by entry points of the group ``vcinr.quantisers``.
    coder : {"auto", "ans", "range", "huffman", "adaptive", "hyperprior"}
        The entropy coder of the quantised latents. "auto" takes the shortest of ANS, adaptive coding and, where the
        quantiser has one, the hyperprior.
    bits : tuple of int
        For ``uniform``: the bits per latent at each rate.
    hyper : int
        For ``hyperprior``: the number of integers of side information for each signal.
    relaxation : {"noise", "straight-through"}
        What replaces rounding in training, since rounding has no useful gradient: additive uniform noise, or rounding
        whose gradient is taken to be 1.
    lambdas : tuple of float
        Weights of the distortion against the bits. Each gives one rate of the codec: a larger one gives less distortion
        and more bits.
    width, blocks : int
        Width and number of residual blocks of the analysis and synthesis networks. A width of 0 leaves them out, so
        that what remains is scalar quantisation with gains.
    steps : int
        Number of training steps.
    batch : int
        Number of signals in each step.
    points : int or "all"
        Number of coordinates that each step draws.
    rate : float
        Learning rate.
    clip : float
        Largest norm of the gradient; larger gradients are scaled down to it.
    distortion : {"signal", "latent"}
        Where the squared error is measured: in the signals, or in the latents.
    joint_steps : int
        Number of steps that fine-tune network and quantiser together, before the final quantiser is trained.
    """

    kind: str = "factorised"
    coder: Literal["auto", "ans", "range", "huffman", "adaptive", "hyperprior"] = "auto"
    bits: Annotated[tuple[Annotated[int, Field(ge=1, le=14)], ...], Field(min_length=1, max_length=32)] = tuple(
        range(3, 13)
    )
    hyper: Annotated[int, Field(ge=1, le=256)] = 4
    relaxation: Literal["noise", "straight-through"] = "noise"
    lambdas: Annotated[tuple[PositiveFloat, ...], Field(min_length=1, max_length=32)] = (
        1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0, 30000.0, 100000.0,
    )  # fmt: skip
    width: Annotated[int, Field(ge=0)] = 0
    blocks: Annotated[int, Field(ge=0)] = 0
    steps: Positive = 2000
    batch: Positive = 32
    points: Points = 256
    rate: PositiveFloat = 1e-3
    clip: PositiveFloat = 1.0
    distortion: Literal["signal", "latent"] = "signal"
    joint_steps: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _coder_of_kind(self) -> Quantiser:
        if self.coder == "hyperprior" and self.kind in ("uniform", "factorised"):
            raise ValueError(f"coder 'hyperprior' needs kind: hyperprior, not {self.kind!r}")
        return self

    @property
    def depth(self) -> int:
        """Number of residual blocks: `blocks`, or 0 where there are no networks."""
        return self.blocks if self.width else 0


class Patches(_Frozen):
    """The method ``experts``: signals are cut into patches, each predicted from those before it (:mod:`vcinr.patches`).

    Parameters
    ----------
    size : tuple of int, optional
        Lengths of a patch along the dimensions of a signal. Default: (128,), (8, 8) or (4, 4, 4); of sound it is longer
        at more than 16 kHz (:func:`vcinr.kinds.sound.patch_length`).
    back, ahead : tuple of int, optional
        How far the prediction of a patch looks, before its first and beyond its last point along each dimension.
    motion : int
        For signals of three dimensions, such as video: how far a patch may have moved since the frame before, along the
        last two. 0 follows no motion; otherwise patches have length 1 along the first.
    group : int
        For motion: length of the groups of frames of which the last is coded first and then those in the middle, each
        predicted from the frames before and after it. 0 predicts each frame from the one before.
    experts : int
        Largest number of experts. More of them need fewer bits, and make a larger model. With groups, frames that are
        predicted from one and from two others have half as many experts each, besides those of the first frame.
    rounds : int
        Rounds of their clustering.
    count : int
        Number of patches to learn from.
    psnr : float
        The quality, in dB of the training range, at which they are to need few bits.
    """

    size: tuple[Positive, ...] | None = None
    back: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    ahead: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    motion: Annotated[int, Field(ge=0, le=64)] = 0
    group: Annotated[int, Field(ge=0, le=64)] = 0
    experts: Annotated[int, Field(ge=1, le=32)] = 8
    rounds: Positive = 8
    count: Positive = 100_000
    psnr: PositiveFloat = 34.0


class Codec(_Frozen):
    """How the pipeline writes the archive.

    Parameters
    ----------
    abs_error : float, optional
        The largest error of a value, in the variable's own units.
    rel_error : float, optional
        The same as a fraction of the variable's range.
    psnr : float, optional
        The PSNR to reach in dB, with the variable's range as the peak, in place of a bound.
    rate : float, optional
        The number of bits per value to stay below, in place of a bound. At most one of the four may be given. Without
        any, the model alone predicts the values, at its finest rate.
    chunk : int, optional
        Number of signals in each Zarr chunk; by default a chunk has about a million values.
    effort : {"best", "fast"}
        "best" searches for the fewest bytes, "fast" takes less time. Both keep the bound.
    """

    abs_error: PositiveFloat | None = None
    rel_error: PositiveFloat | None = None
    psnr: PositiveFloat | None = None
    rate: PositiveFloat | None = None
    chunk: Positive | None = None
    effort: Literal["best", "fast"] = "best"

    @model_validator(mode="after")
    def _one(self) -> Codec:
        if sum(goal is not None for goal in (self.abs_error, self.rel_error, self.psnr, self.rate)) > 1:
            raise ValueError("give one of abs_error, rel_error, psnr and rate, and null for the others")
        return self


class Evaluate(_Frozen):
    """Comparison of the model and the archive with other codecs on the test split.

    Parameters
    ----------
    bounds : tuple of float
        Error bounds to compare, as fractions of the training range.
    eof_components : tuple of int
        Numbers of EOFs (empirical orthogonal functions) to compare.
    max_values : int
        Largest number of values of each variable; larger test splits are thinned evenly.
    """

    bounds: tuple[PositiveFloat, ...] = (0.1, 0.05, 0.03, 0.01, 0.003, 0.001)
    eof_components: tuple[Positive, ...] = (16, 32, 64)
    max_values: Positive = 2_000_000


class Experiment(_Frozen):
    """Sizes of the source papers' experiments (benchmarks/experiments) for one profile.

    Parameters
    ----------
    inr, meta : Inr, Meta
        Network and training of VC-INR. Rivals that are fitted by gradient get the same width, depth and steps.
    quantiser : Quantiser
        The variational quantiser.
    basis_steps : int
        Training steps of the method ``basis``.
    sweep_steps : int
        Training steps of the other methods where all methods and sizes are compared.
    seeds : int
        Number of random seeds.
    methods : tuple of str
        The methods to compare.
    sizes : tuple of int
        The numbers of latents to compare.
    bits : tuple of int
        Bits per latent of uniform quantisation.
    bounds : tuple of float
        Error bounds, as fractions of the training range.
    """

    inr: Inr
    meta: Meta
    quantiser: Quantiser
    basis_steps: Positive
    sweep_steps: Positive
    seeds: Positive
    methods: Annotated[tuple[str, ...], Field(min_length=1)]
    sizes: Annotated[tuple[Positive, ...], Field(min_length=1)]
    bits: Annotated[tuple[Annotated[int, Field(ge=1, le=14)], ...], Field(min_length=1)]
    bounds: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]


class Experiments(_Frozen):
    """Sizes of the experiments by profile: ``cpu``, half an hour each on two cores; ``gpu``, as published.

    ``tiles`` are those of the profile cpu for tiles of images, sound, video and solid shapes: some minutes each.
    ``quick`` shows in a minute or so that an experiment runs; its figures mean nothing.
    """

    cpu: Experiment
    gpu: Experiment
    tiles: Experiment | None = None
    quick: Experiment | None = None


class Active(_Frozen):
    """The data set that the pipeline works on.

    Parameters
    ----------
    name : str
        A key of `sources`, which also names the model.
    archive : str
        Name of the archive, which begins with `name`.
    """

    name: str
    archive: str


class Params(_Frozen):
    """The whole of params.yaml.

    Parameters
    ----------
    source : Active, optional
        The data set that the pipeline works on.
    method : str
        The method, a preset of vcinr/methods.yaml; where it is null, ``basis`` or, by :func:`vcinr.kinds.load`, the
        usual one of the source's kind. It gives the values that `inr`, `meta` and `quantiser` leave out.
    profile : {"cpu", "gpu"}
        Whether that preset is sized for two CPU cores, or as published.
    seed : int
        Seed of all random numbers of training.
    threads : int
        Number of torch's threads.
    minutes : float, optional
        Time budget of all of training. With one, what is learned depends on the speed of the machine; without one, all
        steps are done and the result is reproducible.
    device : {"cpu", "cuda"}
        Where training and the extraction of latents run. Archives are always written and read on the CPU.
    sources : mapping of str to Source
        Known data sets.
    inr, meta, quantiser, patches, codec, evaluate, experiments
        Parameters of the stages; see their classes. `patches` are those of the method ``experts``, which has no use for
        the three before.
    """

    source: Active | None = None
    method: str = "basis"
    profile: Literal["cpu", "gpu"] = "cpu"
    seed: int = 0
    threads: Positive = 2
    minutes: PositiveFloat | None = None
    device: Literal["cpu", "cuda"] = "cpu"
    sources: dict[str, Source] = {}
    inr: Inr = Inr()
    meta: Meta = Meta()
    quantiser: Quantiser = Quantiser()
    patches: Patches = Patches()
    codec: Codec = Codec()
    evaluate: Evaluate = Evaluate()
    experiments: Experiments | None = None

    @model_validator(mode="after")
    def _known_source(self) -> Params:
        if self.source is None:
            return self
        name, archive = self.source.name, self.source.archive
        if name not in self.sources:
            raise ValueError(f"source.name: {name!r} is not under sources ({', '.join(self.sources) or 'empty'})")
        if not archive.startswith(name) or "/" in archive:
            raise ValueError(f"source.archive: {archive!r} is no archive of {name}; name it {name}-something")
        return self

    @property
    def meta_seconds(self) -> float | None:
        """Seconds of the time budget for meta-training; None without a budget."""
        return None if self.minutes is None else META_SHARE * 60 * self.minutes

    @property
    def quantiser_seconds(self) -> float | None:
        """Seconds of the time budget for the quantiser; the remainder is for reading data and extracting latents."""
        return None if self.minutes is None else QUANTISER_SHARE * 60 * self.minutes

    @property
    def active(self) -> Source:
        """The source that ``source.name`` names."""
        if self.source is None:
            raise ConfigError("params: no source is chosen; set source: {name: ..., archive: ...}")
        return self.sources[self.source.name]


@cache
def _presets() -> dict[str, dict[str, Any]]:
    """The content of vcinr/methods.yaml."""
    return yaml.safe_load(files("vcinr").joinpath("methods.yaml").read_text())


def methods() -> list[str]:
    """Names of the methods that vcinr/methods.yaml defines."""
    return list(_presets())


def preset(method: str, profile: str = "cpu") -> Params:
    """The parameters of a method at a profile; raises ConfigError, which lists the known methods, for any other."""
    return parse({"method": method, "profile": profile}, "method")


def _completed(data: dict[str, Any], origin: str) -> dict[str, Any]:
    """Fill in what `data` leaves out, or gives as null, with the values of its method and profile."""
    method = "basis" if data.get("method") is None else data["method"]
    if not isinstance(method, str) or method not in _presets():
        raise ConfigError(f"{origin}: method: unknown {method!r}; known: {', '.join(methods())}")
    values = _presets()[method]
    gpu_values = values.get("gpu", {}) if data.get("profile") == "gpu" else {}
    result = {**data, "method": method}
    for name in ("inr", "meta", "quantiser", "patches"):
        given = data.get(name) or {}
        if isinstance(given, dict):
            not_null = {key: value for key, value in given.items() if value is not None}
            result[name] = {**values.get(name, {}), **gpu_values.get(name, {}), **not_null}
    return result


def _known_fields(model: Any, location: tuple[Any, ...]) -> list[str]:
    """Names of the fields of `model` that the last element of a pydantic error location could have been."""
    for part in location[:-1]:
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:  # inside sources: {name: Source}
            model = Source
            continue
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), model)
    return list(getattr(model, "model_fields", {}))


def parse(data: Any, origin: str) -> Params:
    """Validate a mapping of parameters.

    Parameters
    ----------
    data
        The mapping, as YAML gives it; anything else is an error.
    origin : str
        Where it comes from, for error messages.

    Returns
    -------
    Params
        The parameters, completed with the values of the method.

    Raises
    ------
    ConfigError
        Its message names `origin`, the field and what is wrong with it; for a typo, also the likely name. What belongs
        to the kind of a source is left to :mod:`vcinr.kinds`.
    """
    if not isinstance(data, dict):
        raise ConfigError(f"{origin}: expected a mapping of parameters, got {type(data).__name__}")
    return fill(Params, _completed(data, origin), origin)


def fill(
    model: type[Model], data: dict[str, Any], origin: str, where: Sequence[str] = (), beside: Iterable[str] = ()
) -> Model:
    """Validate a mapping as a model.

    Parameters
    ----------
    model : type
        The pydantic model.
    data : dict
        Numbers, strings, lists and mappings.
    origin, where : str, sequence of str
        For messages: the file that the mapping comes from, and the keys that lead to it there.
    beside : iterable of str
        Names that are allowed beside the model's own.

    Returns
    -------
    BaseModel
        An instance of `model`.

    Raises
    ------
    ConfigError
        As in `parse`.
    """
    try:
        # JSON mode lets YAML's lists stand for tuples while numbers and strings stay strict.
        return model.model_validate_json(_as_json(data, origin))
    except ValidationError as error:
        first = error.errors()[0]
        location = tuple(first["loc"])
        field = ".".join(map(str, (*where, *location))) or "(top level)"
        if first["type"] == "extra_forbidden":
            known = [*(beside if len(location) == 1 else ()), *_known_fields(model, location)]
            close = difflib.get_close_matches(str(location[-1]), known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"
            raise ConfigError(f"{origin}: {field}: unknown parameter{hint}") from None
        message = first["msg"].removeprefix("Value error, ")
        got = "" if first["type"] in ("missing", "value_error") else f", got {first['input']!r}"
        raise ConfigError(f"{origin}: {field}: {message}{got}") from None


def _as_json(data: dict[str, Any], origin: str) -> str:
    """`data` as JSON text; raises ConfigError for what JSON cannot hold, such as a date."""
    import json

    try:
        return json.dumps(data)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{origin}: {error}; use numbers, strings, lists and mappings only") from None


def load(path: str | Path = "params.yaml") -> Params:
    """Read and validate a parameters file; raises ConfigError, which names the file and the field."""
    return parse(read(path), str(path))


def read(path: str | Path) -> Any:
    """Read a parameters file without validating what is in it; raises ConfigError where it is no YAML."""
    try:
        text = Path(path).read_text()
    except OSError as error:
        raise ConfigError(f"{path}: cannot read parameters ({error.strerror}); is this the project's folder?") from None
    try:
        return yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
