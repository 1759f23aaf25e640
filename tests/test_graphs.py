"""Signals on graphs: graphs in files, spectral coordinates, and a model on a graph from training to netCDF."""

import numpy as np
import pytest
import xarray as xr
import yaml

import vcinr
from tests.conftest import small
from tests.golden.reference import decoder
from tests.test_cli import error, run
from vcinr import container
from vcinr.config import Selection, Source, Tiling
from vcinr.datasets.ingest import ingest
from vcinr.errors import InputError, ModelError
from vcinr.inr.model import freeze, from_bytes
from vcinr.signals import Points, graph, read_signals
from vcinr.signals.graph import Graph, graph_of, spectral_coordinates

RNG = np.random.default_rng(0)


def ring(nodes: int) -> np.ndarray:
    return np.stack([np.arange(nodes), np.roll(np.arange(nodes), -1)], 1)


def lattice(rows: int, columns: int) -> np.ndarray:
    number = np.arange(rows * columns).reshape(rows, columns)
    sides = [(number[:, :-1], number[:, 1:]), (number[:-1], number[1:])]
    return np.concatenate([np.stack([a.ravel(), b.ravel()], 1) for a, b in sides])


ROWS, COLUMNS = 9, 14
EDGES = lattice(ROWS, COLUMNS)
ORDER = RNG.permutation(ROWS * COLUMNS)  # so that the number of a node says nothing of its place
MIXED = np.argsort(ORDER)[EDGES]


def waves(times: int, seed: int) -> np.ndarray:
    """Smooth signals on the lattice, whose nodes are mixed; no two of them are alike."""
    y, x = np.meshgrid(np.linspace(0, 2, ROWS), np.linspace(0, 3, COLUMNS), indexing="ij")
    a, b, c = np.random.default_rng(seed).uniform(-1, 1, (3, times, 1, 1))
    maps = 10 + 4 * a * np.sin(y + x) + 3 * b * np.cos(2 * x) + 2 * c * y
    return maps.reshape(times, -1)[:, ORDER].astype("f4")


def mesh(times: int = 40, seed: int = 0, pairs: np.ndarray = MIXED, **attrs) -> xr.Dataset:
    values = waves(times, seed)
    values[2, 5] = np.nan
    return xr.Dataset(
        {"temp": (("time", "node"), values, {"units": "K"}), "edges": (("edge", "two"), pairs.astype("i4"), attrs)}
    )


# --- graphs and their coordinates


def test_a_graph_does_not_depend_on_how_its_edges_are_listed():
    pairs = ring(7)
    other = np.concatenate([pairs[::-1, ::-1], pairs[:3], [[4, 4]]])
    assert Graph.of(7, other) == Graph.of(7, pairs) != Graph.of(8, pairs) != Graph.of(7, pairs[:-1])
    assert len({Graph.of(7, other), Graph.of(7, pairs)}) == 1
    assert Graph.of(7, other).edges.tolist() == sorted([i, i + 1] for i in range(6)) [:1] + [[0, 6]] + [
        [i, i + 1] for i in range(1, 6)
    ]  # fmt: skip
    for wrong, named in ((7, 7), (-1, -1)):
        with pytest.raises(InputError, match=rf"name the node {named}, and the 7 nodes are 0 to 6.*start_index"):
            Graph.of(7, np.array([[0, wrong]]))


@pytest.mark.parametrize("sparse", [False, True])
def test_coordinates_are_eigenvectors_of_the_laplacian(sparse, monkeypatch):
    if sparse:
        pytest.importorskip("scipy")
        monkeypatch.setattr(graph, "_SMALL", 10)
    one = Graph.of(ROWS * COLUMNS, MIXED)
    vectors = graph._eigenvectors(one.nodes, one.edges, 12)
    adjacency = np.zeros((one.nodes, one.nodes))
    adjacency[tuple(one.edges.T)] = adjacency[tuple(one.edges[:, ::-1].T)] = 1
    degrees = adjacency.sum(1)
    moved = vectors - vectors @ adjacency / degrees  # D^-1 L u = lambda u
    values = (vectors * degrees * moved).sum(1) / (vectors * degrees * vectors).sum(1)
    assert np.allclose(moved, values[:, None] * vectors, atol=1e-8)
    assert (np.diff(values) > -1e-9).all() and 0 < values[0] < 0.1
    assert np.allclose((vectors * vectors).mean(1), 1) and np.allclose(vectors @ degrees, 0, atol=1e-6)
    largest = vectors[np.arange(12), np.abs(vectors).argmax(1)]
    assert (largest > 0).all()


