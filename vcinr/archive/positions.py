"""Where the points of a variable lie: its latitudes and longitudes, found by the CF and UGRID conventions.

A decoder needs them as an encoder had them. They are coordinates of the data set, which an archive holds losslessly, so
an array's codec only names the two and the SHA-256 of the positions; they are read again from the archive.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import xarray as xr
import zarr
from zarr.storage import StorePath

from vcinr.archive import metadata
from vcinr.archive.metadata import Groups
from vcinr.codec.promise import MAX_VALUES
from vcinr.coding.neighbours import Positions, on_sphere
from vcinr.errors import NOT_DAMAGE, CorruptError, InputError, VcinrError, one_line

_NORTH = re.compile(r"degrees?_?(north|N)")
_EAST = re.compile(r"degrees?_?(east|E)")
_ANGLE = re.compile(r"(deg|degs|degrees?|radians?)(_?(north|east|N|E))?")
_NAME = re.compile(r"(.*_)?(nav_|[a-z])?lat(itude)?(2d|_2d|_?[a-z])?", re.IGNORECASE)
_PARTNERS = (("latitude", "longitude"), ("lat", "lon"), ("lat", "long"))
_KNOWN: dict[str, Positions] = {}
_REMEMBERED = 8  # sets of positions that a process remembers
_LOCK = threading.Lock()


@dataclass(frozen=True)
class Place:
    """The variables that say where points lie.

    Parameters
    ----------
    latitude, longitude
        Their names, without a group: they lie together in the group of the variable or in one around it.
    radians
        Whether they are in radians, and not in degrees.
    sha256
        Of the positions (:class:`vcinr.coding.neighbours.Positions`).
    """

    latitude: str
    longitude: str
    radians: bool
    sha256: str

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """From the codec's configuration; raises CorruptError where it is malformed."""
        texts = [data.get(key) for key in ("latitude", "longitude", "sha256")] if isinstance(data, Mapping) else [None]
        if not all(isinstance(t, str) and t and "/" not in t for t in texts) or data.get("unit") not in _UNITS:
            raise CorruptError("configuration of the vcinr codec is malformed: its positions are none")
        return cls(data["latitude"], data["longitude"], data["unit"] == _UNITS[1], data["sha256"])

    def to_dict(self) -> dict[str, str]:
        """For the codec's configuration."""
        names = {"latitude": self.latitude, "longitude": self.longitude}
        return {**names, "unit": _UNITS[self.radians], "sha256": self.sha256}


_UNITS = ("degree", "radian")


def register(positions: Positions) -> str:
    """Make positions known to this process, which remembers the last eight; returns their SHA-256."""
    with _LOCK:
        _KNOWN.pop(positions.sha256, None)
        while len(_KNOWN) >= _REMEMBERED:
            del _KNOWN[next(iter(_KNOWN))]
        _KNOWN[positions.sha256] = positions
    return positions.sha256


def lookup(place: Place) -> Positions | None:
    """Return positions that this process has registered or read before, or None."""
    return _KNOWN.get(place.sha256)


def registered(place: Place) -> Positions:
    """Return positions like `lookup`; raise InputError naming the variables when there are none."""
    positions = lookup(place)
    if positions is None:
        raise InputError(
            f"the positions in {place.latitude!r} and {place.longitude!r} are not at hand; register them with "
            "vcinr.archive.positions.register"
        )
    return positions


async def find(store: Any, path: str, place: Place, shape: tuple[int, ...]) -> Positions:
    """Read the positions of an array from its archive.

    Parameters
    ----------
    store
        A Zarr store.
    path
        The array's path; the two variables are looked for in every group above it.
    place
        Their names, and what the positions must be.
    shape
        Shape of the array's signals, and of the two variables.

    Returns
    -------
    Positions
        They are registered.

    Raises
    ------
    CorruptError
        Where one of the variables is missing or cannot be decoded, or the positions are others.
    """
    parts, problem = path.split("/"), "are not in this archive; copy it whole"
    for depth in range(len(parts) - 1, -1, -1):
        try:
            values = [
                await _read(StorePath(store, "/".join([*parts[:depth], name])), shape)
                for name in (place.latitude, place.longitude)
            ]
        except (FileNotFoundError, KeyError):
            continue
        except NOT_DAMAGE:
            raise
        except Exception as error:  # Zarr's codecs raise what they like on damaged bytes
            problem = f"cannot be read ({error if isinstance(error, VcinrError) else one_line(error)})"
            continue
        positions = await asyncio.to_thread(on_sphere, values[0], values[1], radians=place.radians)
        if positions.sha256 == place.sha256:
            register(positions)
            return positions
        problem = "are not those that it was written with"
    raise CorruptError(f"the positions {place.latitude!r} and {place.longitude!r} of its points {problem}")


async def _read(where: StorePath, shape: tuple[int, ...]) -> np.ndarray:
    """The values of an array that must be floating-point numbers of this shape."""
    array = await zarr.AsyncArray.open(where, zarr_format=3)
    if array.shape != shape or array.dtype.kind != "f" or array.size > MAX_VALUES:
        raise CorruptError("they have another shape or dtype than its signals")
    return np.asarray(await array.getitem(Ellipsis))


