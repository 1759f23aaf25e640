"""Graphs: the edges of a mesh or a network in a data set, and the spectral coordinates of its nodes.

Spectral coordinates are the smoothest eigenvectors of the graph's Laplacian, so a network can learn signals on nodes
whose positions are unknown, as it learns those on a grid (Grattarola & Vandergheynst 2022, "Generalised implicit neural
representations"). A model keeps them, rounded: no decoder computes an eigenvector.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import xarray as xr

from vcinr.container import rows_in_8_bits
from vcinr.errors import InputError, one_line

EIGENVECTORS = 32
"""Usual number of eigenvectors."""
_SMALL = 500  # nodes up to which a dense solver is as fast as a sparse one
_LARGEST_DENSE = 4096  # nodes up to which it is used without SciPy: half a minute, and 0.5 GB of memory
PLAIN = ("edges", "edge_node_connectivity", "face_node_connectivity")
"""Names and CF roles of variables that hold a graph, by preference."""


@dataclass(frozen=True, eq=False)
class Graph:
    """An undirected graph. Graphs of the same nodes and edges are equal.

    Parameters
    ----------
    nodes : int
        Number P of nodes.
    edges : numpy.ndarray
        int64 ``[E, 2]``: pairs of nodes, the smaller first, sorted, each once. It must not be changed.
    """

    nodes: int
    edges: np.ndarray

    @classmethod
    def of(cls, nodes: int, pairs: np.ndarray) -> Graph:
        """The graph of `nodes` nodes with the edges `pairs` ``[n, 2]``, in any order; loops and repetitions count not.

        Raises InputError where a pair names a node that there is not.
        """
        pairs = np.sort(np.asarray(pairs, np.int64).reshape(-1, 2), axis=1)
        if pairs.size and not (pairs.min() >= 0 and pairs.max() < nodes):
            wrong = int(pairs.min()) if pairs.min() < 0 else int(pairs.max())
            raise InputError(
                f"its edges name the node {wrong}, and the {nodes:,} nodes are 0 to {nodes - 1}; where they are "
                "counted from 1, say so by the attribute start_index"
            )
        keys = np.unique((pairs[:, 0] * nodes + pairs[:, 1])[pairs[:, 0] != pairs[:, 1]])
        return cls(nodes, np.stack([keys // max(1, nodes), keys % max(1, nodes)], 1))

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the number of nodes and the edges, as little-endian 64-bit integers: the name of the graph."""
        return hashlib.sha256(struct.pack("<Q", self.nodes) + self.edges.astype("<i8").tobytes()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Graph) and self.sha256 == other.sha256

    def __hash__(self) -> int:
        return hash(self.sha256)

    def __str__(self) -> str:
        return f"{self.nodes:,} nodes and {len(self.edges):,} edges"

    @cached_property
    def components(self) -> np.ndarray:
        """The connected component of each node, int64 ``[P]``, counted in the order of their first nodes."""
        first, (a, b) = np.arange(self.nodes), self.edges.T
        while True:
            lower = first.copy()
            np.minimum.at(lower, first[a], first[b])
            np.minimum.at(lower, first[b], first[a])
            lower = lower[lower]
            if np.array_equal(lower, first):
                return np.unique(first, return_inverse=True)[1]
            first = lower


def system_of(graph: Graph, count: int) -> dict[str, Any]:
    """The coordinate system of a graph (:mod:`vcinr.signals.coordinates`) with `count` spectral coordinates."""
    return {"system": "spectral", "dimensions": count, "graph": graph.sha256}


