"""Many files as one data set: what goes together, what does not, and how little is opened."""

import json
import pickle
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest
import xarray as xr

import vcinr
from vcinr.errors import InputError
from vcinr.formats import concat
from vcinr.formats.concat import concat_of, facts_of, merge, open_concat, opened


def monthly(start: int, steps: int, *, since: str = "2000-01-01", seed: int | None = None) -> xr.Dataset:
    """A few steps on a small grid, with bounds of times, a field without time, text and packed numbers."""
    rng = np.random.default_rng(start if seed is None else seed)
    times = np.arange(start, start + steps, dtype=float)
    dataset = xr.Dataset(
        {
            "t2m": (("time", "lat", "lon"), rng.normal(280, 5, (steps, 3, 4)).astype("f4"), {"units": "K"}),
            "rain": (("time", "lat", "lon"), rng.integers(0, 99, (steps, 3, 4)).astype("i2"), {"scale_factor": 0.5}),
            "height": (("lat", "lon"), np.arange(12.0).reshape(3, 4)),
            "time_bnds": (("time", "nv"), np.stack([times, times + 1], 1)),
        },
        {
            "time": ("time", times, {"units": f"days since {since}", "bounds": "time_bnds"}),
            "lat": ("lat", np.array([10.0, 20, 30], "f4")),
            "lon": ("lon", np.arange(4.0)),
        },
        {"title": "weather", "history": f"made at {start}"},
    )
    for variable in dataset.variables.values():
        variable.encoding["_FillValue"] = None
    dataset.encoding["unlimited_dims"] = {"time"}
    return dataset


def written(folder: Path, *datasets: xr.Dataset, names: str = "abcdefgh", **options) -> list[str]:
    places = [str(folder / f"{names[i]}.nc") for i in range(len(datasets))]
    for dataset, place in zip(datasets, places, strict=True):
        dataset.to_netcdf(place, **options)
    return places


@pytest.fixture
def three(tmp_path: Path) -> tuple[list[str], xr.Dataset]:
    """Files of 3, 1 and 4 steps, and what they are together."""
    parts = [monthly(0, 3), monthly(3, 1), monthly(4, 4)]
    whole = xr.concat(parts, "time", data_vars="minimal", combine_attrs="drop_conflicts")
    return written(tmp_path, *parts), whole


def test_files_are_one_data_set(three):
    places, whole = three
    data = open_concat(places, "time")[""]
    assert data.load().identical(whole), "values, attributes in which all agree, coordinates"
    assert data.encoding["unlimited_dims"] == {"time"} and "history" not in data.attrs
    assert data.identical(open_concat(places[::-1], "time")[""].load()), "the coordinate orders them"


@pytest.mark.parametrize(
    "part",
    [
        slice(None), slice(2, 3), slice(1, 5), slice(0, 0), slice(None, None, 3), slice(6, 1, -2),
        slice(None, None, -1), -1, 3, [0, 7, 3, 3], np.array([True, False] * 4),
    ],
    ids=str,
)  # fmt: skip
def test_every_part_is_that_of_the_whole(three, part):
    places, whole = three
    data = open_concat(places, "time")[""]
    for where in ({"time": part}, {"time": part, "lat": 1}, {"lat": slice(2, 0, -1), "time": part, "lon": [3, 1]}):
        assert data["t2m"].isel(where).load().identical(whole["t2m"].isel(where)), where