def test_coordinates_are_stored_in_8_bits_without_a_further_change():
    spectral_coordinates.cache_clear()
    nodes = spectral_coordinates(Graph.of(60, ring(60)), 8)
    assert nodes.shape == (8, 60) and nodes.dtype == np.float32
    steps, codes = container.rows_in_8_bits(nodes)
    assert np.array_equal(steps[:, None] * codes.astype(np.float32), nodes)
    # Of a ring, eigenvectors are sines and cosines: two of each wavelength.
    power = np.abs(np.fft.rfft(nodes, axis=1)) ** 2
    assert power.argmax(1).tolist() == [1, 1, 2, 2, 3, 3, 4, 4]
    assert (power.max(1) / power.sum(1) > 0.999).all()


def test_components_and_isolated_nodes_have_coordinates_of_their_own():
    pairs = np.concatenate([ring(10), 20 + ring(3)])  # 10 to 19, 23 and 24 are isolated
    one = Graph.of(25, pairs)
    assert one.components.tolist() == [*[0] * 10, *range(1, 11), *[11] * 3, 12, 13]
    nodes = spectral_coordinates(one, 6)
    assert nodes.shape == (7, 25) and np.isfinite(nodes).all()
    assert np.allclose(np.square(nodes[:6, :10]).mean(1), 1, atol=0.03)
    assert np.allclose(np.square(nodes[:2, 20:23]).mean(1), 1, atol=0.03) and not nodes[2:6, 20:23].any()
    assert not nodes[:6, [*range(10, 20), 23, 24]].any()
    assert len(np.unique(nodes[6])) == 14 and len(np.unique(nodes, axis=1).T) == 25


def test_there_are_no_more_coordinates_than_eigenvectors():
    assert spectral_coordinates(Graph.of(5, ring(5)), 32).shape == (4, 5)
    assert np.allclose(spectral_coordinates(Graph.of(2, np.array([[0, 1]])), 32), [[1, -1]], atol=1e-3)
    for nodes in (0, 1, 4):
        with pytest.raises(InputError, match="its graph has no edges"):
            spectral_coordinates(Graph.of(nodes, np.zeros((0, 2))), 32)


def test_a_large_graph_needs_scipy(monkeypatch):
    monkeypatch.setattr(graph, "_LARGEST_DENSE", 50)
    monkeypatch.setattr(graph, "_sparse", lambda: None)
    spectral_coordinates.cache_clear()
    with pytest.raises(InputError, match=r"a graph of 61 nodes need SciPy; pip install scipy"):
        spectral_coordinates(Graph.of(61, ring(61)), 4)


# --- graphs in files


def test_edges_are_found_by_ugrid_and_by_name():
    expected = Graph.of(ROWS * COLUMNS, MIXED)
    plain = mesh()
    assert graph_of([plain], "temp") == ("node", expected)
    turned = plain.assign(edges=(("two", "edge"), MIXED.T + 1, {"start_index": 1}))
    assert graph_of([turned], "temp") == ("node", expected)
    floats = plain.assign(edges=(("edge", "two"), np.concatenate([MIXED, [[3, np.nan]]]).astype("f8")))
    assert graph_of([floats], "temp") == ("node", expected)
    ugrid = plain.rename(edges="links").assign(
        grid=((), 0, {"cf_role": "mesh_topology", "edge_node_connectivity": "links"})
    )
    assert graph_of([ugrid], "temp") == ("node", expected)
    assert graph_of([plain[["temp"]], ugrid[["links", "grid"]]], "temp", "node") == ("node", expected)
    said = ugrid.assign(other=((), 0, {"cf_role": "mesh_topology", "edge_node_connectivity": "nothing"}))
    said["temp"].attrs.update(mesh="grid", location="node")
    assert graph_of([said], "temp") == ("node", expected)