@lru_cache(maxsize=2)
def spectral_coordinates(graph: Graph, count: int = EIGENVECTORS) -> np.ndarray:
    """Compute the spectral coordinates of a graph's nodes.

    Parameters
    ----------
    graph : Graph
        The graph.
    count : int
        Number of eigenvectors.

    Returns
    -------
    numpy.ndarray
        float32 ``[k, P]``, a row for each coordinate, in 8 bits a number (`vcinr.container.rows_in_8_bits`). k is
        `count`, or fewer where no component has as many non-constant eigenvectors, and one more where the graph is not
        connected. It must not be changed.

    Raises
    ------
    InputError
        For a graph without edges, and for one that is too large to be treated without SciPy.

    Notes
    -----
    The rows are D^-1/2 v, with the degrees D and the eigenvectors v of the smallest eigenvalues but 0 of the symmetric
    normalised Laplacian I - D^-1/2 A D^-1/2. Without the factor D^-1/2 they would be rough where degrees are. Each has
    the mean square 1, and its entry of the largest magnitude is positive.

    The Laplacian of a graph that is not connected falls into a block for each component, so each component gets
    eigenvectors of its own, in the same rows; a small one has zeros in the last rows. A further row is the number of
    the component, shifted and scaled likewise. Isolated nodes differ by that row alone.
    """
    if not len(graph.edges):
        raise InputError("its graph has no edges; spectral coordinates need some")
    components = graph.components
    sizes = np.bincount(components)
    rows = np.zeros((min(count, int(sizes.max()) - 1), graph.nodes))
    order = np.argsort(components, kind="stable")
    place = np.empty(graph.nodes, np.int64)  # of each node among those of its component
    place[order] = np.arange(graph.nodes) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    of_edges = components[graph.edges[:, 0]]
    by_component = np.argsort(of_edges, kind="stable")
    ends = np.cumsum(np.bincount(of_edges, minlength=len(sizes)))
    for number in np.flatnonzero(sizes > 1):
        chosen = by_component[ends[number - 1] if number else 0 : ends[number]]
        vectors = _eigenvectors(int(sizes[number]), place[graph.edges[chosen]], len(rows))
        rows[: len(vectors), components == number] = vectors
    if len(sizes) > 1:
        centred = components - components.mean()
        rows = np.concatenate([rows, centred[None] / np.sqrt(np.square(centred).mean())])
    steps, codes = rows_in_8_bits(rows)
    return steps[:, None] * codes.astype(np.float32)


