"""Faults: kills, full and read-only disks, damage, hostile archives. Never a wrong value, never half an archive."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
import zarr

import vcinr
from tests.faults import fuzz
from tests.test_archive import waves
from vcinr.archive import models
from vcinr.archive.spool import Spool, digest_of
from vcinr.codec.chunk import VERSION, seed_of
from vcinr.codec.decode import decode
from vcinr.codec.promise import Field
from vcinr.container import MAGIC
from vcinr.errors import CorruptError, InputError, ModelError, VcinrError
from vcinr.inr import model as artifacts


@pytest.fixture
def source(tmp_path):
    rng = np.random.default_rng(0)
    field = rng.standard_normal((40, 20, 30)).cumsum(1).cumsum(2).astype("f4")
    xr.Dataset({"v": (("t", "y", "x"), field)}).to_netcdf(tmp_path / "in.nc")
    return tmp_path / "in.nc"


@pytest.fixture
def whole(tiny_maps, tiny_model, tmp_path):
    """An archive with everything in it: a model, packed values, text, coordinates, a group."""
    data = waves(tiny_maps)
    data["packed"] = (data["t"].dims, data["t"].values.astype("i2"), {"scale_factor": 0.5, "_FillValue": np.int16(-9)})
    data["name"] = ("run", np.array([f"run {i}" for i in range(12)], object))
    groups = {"": data, "sub": xr.Dataset({"w": (("y", "x"), np.arange(30.0).reshape(5, 6))})}
    vcinr.compress(groups, tmp_path / "a.zarr", model=tiny_model, abs_error=2.0, variables=["t"], chunk=5)
    return tmp_path / "a.zarr", groups


def test_killed_by_the_command_line_and_run_again(source, tmp_path):
    target = tmp_path / "out.zarr"

    def command(out):
        words = ["-m", "vcinr.cli", "compress", source, out, "--abs-error", "0.05", "--chunk", "4"]
        return [sys.executable, *map(str, words)]

    subprocess.run(command(tmp_path / "timed.zarr"), check=True, capture_output=True)
    rng, killed = np.random.default_rng(1), 0
    for _ in range(6):
        process = subprocess.Popen(command(target), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not (killed or list(tmp_path.glob(".*part*"))):
            time.sleep(0.001)  # the first is killed when there is something to lose, whatever else the machine does
        time.sleep(rng.uniform(0.0, 0.02 if killed == 0 else 2.0))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        if target.exists() and killed:
            break
        if target.exists():
            shutil.rmtree(target)
    again = not target.exists()  # else the last kill came after publication, and may have left the lock's file
    if again:
        subprocess.run(command(target), check=True, capture_output=True)
    assert killed > 0 and vcinr.verify(target, vcinr.open_groups(source))[0] == []
    assert not (again and list(tmp_path.glob(".*part*"))), "what a killed run left is cleared by the next"
    timed, made = vcinr.info(tmp_path / "timed.zarr"), vcinr.info(target)
    assert made["variables"] == timed["variables"]


@pytest.mark.parametrize("kills", [25, pytest.param(200, marks=pytest.mark.slow)])
def test_kills_at_random_moments_lose_nothing_that_was_finished(kills):
    done = subprocess.run([sys.executable, "-m", "tests.faults.kill", str(kills)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"{kills} kills") and "nothing finished was redone" in done.stdout


def test_the_spool_trusts_nothing_but_whole_chunks_of_the_same_values(tmp_path):
    values, other = np.arange(6.0), np.arange(7.0)
    with Spool(tmp_path / "s", "request") as spool:
        spool.add("v/c/0", digest_of(values), b"zero", {"bytes": 4})
        spool.add("v/c/1", digest_of(other), b"one", {"bytes": 3})
        with pytest.raises(InputError, match="another process"), Spool(tmp_path / "s", "request"):
            pass
    journal = tmp_path / "s" / "journal"
    journal.write_bytes(journal.read_bytes()[:-9])  # the last line was cut by a kill
    with Spool(tmp_path / "s", "request") as spool:
        assert spool.find("v/c/0", values) == (b"zero", {"bytes": 4})
        assert spool.find("v/c/0", values + 1) is None and spool.find("v/c/1", other) is None
        spool.add("v/c/2", digest_of(other), b"two", {"bytes": 3})
    spool.path("v/c/0").write_bytes(b"zer")
    with Spool(tmp_path / "s", "request") as spool:
        assert spool.find("v/c/0", values) is None and spool.find("v/c/2", other) is not None
    with Spool(tmp_path / "s", "another request") as spool:
        assert spool.find("v/c/2", other) is None
    assert not (tmp_path / "s").exists(), "a spool without chunks leaves nothing"


def in_namespace(script, *arguments):
    """Run a shell script with mounts of its own; skips where the system does not allow that."""
    if subprocess.run(["unshare", "-Urm", "true"], capture_output=True).returncode:
        pytest.skip("no mount namespaces here")
    command = ["unshare", "-Urm", "sh", "-ec", script, "sh", sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_full_disk(source, tmp_path):
    """A real file system that fills up in the middle; with room, the same command finishes."""
    (tmp_path / "disk").mkdir()
    script = (
        'mount -t tmpfs -o size=36k tmpfs "$3"\n'
        '"$1" -m vcinr.cli compress "$2" "$3/a.zarr" --abs-error 0.001 --chunk 4 && exit 9\n'
        'test ! -e "$3/a.zarr"; test -s "$3/.a.zarr.part/journal"; mount -o remount,size=64m "$3"\n'
        '"$1" -m vcinr.cli compress "$2" "$3/a.zarr" --abs-error 0.001 --chunk 4 >/dev/null\n'
        '"$1" -m vcinr.cli verify "$3/a.zarr" --against "$2"; ls -A "$3"\n'
    )
    done = in_namespace(script, source, tmp_path / "disk")
    assert done.returncode == 0, done.stderr
    assert "no space left" in done.stderr and "goes on from there" in done.stderr and "Traceback" not in done.stderr
    assert "verified against" in done.stdout and done.stdout.splitlines()[-1] == "a.zarr"


def test_read_only_disk(source, tmp_path):
    (tmp_path / "disk").mkdir()
    script = 'mount -t tmpfs -o ro tmpfs "$3"\n"$1" -m vcinr.cli compress "$2" "$3/a.zarr" --abs-error 0.1\n'
    done = in_namespace(script, source, tmp_path / "disk")
    assert done.returncode == 1 and "Read-only" in done.stderr and len(done.stderr.strip().splitlines()) == 1


def damages(data, rng):
    """What can happen to a file: a bit flipped, an end cut off, a block of zeros, another file's bytes."""
    flipped = bytearray(data)
    flipped[rng.integers(len(data))] ^= 1 << rng.integers(8)
    yield bytes(flipped)
    yield data[: rng.integers(len(data))]
    zeroed = bytearray(data)
    start = int(rng.integers(len(data)))
    zeroed[start : start + 64] = bytes(len(zeroed[start : start + 64]))
    yield bytes(zeroed)