def test_three_hundred_files_of_odd_lengths(tmp_path, monkeypatch):
    lengths = np.random.default_rng(0).integers(1, 6, 300)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    places = []
    for i, (start, n) in enumerate(zip(starts, lengths, strict=False)):
        places.append(str(tmp_path / f"{i}.nc"))  # 10 comes before 9 in a listing
        values = np.arange(start, start + n, dtype="f4")[:, None] + np.zeros(5, "f4")
        small = xr.Dataset({"v": (("time", "x"), values)}, {"time": np.arange(start, start + n, dtype="i4")})
        small.to_netcdf(places[-1], format="NETCDF3_CLASSIC")
    opens, now, most = Counter(), set(), []
    real, close = concat.open_groups, concat._close

    def watched(place):
        opens[place] += 1
        groups = real(place)
        now.add(id(groups))
        most.append(len(now))
        return groups

    monkeypatch.setattr(concat, "open_groups", watched)
    monkeypatch.setattr(concat, "_close", lambda groups: now.discard(id(groups)) or close(groups))
    data = open_concat(sorted(places), "time")[""]
    assert len(opens) == 300 and set(opens.values()) == {1} and max(most) == 1, "each once, one at a time"
    opens.clear()
    assert data["v"][starts[100] : starts[102], 2].values.tolist() == list(range(starts[100], starts[102]))
    assert dict(opens) == {places[100]: 1, places[101]: 1}, "a region opens the files that it needs"
    assert np.array_equal(data["v"][:, 0].values, np.arange(starts[-1])) and max(most) <= 4
    data.close()
    assert not now


def test_it_is_pickled_and_written_down_by_its_description(three, monkeypatch):
    places, whole = three
    facts = [pickle.loads(pickle.dumps(facts_of(place, "time"))) for place in places]
    described = merge(facts[::-1], places, "time")
    assert described == merge(facts, places, "time")
    node = json.loads(json.dumps(described.as_node()))
    assert concat_of(node) == described
    groups = opened(described)
    groups[""]["t2m"][0].load()  # with a file open
    packed = pickle.dumps(groups)
    assert len(packed) < 20_000
    monkeypatch.setattr(concat, "facts_of", None)
    assert pickle.loads(packed)[""].load().identical(whole) and opened(concat_of(node))[""].load().identical(whole)


def test_an_archive_of_files_is_that_of_the_whole(three, tmp_path):
    places, whole = three
    whole.to_netcdf(tmp_path / "whole.nc")
    vcinr.compress(open_concat(places, "time"), tmp_path / "a.zip", abs_error=0.1, chunk=2, effort="fast")
    vcinr.compress(vcinr.open_groups(tmp_path / "whole.nc"), tmp_path / "b.zip", abs_error=0.1, chunk=2, effort="fast")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes(), "a chunk may span files"
    assert vcinr.verify(tmp_path / "a.zip", open_concat(places, "time"))[0] == []


def test_groups(tmp_path):
    places = []
    for i in range(3):
        tree = xr.DataTree.from_dict(
            {
                "/": monthly(2 * i, 2),
                "/daily": xr.Dataset({"v": (("time", "y"), np.full((2, 5), i, "i4"))}),
                "/grid": xr.Dataset({"mask": ("y", np.arange(5, dtype="i1"))}),
            }
        )
        places.append(str(tmp_path / f"{i}.nc"))
        tree.to_netcdf(places[-1])
    groups = open_concat(places, "time")
    assert list(groups) == ["", "daily", "grid"] and groups["daily"].sizes["time"] == 6
    assert groups["daily"]["v"][:, 1].values.tolist() == [0, 0, 1, 1, 2, 2]
    assert groups["grid"]["mask"].values.tolist() == list(range(5))


def test_files_along_a_new_dimension(tmp_path):
    parts = [xr.Dataset({"v": ("x", np.full(3, i, "f4"))}, {"x": [1, 2, 3], "time": 5.0 - i}) for i in range(3)]
    places = written(tmp_path, *parts)
    data = open_concat(places, "time")[""]
    assert data["v"].dims == ("time", "x") and data["time"].values.tolist() == [3, 4, 5]
    assert (
        data["v"].values[:, 0].tolist() == [2, 1, 0] and data["v"][1, 2] == 1 and data["v"][:, 1].values.shape == (3,)
    )
    with pytest.raises(InputError, match=r"'time' has values without the dimension 'member', and in .* it has others"):
        open_concat(places, "member")
    data.close()
    parts = [part.drop_vars("time") for part in parts]
    members = open_concat(written(tmp_path, *parts)[::-1], "member")[""]
    assert members["v"].dims == ("member", "x") and members["v"].values[:, 0].tolist() == [2, 1, 0], "as they are given"
    assert members["x"].values.tolist() == [1, 2, 3] and "member" not in members.coords
    members.close()
    parts[0].expand_dims("member").to_netcdf(places[0])
    with pytest.raises(InputError, match=r"b\.nc: has no dimension 'member', which .*a\.nc has"):
        open_concat(places, "member")