def _eigenvectors(nodes: int, edges: np.ndarray, count: int) -> np.ndarray:
    """The first `count` scaled eigenvectors ``[k, nodes]`` of a connected graph but the constant one."""
    degrees = np.bincount(edges.ravel(), minlength=nodes).astype(np.float64)
    root, (a, b) = np.sqrt(degrees), edges.T
    count = min(count, nodes - 1)
    weights = 1.0 / (root[a] * root[b])
    dense = nodes <= _SMALL or (count > nodes // 4 and nodes <= _LARGEST_DENSE)
    sparse = None if dense else _sparse()
    if sparse is None and nodes > _LARGEST_DENSE:
        raise InputError(
            f"spectral coordinates of a graph of {nodes:,} nodes need SciPy; pip install scipy, or give positions"
        )
    if sparse is None:
        laplacian = np.eye(nodes)
        laplacian[a, b] = laplacian[b, a] = -weights
        vectors = np.linalg.eigh(laplacian)[1][:, 1 : count + 1]
    else:
        matrix, eigsh = sparse
        rows, columns = np.concatenate([a, b, np.arange(nodes)]), np.concatenate([b, a, np.arange(nodes)])
        laplacian = matrix((np.concatenate([-weights, -weights, np.ones(nodes)]), (rows, columns)), (nodes, nodes))
        # The start vector is fixed, so that the same graph has the same coordinates again.
        start = np.random.default_rng(0).standard_normal(nodes)
        try:
            values, vectors = eigsh(laplacian.tocsc(), count + 1, sigma=-1.0 / nodes, v0=start)
        except RuntimeError as error:
            raise InputError(
                f"eigenvectors of a graph of {nodes:,} nodes were not found ({one_line(error)}); ask for fewer "
                "(--eigenvectors)"
            ) from None
        vectors = vectors[:, np.argsort(values)[1:]]
    vectors = (vectors / root[:, None]).T
    largest = vectors[np.arange(len(vectors)), np.abs(vectors).argmax(1)]
    return vectors * (np.sign(largest) / np.sqrt(np.square(vectors).mean(1)))[:, None]


def _sparse() -> tuple[Any, Any] | None:
    """SciPy's sparse matrices and their eigensolver; None where it is not installed."""
    try:
        from scipy.sparse import coo_array
        from scipy.sparse.linalg import eigsh
    except ImportError:
        return None
    return coo_array, eigsh


# --- finding it in a data set


def graph_of(groups: Sequence[xr.Dataset], name: str, dim: str | None = None) -> tuple[str, Graph]:
    """Read the graph on whose nodes a variable lies.

    Parameters
    ----------
    groups : sequence of xarray.Dataset
        The variable's group and, in their order, those around it; undecoded.
    name : str
        The variable's name in the first.
    dim : str, optional
        The dimension of the nodes. Default: the last that is long enough for all nodes that edges name.

    Returns
    -------
    dim : str
        The dimension of the nodes.
    graph : Graph
        The graph.

    Raises
    ------
    InputError
        Where there are no edges, or they do not fit the variable; the message names it.

    Notes
    -----
    What counts is UGRID's mesh of the variable, or else the only mesh that there is: its ``edge_node_connectivity`` or,
    without one, the sides of its faces (``face_node_connectivity``). Without a mesh, it is a variable of integers
    called ``edges``, or as one of these two, whose attribute ``start_index`` may say that it counts from 1.
    """
    variable, what = groups[0].variables[name], f"variable {name!r}"
    location = variable.attrs.get("location", "node")
    if location != "node":
        raise InputError(f"{what} lies on the {location}s of its mesh; spectral coordinates are those of its nodes")
    if dim is not None and dim not in variable.dims:
        have = ", ".join(map(str, variable.dims))
        raise InputError(f"{what} has no dimension {dim!r}; it has {have}")
    for connectivity, table, of_faces in _connectivities(groups, variable):
        try:
            pairs = (_sides if of_faces else _pairs)(connectivity, table)
        except InputError as error:
            raise InputError(f"{what}: {error}") from None
        if dim is None:
            needed = int(pairs.max(initial=0)) + 1
            long_enough = [str(d) for d, n in variable.sizes.items() if n >= needed]
            if not long_enough:
                raise InputError(
                    f"{what}: {connectivity} has {needed:,} nodes or more, which none of its dimensions has "
                    f"({', '.join(f'{d} {n:,}' for d, n in variable.sizes.items())})"
                )
            dim = long_enough[-1]
        try:
            return dim, Graph.of(variable.sizes[dim], pairs)
        except InputError as error:
            raise InputError(f"{what}: {error}") from None
    raise InputError(
        f"{what} has no graph: the file has neither a UGRID mesh for it nor a variable edges(edge, two) of integers; "
        "add the edges to the file"
    )


def _connectivities(groups: Sequence[xr.Dataset], variable: xr.Variable) -> Iterator[tuple[str, xr.Variable, bool]]:
    """The variables that may hold the graph, the best first: their names, themselves, and whether they are of faces."""
    for group in groups:
        said = variable.attrs.get("mesh")
        meshes = [said] if said in group.variables else []
        if said is None:
            meshes = [n for n, v in group.variables.items() if v.attrs.get("cf_role") == "mesh_topology"]
        for mesh in meshes if len(meshes) == 1 else ():
            attrs = group.variables[mesh].attrs
            for part in ("edge", "face"):
                name = attrs.get(f"{part}_node_connectivity")
                if name in group.variables:
                    table = group.variables[name]
                    if table.ndim == 2 and attrs.get(f"{part}_dimension") == table.dims[1]:
                        table = table.transpose()
                    yield str(name), table, part == "face"
    for role in PLAIN:
        for group in groups:
            for n, v in group.variables.items():
                if role in (n, v.attrs.get("cf_role")):
                    yield str(n), v, role.startswith("face")


def _pairs(name: str, variable: xr.Variable) -> np.ndarray:
    """The edges ``[n, 2]`` that a table of edges states, counted from 0."""
    table, given = _table(name, variable)
    if table.shape[1] != 2 and table.shape[0] == 2:
        table, given = table.T, given.T
    if table.shape[1] != 2:
        raise InputError(f"{name} has no dimension of length 2, so its rows are no edges; correct it")
    return table[given.all(1)]


def _sides(name: str, variable: xr.Variable) -> np.ndarray:
    """The edges ``[n, 2]`` that are sides of the faces of a table, counted from 0."""
    table, given = _table(name, variable)
    corners, rows = given.sum(1), np.arange(len(table))[:, None]
    # What is missing of a polygon with fewer corners than others comes last; its last side leads back to the first one.
    order = np.argsort(~given, axis=1, kind="stable")
    table, column = table[rows, order], np.arange(table.shape[1])
    following = table[rows, (column + 1) % np.maximum(corners, 1)[:, None]]
    return np.stack([table, following], -1)[column < corners[:, None]]


def _table(name: str, variable: xr.Variable) -> tuple[np.ndarray, np.ndarray]:
    """The nodes in a variable of connectivity, counted from 0, and which of them are given; both two-dimensional."""
    if variable.ndim != 2 or variable.dtype.kind not in "iuf" or not variable.size:
        raise InputError(f"{name} is no table of nodes (edge, two), or (face, corner); correct it")
    try:
        table = np.asarray(variable.values)
    except Exception as error:  # every format's library has its own for a damaged file
        raise InputError(f"{name} cannot be read ({one_line(error)}); copy the file again") from None
    given = np.isfinite(table) if table.dtype.kind == "f" else np.ones(table.shape, bool)
    for key in ("_FillValue", "missing_value"):
        if (fill := variable.attrs.get(key, variable.encoding.get(key))) is not None:
            given &= table != fill
    if table.dtype.kind == "f" and (table[given] != np.rint(table[given])).any():
        raise InputError(f"{name} holds numbers of nodes that are not whole; correct it")
    return np.where(given, table, 0).astype(np.int64) - int(variable.attrs.get("start_index", 0)), given
