"""The climate model's output in bulk: how much is simulated, and that a stopped run goes on. The model is not run."""

import sys
from pathlib import Path

import pytest

from benchmarks.data import gcm

STAND_IN = f"""#!{sys.executable}
import sys, time
from pathlib import Path
assert sys.argv[1] == "-c" and "save_checkpoint" in sys.argv[2]
core, truncation, levels, step, seed, files, saves, spin_up = map(int, sys.argv[3:11])
out = Path(sys.argv[12])
for k in range(files):
    if (file := out / f"p{{k:04d}}.nc").exists():
        continue
    if seed == 1 and k == 1 and not (out / "failed").exists():
        (out / "failed").touch()
        sys.exit(3)
    file.write_text(f"{{truncation}} {{levels}} {{saves}} {{float(sys.argv[11]) * 24:g}}")
"""
"""Stands for the Python with the model."""


@pytest.fixture
def python(tmp_path: Path) -> Path:
    (tmp_path / "python").write_text(STAND_IN)
    (tmp_path / "python").chmod(0o755)
    return tmp_path / "python"


def test_as_much_is_planned_as_was_asked_for():
    assert gcm.bytes_of_save(63, 8) == pytest.approx(16.5e6, rel=0.01), "as measured"
    assert gcm.bytes_of_save(63, 16) == pytest.approx(29e6, rel=0.01)
    run = gcm.planned(63, save_hours=3, gigabytes=10, members=2)
    assert run.saves == 16 and run.files == 19 and 250e6 < run.bytes_of_file < 280e6
    assert run.files * run.members * run.bytes_of_file >= 10e9


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"truncation": 50}, "choose one of 31, 42, 63"),
        ({"truncation": 63, "save_hours": 0.5}, "0.5 hours are no whole number of steps of 20 minutes"),
        ({"truncation": 31, "members": 0}, "must be positive"),
    ],
)
def test_what_cannot_be_simulated_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        gcm.planned(**wrong)


def test_a_stopped_run_goes_on_and_files_do_not_change(python, tmp_path, capsys, monkeypatch):
    command = [str(tmp_path / "out"), "--truncation", "31", "--gigabytes", "0.04", "--megabytes-of-file", "8"]
    monkeypatch.setattr(gcm, "environment", lambda folder: python)
    with pytest.raises(SystemExit, match=r"member1: the model stopped with status 3; .* run the same command again"):
        gcm.main(command)
    whole = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.nc")}
    assert tmp_path / "out/member1/p0000.nc" in whole and tmp_path / "out/member1/p0001.nc" not in whole
    gcm.main(command)
    files = sorted((tmp_path / "out").rglob("*.nc"))
    assert len(files) == 6 and files[0].read_text() == "31 8 2 3"
    assert all(p.stat().st_mtime_ns == t for p, t in whole.items())
    assert "2 member(s) of 3 file(s) of about 8 MB" in capsys.readouterr().out
    python.unlink()
    gcm.main(command)  # nothing is left to do


def test_an_environment_is_made_once(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(gcm.subprocess, "run", lambda command, check: calls.append(command))
    monkeypatch.setattr(gcm.shutil, "which", lambda name: None)
    (tmp_path / "pip").mkdir()
    first = gcm.environment(tmp_path / "pip")
    assert gcm.environment(tmp_path / "pip") == first == tmp_path / "pip/bin/python"
    assert [c[1:3] for c in calls] == [["-m", "venv"], ["-m", "pip"]] and calls[-1][-1] == "jcm==3.0.0"
    monkeypatch.setattr(gcm.shutil, "which", lambda name: "/bin/uv")
    (tmp_path / "uv").mkdir()
    gcm.environment(tmp_path / "uv")
    assert calls[-1][:3] == ["/bin/uv", "pip", "install"]