# --- times that count from different dates ------------------------------------------------------------------


def test_times_are_counted_from_one_date(tmp_path):
    february, march = monthly(0, 29, since="2000-02-01"), monthly(0, 2, since="2000-03-01 00:00:00", seed=9)
    march = march.assign_coords(time=march["time"].copy(data=24 * march["time"].values))
    march["time"].attrs["units"] = "hours since 2000-03-01 00:00"
    march["time_bnds"] = march["time_bnds"].copy(data=24 * march["time_bnds"].values)
    places = written(tmp_path, monthly(0, 31), february, march)
    data = open_concat(places[::-1], "time")[""]
    assert data["time"].attrs["units"] == "hours since 2000-01-01"
    assert np.array_equal(data["time"], 24.0 * np.arange(62))
    assert np.array_equal(data["time_bnds"], 24.0 * np.stack([np.arange(62), np.arange(1, 63)], 1)), "bounds as well"
    assert data["time_bnds"][31:33, 0].values.tolist() == [24 * 31, 24 * 32]
    decoded = xr.decode_cf(pickle.loads(pickle.dumps(data)))
    assert str(decoded["time"].values[-1])[:10] == "2000-03-02"
    (tmp_path / "old").mkdir()
    old = [monthly(0, 30, since="1999-02-01"), monthly(0, 1, since="1999-03-01")]
    for part in old:
        part["time"].attrs["calendar"] = "360_day"
    assert np.array_equal(open_concat(written(tmp_path / "old", *old), "time")[""]["time"], np.arange(31.0))


@pytest.mark.parametrize("dtype", ["i4", "f8", "f4"])
def test_times_that_would_be_rounded_are_refused(tmp_path, dtype):
    one, other = monthly(0, 2), monthly(0, 2, since="2000-02-01 00:00:07")
    for part in (one, other):
        attrs = part["time"].attrs
        part["time"] = ("time", np.arange(2).astype(dtype), attrs)
    places = written(tmp_path, one, other)
    with pytest.raises(
        InputError, match=r"b\.nc: variable 'time': .* is no exact number of .*; count the times of all"
    ):
        open_concat(places, "time")


# --- files that do not go together --------------------------------------------------------------------------


def change(name: str, **attrs) -> Callable[[xr.Dataset], xr.Dataset]:
    def changed(dataset: xr.Dataset) -> xr.Dataset:
        dataset[name].attrs.update(attrs)
        return dataset

    return changed


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            lambda d: d.isel(lon=slice(3)),
            "'t2m' has the grid time of any length x lat 3 x lon 3, and in .* lon 4; join",
        ),
        (lambda d: d.assign_coords(lat=d["lat"] + 1), "'lat' has values .*; regrid one"),
        (lambda d: d.assign(height=d["height"] + 1), "'height' has values without the dimension 'time'.*; give it the"),
        (lambda d: d.assign(t2m=d["t2m"].astype("f8")), "'t2m' has the type float64, and in .* the type float32; conv"),
        (lambda d: d.transpose("lat", ...), "'t2m' has the grid"),
        (change("t2m", units="degC"), "'t2m' has the units degC, and in .* it has the units K; convert"),
        (
            change("rain", scale_factor=0.25),
            "'rain' has the scale_factor 0.25, .* the scale_factor 0.5; pack all files",
        ),
        (change("rain", add_offset=1.0), "'rain' has the add_offset 1.0, and in .* no add_offset; pack all files"),
        (
            change("t2m", missing_value=np.float32(-1)),
            "'t2m' has the missing_value -1.0, .* no missing_value; give all",
        ),
        (change("time", calendar="noleap"), "'time' has the calendar noleap, and in .* no calendar; give all"),
        (lambda d: d.drop_vars("rain"), "has no variable 'rain', which .*a.nc has"),
        (lambda d: d.isel(time=0).drop_encoding(), "has no dimension 'time', which .*a.nc has"),
    ],
    ids=lambda v: v[:20] if isinstance(v, str) else "",
)
def test_files_that_differ_are_refused(tmp_path, wrong, message):
    parts = [monthly(0, 2), wrong(monthly(2, 2))]
    places = written(tmp_path, *parts)
    with pytest.raises(InputError, match=message) as caught:
        open_concat(places, "time")
    text = str(caught.value)
    assert all(place in text for place in places) and "\n" not in text and text.startswith(places[1])