def test_sides_of_faces_are_edges():
    faces = np.array([[0, 1, 2, 3], [1, 4, 2, -1]])  # a square and a triangle
    expected = Graph.of(5, np.array([[0, 1], [1, 2], [2, 3], [3, 0], [1, 4], [4, 2]]))
    topology = {"cf_role": "mesh_topology", "face_node_connectivity": "corners"}
    for table, dims, attrs in (
        (faces, ("face", "corner"), topology),
        (faces.T, ("corner", "face"), {**topology, "face_dimension": "face"}),
    ):
        data = xr.Dataset(
            {"v": (("node",), np.zeros(5)), "mesh": ((), 0, attrs), "corners": (dims, table, {"_FillValue": -1})}
        )
        assert graph_of([data], "v") == ("node", expected)


def test_a_variable_without_a_graph_is_named():
    plain = mesh()
    cases = {
        "variable 'temp' has no graph: .*add the edges": plain[["temp"]],
        "edges is no table of nodes": plain.assign(edges=("edge", np.arange(6))),
        "edges has no dimension of length 2": plain.assign(edges=(("face", "corner"), np.zeros((5, 3), int))),
        "numbers of nodes that are not whole": plain.assign(edges=(("edge", "two"), MIXED + 0.5)),
        "edges has 500 nodes or more, which none of its dimensions has .time 40, node 126.": plain.assign(
            edges=(("edge", "two"), np.array([[0, 499]]))
        ),
    }
    for message, data in cases.items():
        with pytest.raises(InputError, match=message):
            graph_of([data], "temp")
    with pytest.raises(InputError, match=r"'temp': its edges name the node 126, .*start_index"):
        graph_of([plain.assign(edges=plain.edges + 1)], "temp", "node")
    with pytest.raises(InputError, match="has no dimension 'nodes'; it has time, node"):
        graph_of([plain], "temp", "nodes")
    plain["temp"].attrs["location"] = "face"
    with pytest.raises(InputError, match="lies on the faces of its mesh"):
        graph_of([plain], "temp")


def test_ingestion_takes_one_graph_and_one_dimension(tmp_path):
    def source(*files, **tiling) -> Source:
        chosen = tuple(Selection(path=str(tmp_path / f)) for f in files)
        return Source(train=chosen, archive=chosen[:1], tiling=Tiling(system="spectral", **tiling))

    mesh().to_netcdf(tmp_path / "a.nc")
    mesh(pairs=MIXED[:-1]).to_netcdf(tmp_path / "b.nc")
    facts = ingest(source("a.nc", eigenvectors=5), tmp_path, tmp_path / "s.zarr")
    assert facts["grid"] == {"node": 126} and facts["system"] == "spectral"
    signals = read_signals(tmp_path / "s.zarr")
    assert isinstance(signals.domain, Points) and signals.inputs.shape == (126, 5) and signals.points == 126
    assert np.array_equal(signals.inputs.T, spectral_coordinates(Graph.of(126, MIXED), 5))
    assert signals.splits["train"].mask is not None
    with pytest.raises(InputError, match=r"b\.nc: variable 'temp' lies on another graph than those of .*a\.nc"):
        ingest(source("a.nc", "b.nc"), tmp_path, tmp_path / "t.zarr")
    with pytest.raises(InputError, match="'temp': spectral coordinates are those of one dimension"):
        ingest(source("a.nc", signal_dims=("time", "node")), tmp_path, tmp_path / "t.zarr")