# --- finding them in a data set


@dataclass(frozen=True, eq=False)
class Located:
    """The positions of a variable's points.

    Parameters
    ----------
    place
        The variables that hold them.
    dims
        The dimensions of these: one, over which points are scattered, or the last two of a curvilinear grid.
    variables
        Full names of the two.
    positions
        The positions, registered.
    """

    place: Place
    dims: tuple[str, ...]
    variables: tuple[str, str]
    positions: Positions


def names_of(groups: Groups, full: str) -> tuple[str, str] | None:
    """Find the latitudes and longitudes of a variable's points.

    Parameters
    ----------
    groups
        The data set by groups, as it is stored.
    full
        Full name of the variable.

    Returns
    -------
    tuple of str, optional
        Full names of the two. They have the same dimensions: one of the variable's, or its last two. None without such
        a pair.

    Notes
    -----
    What the variable says itself counts first: the mesh and location of UGRID, then CF's ``coordinates``. Where it says
    neither, all variables of its group, and then of those around it, are looked at.
    """
    path, _, name = full.rpartition("/")
    values = groups[path].variables[name]
    said = _said(groups, path, values)
    while True:
        group = groups[path]
        among = [n for n in map(str, group.variables) if (said is None or n in said) and n != name]
        for latitude in among:
            north = group.variables[latitude]
            if _is(north, latitude, "latitude") and _fits(north, values):
                partners = [n for n in among if _pairs(group, latitude, n)]
                for longitude in sorted(partners, key=lambda n: not _alike(latitude, n)):
                    return metadata.join(path, latitude), metadata.join(path, longitude)
        if not path:
            return None
        path = path.rpartition("/")[0]


def locate(groups: Groups, full: str) -> Located | None:
    """Read the positions of a variable's points; None where it has none. Arguments are those of `names_of`."""
    names = names_of(groups, full)
    if names is None:
        return None
    latitude, longitude = (metadata.member(groups, n) for n in names)
    try:
        north, east = np.asarray(latitude.values), np.asarray(longitude.values)
    except NOT_DAMAGE:
        raise
    except Exception as error:  # every format's library has its own for a damaged file
        raise InputError(f"variables {names[0]!r} and {names[1]!r} cannot be read ({one_line(error)})") from None
    radians = _radians(latitude.variable)
    positions = on_sphere(north, east, radians=radians)
    short = [n.rpartition("/")[2] for n in names]
    place = Place(short[0], short[1], radians, register(positions))
    return Located(place, tuple(map(str, latitude.dims)), names, positions)


def _said(groups: Groups, path: str, values: xr.Variable) -> list[str] | None:
    """Names of the coordinates that a variable states; None where it states none."""
    mesh, location = values.attrs.get("mesh"), values.attrs.get("location")
    while isinstance(mesh, str) and isinstance(location, str):
        if mesh in groups[path].variables:
            return str(groups[path].variables[mesh].attrs.get(f"{location}_coordinates", "")).split()
        if not path:
            break
        path = path.rpartition("/")[0]
    said = values.encoding.get("coordinates", values.attrs.get("coordinates"))
    return said.split() if isinstance(said, str) and said.split() else None


def _is(variable: xr.Variable, name: str, kind: str) -> bool:
    """Whether a variable holds latitudes or longitudes as floating-point numbers, by what it says or by its name."""
    if variable.dtype.kind != "f" or variable.dtype.itemsize > 8 or variable.ndim not in (1, 2):
        return False
    if any(key in variable.attrs for key in metadata.PACKING) or variable.dims == (name,):
        return False
    unit, own = str(variable.attrs.get("units", "")), _NORTH if kind == "latitude" else _EAST
    if variable.attrs.get("standard_name") == kind or own.fullmatch(unit):
        return True
    plain = name.lower() if kind == "latitude" else name.lower().replace("longitude", "lat").replace("lon", "lat")
    plain = plain.replace("latg", "lat")
    return bool(_NAME.fullmatch(plain)) and (kind == "latitude" or "lon" in name.lower()) and _angle(unit)


def _angle(unit: str) -> bool:
    return not unit or bool(_ANGLE.fullmatch(unit))


def _radians(variable: xr.Variable) -> bool:
    return str(variable.attrs.get("units", "")).startswith("rad")


def _fits(north: xr.Variable, values: xr.Variable) -> bool:
    """Whether positions belong to a variable: they have one of its dimensions, or its last two."""
    if north.size < 2 or any(values.sizes.get(d) != n for d, n in north.sizes.items()):
        return False
    return north.ndim == 1 or north.dims == values.dims[-2:]


def _pairs(group: xr.Dataset, latitude: str, longitude: str) -> bool:
    """Whether two variables of a group are latitudes and longitudes of the same points."""
    north, east = group.variables[latitude], group.variables[longitude]
    alike = north.dims == east.dims and _radians(north) == _radians(east)
    return alike and latitude != longitude and _is(east, longitude, "longitude")


def _alike(latitude: str, longitude: str) -> bool:
    """Whether two names differ by nothing but latitude and longitude."""
    return any(latitude.lower().replace(a, b) == longitude.lower() for a, b in _PARTNERS)