def seen(archive, groups):
    """Whether vcinr says that the archive is damaged; values that it returns instead must be the written ones."""
    models._CACHE.clear()
    try:
        problems, _ = vcinr.verify(archive)
    except VcinrError:
        return True
    return bool(problems)


def test_damage_to_any_file_is_seen_and_never_gives_another_value(whole):
    archive, groups = whole
    sound = {g: vcinr.open(archive, group=g).load() for g in groups}
    files = sorted(p for p in archive.rglob("*") if p.is_file())
    assert len(files) >= 20 and not seen(archive, groups)
    rng = np.random.default_rng(0)
    for path in files:
        good = path.read_bytes()
        for bad in (*damages(good, rng), None):
            if bad == good:
                continue
            path.unlink() if bad is None else path.write_bytes(bad)
            assert seen(archive, groups), f"{path}: {'missing' if bad is None else 'damaged'} and not seen"
            for group, expected in sound.items():
                try:
                    xr.testing.assert_identical(vcinr.open(archive, group=group).load(), expected)
                except (VcinrError, ValueError, RuntimeError, FileNotFoundError):
                    pass
                except AssertionError:
                    # The one file whose loss Zarr itself cannot tell: text, which is kept by Zarr's own codecs.
                    assert bad is None and "/name/c/" in str(path), path
        path.write_bytes(good)
    assert not seen(archive, groups)