# --- a model on a graph


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a model of the method basis on the mixed lattice, and of what it learned from."""
    folder = tmp_path_factory.mktemp("graph")
    mesh().to_netcdf(folder / "train.nc")
    params = {
        "threads": 1, "inr": {"width": 32, "latent": 8},
        "meta": {"steps": 250, "points": 126, "validate_every": 125}, "quantiser": {"steps": 200},
    }  # fmt: skip
    (folder / "p.yaml").write_text(yaml.safe_dump(params))
    run(
        "train", folder / "train.nc", "--system", "spectral", "--eigenvectors", 10, "--out", folder / "m.vcinr",
        "--params", folder / "p.yaml",
    )  # fmt: skip
    return folder


def test_from_training_to_netcdf(trained, tmp_path):
    new, archive, back = mesh(30, 1), tmp_path / "a.zarr", tmp_path / "back.nc"
    new.to_netcdf(tmp_path / "new.nc")
    done = run("compress", tmp_path / "new.nc", archive, "--model", trained / "m.vcinr", "--abs-error", 0.5)
    assert "model" in done.stdout
    run("verify", archive, "--against", tmp_path / "new.nc")
    run("decompress", archive, back)
    with xr.open_dataset(back) as found:
        assert float(abs(found.temp - new.temp).max()) <= 0.5 and np.isnan(found.temp.values[2, 5])
        assert np.array_equal(found.edges, MIXED)
    alone = vcinr.compress(tmp_path / "new.nc", tmp_path / "b.zarr", abs_error=0.5, variables=["temp"])
    facts = vcinr.info(archive)
    assert facts["variables"]["temp"]["bytes"] < 0.7 * alone["variables"]["temp"]["bytes"], "the model predicts"
    found = vcinr.open(archive).temp.values
    assert np.allclose(decoder().read(archive, "temp"), found, rtol=0, atol=1e-4, equal_nan=True)


def test_signals_that_were_never_seen_are_fitted(trained, tmp_path):
    new = mesh(30, 2)
    facts = vcinr.compress(new, tmp_path / "best.zarr", model=trained / "m.vcinr")
    assert facts["variables"]["temp"]["bits_per_value"] < 1.5
    errors = vcinr.open(tmp_path / "best.zarr").temp - new.temp
    anomaly = new.temp - mesh().temp.mean("time")
    share = float((errors**2).mean() / (anomaly**2).mean())
    assert share < 0.05, share


def test_another_graph_is_refused(trained, tmp_path):
    model = trained / "m.vcinr"
    new = mesh(12, 1)
    new.assign(edges=new.edges[:-1].rename(edge="fewer")).to_netcdf(tmp_path / "other.nc")
    new.drop_vars("edges").to_netcdf(tmp_path / "bare.nc")
    for name, message in (
        ("other.nc", "variable 'temp' lies on another graph (126 nodes and 228 edges) than the one of 126 nodes"),
        ("bare.nc", "variable 'temp' has no graph"),
    ):
        said = error("compress", tmp_path / name, tmp_path / "a.zarr", "--model", model, "--abs-error", 1)
        assert message in said and not (tmp_path / "a.zarr").exists()
    renamed = new.rename(node="point", time="node")
    facts = vcinr.compress(renamed.rename(node="t"), tmp_path / "a.zarr", model=model, abs_error=1)
    assert facts["variables"]["temp"]["model"], "the dimension may have another name"


def test_positions_help_where_the_model_leaves_something(trained, tmp_path):
    y, x = np.unravel_index(ORDER, (ROWS, COLUMNS))
    rough = mesh(30, 1)
    rough["temp"] += 0.2 * np.sin(2.5 * y) * np.cos(2 * x)
    located = rough.assign(
        lat=("node", y * 1.0, {"units": "degrees_north"}), lon=("node", x * 1.0, {"units": "degrees_east"})
    )
    sizes = {}
    for name, data in (("alone", rough), ("located", located)):
        archive = tmp_path / f"{name}.zarr"
        facts = vcinr.compress(data, archive, model=trained / "m.vcinr", abs_error=0.001, variables=["temp"])
        assert vcinr.verify(archive, data)[0] == [] and facts["variables"]["temp"]["model"]
        found = vcinr.open(archive).temp.values
        assert np.allclose(decoder().read(archive, "temp"), found, rtol=0, atol=1e-4, equal_nan=True)
        sizes[name] = facts["variables"]["temp"]["bytes"]
    assert sizes["located"] < sizes["alone"]


def test_there_is_nothing_between_nodes(trained, tmp_path):
    vcinr.compress(mesh(12, 1), tmp_path / "a.zarr", model=trained / "m.vcinr", abs_error=0.5)
    message = "variable 'temp' lies on the nodes of a graph, between which its model gives no values"
    assert message in error("at", tmp_path / "a.zarr", "--at", "node=4.5")
    assert message in error("at", tmp_path / "a.zarr", "--lat", 4, "--lon", 5)
    like = xr.Dataset(coords={"lat": np.arange(3.0), "lon": np.arange(4.0)})
    like.to_netcdf(tmp_path / "like.nc")
    assert message in error("regrid", tmp_path / "a.zarr", tmp_path / "b.nc", "--like", tmp_path / "like.nc")
    between = vcinr.at(tmp_path / "a.zarr", {"time": 3.5}).temp
    ends = vcinr.open(tmp_path / "a.zarr").temp[3:5].mean("time")
    assert between.dims == ("node",) and np.allclose(between, ends)


def test_the_nodes_are_part_of_the_model(trained):
    model = vcinr.load_model(trained / "m.vcinr")
    assert model.nodes is not None and model.nodes.shape == (10, 126) and model.dims == ("node",)
    assert model.system == {"system": "spectral", "dimensions": 10, "graph": Graph.of(126, MIXED).sha256}
    assert np.array_equal(model.nodes, spectral_coordinates(Graph.of(126, MIXED), 10))
    assert freeze(model).data == model.data and model.data[8] == 3
    header, tensors = container.unpack(model.data, "m")
    header.pop("tensors")
    for changed, reason in (
        ({k: v for k, v in tensors.items() if k != "graph/nodes"}, "missing"),
        ({**tensors, "graph/nodes": tensors["graph/nodes"][:9]}, "another number of coordinates"),
        ({**tensors, "graph/edges": tensors["graph/nodes"]}, "KeyError"),
    ):
        with pytest.raises(ModelError, match=f"the model is malformed .*{reason}"):
            from_bytes(container.pack(header, changed, in_8_bits, version=3), "m")
    with pytest.raises(ModelError, match=r"malformed .*names no graph"):
        header["system"] = {**model.system, "graph": 3}
        from_bytes(container.pack(header, tensors, in_8_bits, version=3), "m")


def in_8_bits(name: str, array: np.ndarray) -> bool:
    return name == "graph/nodes"


def test_features_of_a_node_share_a_latent(tmp_path):
    temp = mesh()["temp"]
    wind = xr.concat([temp, 3 - 0.5 * temp], "component").transpose("time", "component", "node").rename("wind")
    data = xr.Dataset({"wind": wind, "edges": mesh()["edges"]})
    params = small(method="basis", meta={"steps": 60, "validate_every": 60}, quantiser={"steps": 20})
    model = vcinr.train(
        data, tmp_path / "m.vcinr", variables=["wind"], feature_dim="component", system="spectral", eigenvectors=6,
        params=params,
    )  # fmt: skip
    assert model.features == 2
    facts = vcinr.compress(data, tmp_path / "a.zarr", model=model, abs_error=0.5, variables=["wind"])
    assert facts["variables"]["wind"]["max_abs_error"] <= 0.5 and vcinr.verify(tmp_path / "a.zarr", data)[0] == []


@pytest.mark.parametrize("method", ["vcinr", "coinpp"])
def test_methods_by_gradient_take_the_same_coordinates(method, tmp_path):
    params = small(method=method, meta={"steps": 20, "validate_every": 20}, quantiser={"steps": 20})
    vcinr.train(mesh(), tmp_path / "m.vcinr", system="spectral", eigenvectors=6, params=params)
    facts = vcinr.compress(mesh(9, 1), tmp_path / "a.zarr", model=tmp_path / "m.vcinr", abs_error=1)
    assert facts["variables"]["temp"]["max_abs_error"] <= 1
