"""The measurement of bulk compression: a small run of all of it, and the section of the results page."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest
import xarray as xr

from benchmarks import cost, scale, scaling
from benchmarks.measure import scale as measure
from benchmarks.report import sections
from tests.conftest import ROOT
from vcinr.errors import BoundError


@pytest.fixture
def files(tmp_path):
    """Two files of one name in two folders, with a coordinate, a constant, masked values and numbers of two types."""
    rng = np.random.default_rng(0)
    for member in ("member0", "member1"):
        values = rng.normal(size=(6, 20, 30)).cumsum(1)
        masked = np.where(values > 5, np.nan, values).astype("f4")
        data = xr.Dataset(
            {
                "single": (("time", "y", "x"), values.astype("f4")),
                "double": (("time", "y", "x"), values),
                "zero": (("time", "y", "x"), np.zeros((6, 20, 30), "f4")),
                "masked": (("time", "y", "x"), masked),
            },
            {"time": np.arange(6.0)},
        )
        (tmp_path / "in" / member).mkdir(parents=True)
        data.to_netcdf(tmp_path / "in" / member / "p0000.nc")
    (tmp_path / "in" / "part.nc").write_bytes(b"not finished")
    return tmp_path / "in"


@pytest.mark.slow
def test_everything_is_measured(files, tmp_path, monkeypatch):
    monkeypatch.setattr(measure.Memory, "every", 0.1)
    result = tmp_path / "scale.json"
    command = [str(files), "--workers", "2", "--plan", "50", "--scratch", str(tmp_path), "--result", str(result)]
    assert scale.main([*command, "--data", "small files", "--note", "a trial"]) == 0
    facts = json.loads(result.read_text())
    assert [run["effort"] for run in facts["runs"]] == ["fast", "best"] and facts["plan"]["files"] == 50
    assert [run["workers"] for run in facts["scaling"]] == [1, 2]
    for run in (*facts["runs"], *facts["scaling"], *facts["rivals"]):
        assert run["files"] == 2 and 0 < run["bytes_out"] < run["bytes_in"] and run["seconds"] > 0
    assert [run["rival"] for run in facts["rivals"]] == list(measure.rivals())
    assert all(run["chunks"] == 2 * 5 for run in facts["rivals"])
    lines = facts["runs"][0]["memory"]
    assert lines and all(line["peak_mib"] >= max(line["mib"]) > 20 for line in lines)
    assert (tmp_path / "scale.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "scale.json", "scale.png"]
    assert scaling.main([str(files), "--rounds", "1", "--files", "2", "--out", str(tmp_path / "scaling.json")]) == 0
    gains = json.loads((tmp_path / "scaling.json").read_text())
    assert set(gains["gains"]) == {"arithmetic", "copying", "fast", "best"} and gains["files"] == 2
    monkeypatch.setattr(sections, "read", lambda name: gains if "scaling" in name else facts)
    section = sections.scale()
    assert "small files" in section and "A plan of 50 files" in section and "SPERR" in section


def test_a_rival_that_misses_its_bound_is_found(files, tmp_path, monkeypatch):
    work = measure.Work(str(files / "member0/p0000.nc"), str(tmp_path / "out"), 1e-3, "SPERR")
    assert measure.by_rival(work)["chunks"] == 5
    rival = measure.rivals()["SPERR"]
    monkeypatch.setattr(
        measure, "rivals", lambda: {"SPERR": measure.Rival("SPERR", lambda v, e: rival.encode(v, 9 * e), rival.decode)}
    )
    with pytest.raises(BoundError, match=r"SPERR: (single|double) is .* outside of its bound"):
        measure.by_rival(work)


def test_memory_is_that_of_a_process():
    code = "import time; held = bytearray(64 << 20); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    try:
        end = time.monotonic() + 30
        while measure.resident(child.pid)[0] < 64 << 20:
            assert time.monotonic() < end
            time.sleep(0.05)
        now, peak = measure.resident(child.pid)
        assert 64 << 20 < now <= peak < 256 << 20 and measure.processor_seconds(child.pid) >= 0
    finally:
        child.kill()
        child.wait()
    assert measure.resident(child.pid) == (0, 0) and measure.processor_seconds(child.pid) == 0
    line = measure._line([(float(i), (100 + i) << 20) for i in range(40)], 150 << 20, 10)
    assert line["rise_mib"] == 20 and line["peak_mib"] == 150 and len(line["mib"]) == 10


def test_files_are_chosen_up_to_a_size(tmp_path):
    for i in range(4):
        (tmp_path / f"{i}.nc").write_bytes(bytes(1000))
    every = sorted(tmp_path.iterdir())
    assert scale.first(every, 1.5e-6) == every[:2] and scale.first(every, float("inf")) == every


# --- what 100 TB would cost ---------------------------------------------------------------------------------


RATES = cost.Rates(encode=10e6, verify=100e6, ratio=8.0, driver=0.01, memory=500e6)


def test_cost_follows_from_rates():
    job = cost.Job(bytes=36e12, archive=36e9, arrays=10, nodes=10, cores=10)
    found = cost.cost(job, RATES)
    assert found["core_hours"] == pytest.approx(1000) and found["hours"] == pytest.approx(10)
    assert found["verify_core_hours"] == pytest.approx(100)
    assert found["read"] == pytest.approx(1e9) and found["written"] == pytest.approx(1e9 / 8)
    assert found["archives"] == 1000 and found["batches"] == 60_000
    assert found["load: time of the driver"] == pytest.approx(600 / 36_000)
    assert found["load: memory of a node"] == pytest.approx(5e9 / 128e9)
    assert found["put"] > found["chunks"] == pytest.approx(36e12 / 4 / 2**20) and found["get"] > 36e12 / (4 << 20)
    many = cost.cost(cost.Job(bytes=36e12, archive=36e6, arrays=10, nodes=10, cores=10), RATES)
    assert many["put"] > found["put"] and many["manifest"] < found["manifest"] and many["roots"] > found["roots"]
    twice = cost.cost(cost.Job(bytes=36e12, archive=36e9, arrays=10, nodes=20, cores=10), RATES)
    assert twice["hours"] == found["hours"] / 2 and twice["load: requests to write"] > found["load: requests to write"]


def test_the_page_on_cost_is_as_it_is_made(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert cost.main(["--check"]) == 0, "run python -m benchmarks.cost"
    results = json.loads(cost.RESULT.read_text())
    results["runs"][0]["batch_seconds"] *= 2
    assert cost.page(cost.PAGE.read_text(), results) != cost.PAGE.read_text()