def test_damage_to_a_zip_file_is_seen(tiny_maps, tmp_path):
    vcinr.compress(waves(tiny_maps), tmp_path / "a.zip", abs_error=2.0, chunk=5)
    good = (tmp_path / "a.zip").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        bad = bytearray(good)
        position = int(rng.integers(len(bad)))
        bad[position] ^= 1 << int(rng.integers(8))
        (tmp_path / "a.zip").write_bytes(bad)
        if not seen(tmp_path / "a.zip", {}):  # a date, a flag of some system: nothing that is read
            back = vcinr.open(tmp_path / "a.zip").load()
            (tmp_path / "b.zip").write_bytes(good)
            xr.testing.assert_identical(back, vcinr.open(tmp_path / "b.zip").load())
    for cut in (0, 10, len(good) // 2, len(good) - 1):
        (tmp_path / "a.zip").write_bytes(good[:cut])
        with pytest.raises(InputError):
            vcinr.open(tmp_path / "a.zip")


def test_the_wrong_model_is_refused(whole, tiny_model):
    archive, _ = whole
    params = {**tiny_model.params, "siren.0.bias": tiny_model.params["siren.0.bias"] + 1}
    other = replace(tiny_model, params=params)
    key = archive / "vcinr" / "models" / tiny_model.sha256 / "c" / "0"
    key.write_bytes(other.data)
    models._CACHE.clear()
    with pytest.raises(ModelError, match=tiny_model.sha256):
        xr.open_zarr(archive, chunks=None)["t"].load()
    assert any(tiny_model.sha256 in p for p in vcinr.verify(archive)[0])


def test_an_incomplete_copy_is_no_archive_or_says_what_is_missing(whole, tmp_path):
    archive, groups = whole
    names = sorted(p.relative_to(archive) for p in archive.rglob("*") if p.is_file())
    rng = np.random.default_rng(0)
    for share in (0.2, 0.5, 0.8, 0.9):
        copy = tmp_path / f"copy{share}"
        for name in names:
            if rng.random() < share:
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(archive / name, copy / name)
        if all((copy / name).exists() for name in names):
            (copy / names[int(rng.integers(len(names)))]).unlink()
        assert seen(copy, groups)


# --- hostile archives --------------------------------------------------------------------------------------


def edited(archive, node, change):
    """The archive with a node's metadata changed, in its own file and in the root's copy, and no manifest to tell."""
    path = archive / node / "zarr.json"
    text = json.loads(path.read_text())
    change(text)
    path.write_text(json.dumps(text))
    root = json.loads((archive / "zarr.json").read_text())
    root["consolidated_metadata"]["metadata"][node] = text
    (archive / "zarr.json").write_text(json.dumps(root))


def within_memory(archive, code, gigabytes=3):
    """Run `code` on the archive with little memory; it must end with an error of vcinr's own, soon."""
    script = (
        "import resource, sys, numpy, xarray, zarr, vcinr\n"
        "import vcinr.archive.read\n"
        "from vcinr.errors import VcinrError\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({gigabytes} << 30,) * 2)\n"
        f"archive = {str(archive)!r}\n"
        f"try:\n    problems = {code}\nexcept VcinrError as error:\n    problems = [str(error)]\n"
        "print('; '.join(problems))\n"
    )
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def huge(text):
    text["shape"] = [1 << 40, *text["shape"][1:]]


def huge_chunks(text):
    huge(text)
    text["chunk_grid"]["configuration"]["chunk_shape"][0] = 1 << 40


def huge_axis(text):
    text["codecs"][0]["configuration"]["axes"][0] = {"start": 0.0, "stop": 1.0, "num": 1 << 50}


def test_declared_sizes_are_checked_before_anything_is_allocated(whole):
    archive, _ = whole
    for change, message in ((huge, "of another shape"), (huge_chunks, "values"), (huge_axis, "length")):
        copy = archive.with_name(change.__name__)
        shutil.copytree(archive, copy)
        edited(copy, "t", change)
        text = within_memory(
            copy, "[p for p in vcinr.verify(archive)[0] if 'metadata' not in p and 'zarr.json' not in p]"
        )
        assert message in text, (change.__name__, text)
        assert "metadata" in within_memory(copy, "vcinr.open(archive)")
        within_memory(copy, "[vcinr.decompress(archive, archive + '.nc')]")
    edited(archive, "t", huge_chunks)
    assert "set VCINR_MAX_CHUNK_VALUES" in within_memory(archive, "zarr.open_group(archive)['t'][0]")


def test_a_deflate_bomb_is_not_inflated():
    bomb = zlib.compress(bytes(1 << 28), 9)
    values = np.zeros((4, 4), "f4")
    field = Field("v", (0, 1))
    body = struct.pack("<H", 0) + bomb
    head = bytes([VERSION, 0])
    seed = seed_of(field, values.dtype, values.shape)
    chunk = b"VC" + head + struct.pack("<I", zlib.crc32(body, zlib.crc32(head, seed))) + body
    with pytest.raises(CorruptError, match="length"):
        decode(chunk, values.shape, values.dtype, field)


def test_codecs_that_no_archive_has_are_refused(whole):
    archive, _ = whole
    edited(archive, "packed", lambda t: t["codecs"].append({"name": "gzip", "configuration": {"level": 1}}))
    with pytest.raises(CorruptError, match="'gzip', which no archive has"):
        vcinr.verify(archive)
    with pytest.raises(CorruptError, match="gzip"):
        vcinr.open(archive)


def test_hostile_models_are_refused(tiny_model, tmp_path):
    def made(change):
        fixed = len(MAGIC) + 6
        (length,) = struct.unpack_from("<I", tiny_model.data, fixed - 4)
        header = json.loads(tiny_model.data[fixed : fixed + length])
        change(header)
        text = json.dumps(header).encode()
        body = tiny_model.data[: fixed - 4] + struct.pack("<I", len(text)) + text + tiny_model.data[fixed + length : -4]
        return body + struct.pack("<I", zlib.crc32(body))

    changes = [
        lambda h: h["spec"].update(width=1 << 19), lambda h: h["spec"].update(depth=1 << 19),
        lambda h: h["spec"].update(width="wide"), lambda h: h["spec"].update(latent=-1),
        lambda h: h["spec"].update(mapping_blocks=1 << 19), lambda h: h["spec"].update(conditioning="os.system"),
        lambda h: h["spec"].update(omega_0=float("inf")), lambda h: h.update(system={"system": "box", "bounds": []}),
        lambda h: h.update(system={"system": "box", "bounds": [[0, 1], "x"]}),
        lambda h: h["tensors"][0].__setitem__(2, [1 << 40]),
        lambda h: h["tensors"][0].__setitem__(1, "|O"), lambda h: h["tensors"].pop(0),
        lambda h: h.pop("normalisation"),
        lambda h: h.update(normalisation=[["t", 0.0, 0.0]]), lambda h: h.update(encode_steps=1e400),
        lambda h: h.update(dims=3),
    ]  # fmt: skip
    for i, change in enumerate(changes):
        with pytest.raises(ModelError, match="malformed"):
            artifacts.from_bytes(made(change), f"change {i}")
    assert artifacts.from_bytes(made(lambda h: None), "same").sha256


def test_names_cannot_lead_out_of_the_archive(tmp_path):
    """A hostile source file cannot make the archive, or its work folder, write elsewhere."""
    (tmp_path / "place").mkdir()
    groups = {"": xr.Dataset(), "../../place": xr.Dataset({"v": (("y", "x"), np.zeros((3, 4)))})}
    with pytest.raises(InputError, match="rename"):
        vcinr.compress(groups, tmp_path / "b.zarr", abs_error=1.0)
    assert not list((tmp_path / "place").iterdir())


def test_no_module_of_the_package_unpickles():
    from pathlib import Path

    for path in Path(vcinr.__file__).parent.rglob("*.py"):
        text = path.read_text()
        assert (
            "pickle.load" not in text and "allow_pickle=True" not in text and "eval(" not in text.replace("_eval(", "")
        )
        if "torch.load" in text:
            assert "weights_only=True" in text, path


def test_decoders_survive_five_seconds_of_mutations(capsys):
    assert fuzz.main(5.0, seed=7) == 0
    assert int(capsys.readouterr().out.split()[0]) > 100


def test_truncated_chunks_name_themselves(whole):
    archive, _ = whole
    chunk = archive / "t" / "c" / "1" / "0" / "0"
    good = chunk.read_bytes()
    for length in range(0, len(good), max(1, len(good) // 12)):
        chunk.write_bytes(good[:length])
        with pytest.raises(CorruptError, match="t/c/1/0/0"):
            zarr.open_group(archive, mode="r")["t"][5:10]