def test_coordinates_that_overlap_are_refused(tmp_path):
    places = written(tmp_path, monthly(0, 3), monthly(2, 3))
    with pytest.raises(InputError, match=r"b\.nc: overlaps with .*a\.nc along 'time' \(2\.0 follows 2\.0\); leave"):
        open_concat(places, "time")
    with pytest.raises(InputError, match=r"a\.nc: is given twice"):
        open_concat([places[0], places[0]], "time")
    back = written(tmp_path, monthly(0, 3).isel(time=[0, 2, 1]), names="x")
    with pytest.raises(InputError, match=r"x\.nc: coordinate 'time' does not rise all the way \(1\.0 follows 2\.0\)"):
        open_concat(back, "time")


def test_coordinates_may_fall_all_the_way(tmp_path):
    places = written(tmp_path, monthly(0, 3).isel(time=[2, 1, 0]), monthly(3, 2).isel(time=[1, 0]))
    assert open_concat(places, "time")[""]["time"].values.tolist() == [4, 3, 2, 1, 0]


def test_files_without_steps_and_without_coordinates(tmp_path):
    places = written(tmp_path, monthly(0, 2).isel(time=slice(0)), monthly(0, 2))
    assert open_concat(places, "time")[""].load().identical(vcinr.open_groups(places[1])[""])
    bare = written(tmp_path, *(monthly(i, 1).drop_vars("time") for i in (5, 1)), names="xy")
    assert open_concat(bare, "time")[""]["time_bnds"].values[:, 0].tolist() == [5, 1]
    with pytest.raises(InputError, match="no files to join along 'time'"):
        open_concat([], "time")
    with pytest.raises(InputError, match=r"y\.nc: nothing is known of it"):
        merge([facts_of(bare[0], "time")], bare, "time")


def test_a_file_that_changes_later_is_refused(three):
    places, _ = three
    data = open_concat(places, "time")[""]
    whole = Path(places[1]).read_bytes()
    monthly(3, 2).to_netcdf(places[1])
    with pytest.raises(InputError, match=re.escape(places[1]) + ": variable 't2m' has changed since"):
        data["t2m"].load()
    Path(places[1]).write_bytes(whole)
    assert data["t2m"].shape[0] == len(data["t2m"].values), "it is opened again"
    data = open_concat(places, "time")[""]
    Path(places[1]).unlink()
    with pytest.raises(InputError, match=r"b\.nc: no such file"):
        open_concat(places, "time")
    data.close()
    with pytest.raises(InputError, match=r"^\S*b\.nc: no such file or store; check the path$"):
        vcinr.compress({"": data[["t2m"]]}, Path(places[0]).parent / "a.zip", abs_error=1.0)


def test_text_and_files_behind_a_url(tmp_path):
    memory = fsspec.filesystem("memory")
    urls = []
    for i, word in enumerate(("one", "two")):
        part = xr.Dataset({"name": ("time", np.array([word], object)), "v": ("time", [float(i)])}, {"time": [i]})
        part.to_netcdf(tmp_path / "a.nc")
        memory.pipe(f"/concat/{i}.nc", (tmp_path / "a.nc").read_bytes())
        urls.append(f"memory://concat/{i}.nc")
    data = open_concat(urls, "time")[""].load()
    assert data["name"].values.tolist() == ["one", "two"] and data["v"].values.tolist() == [0, 1]
