"""Golden archives: what earlier versions wrote is read as it was then, by the codec and by the reference decoder."""

import numpy as np
import pytest
import xarray as xr
import zarr

import vcinr
from benchmarks.determinism import slack
from tests.golden import make, reference
from vcinr.archive import store
from vcinr.codec.chunk import VERSION, describe

ARCHIVES = sorted(make.FOLDER.glob("v*/*.zip"))


def test_there_are_archives_of_this_version():
    assert {p.stem for p in ARCHIVES if p.parent.name == f"v{VERSION}"} == set(make.archives())


@pytest.mark.parametrize("path", ARCHIVES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_golden_archive_is_read_as_ever(path):
    assert vcinr.verify(path, make.data(path.stem))[0] == []
    now = make.stored(path)
    with np.load(path.with_suffix(".npz")) as then:
        assert set(now) == set(then)
        for name, values in then.items():
            assert now[name].dtype == values.dtype and now[name].shape == values.shape
            if allowed := slack(path, name.replace("|", "/")):
                assert np.abs(now[name] - values).max() <= allowed
            else:
                assert now[name].tobytes() == values.tobytes(), name
    with xr.open_zarr(zarr.storage.ZipStore(path, mode="r"), chunks=None) as back:
        assert list(back["name"].values) == [f"step {i}" for i in range(7)] and back.attrs["title"] == "golden"


@pytest.mark.parametrize("path", ARCHIVES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_the_reference_decoder_reads_the_same(path):
    decoder = reference.decoder()
    for name, values in make.stored(path).items():
        back = decoder.read(path, name.replace("|", "/"))
        assert back.dtype == values.dtype and back.shape == values.shape, name
        if allowed := slack(path, name.replace("|", "/")):
            assert np.abs(back - values).max() <= allowed
        else:
            assert back.tobytes() == values.tobytes(), name


def test_golden_archives_hold_every_kind_of_chunk():
    seen = set()
    for path in ARCHIVES:
        archive = store.open_store(path)
        numbers = {n.replace("|", "/") for n in make.stored(path)}
        for key in store.keys(archive):
            if key.partition("/c")[0] in numbers and not key.endswith(".json"):
                facts = describe(store.get(archive, key))
                seen |= {k for k, v in facts.items() if v is not None} | {facts["mode"]}
    assert seen >= {"lossless", "lossy", "rate", "extent", "mask", "specials", "prior", "constant", "residual", "log"}
