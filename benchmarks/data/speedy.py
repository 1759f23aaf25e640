"""Daily output of the climate model SPEEDY T30 by PyPI's `jcm`, two members, in 30-day netCDF files.

Member `a` (720 days) is for training, member `b` (360 days), which starts from other noise, for testing.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

JCM = "jcm==3.0.0"
FOLDER = Path("data/raw/speedy")
MEMBERS = {"a": (0, 24), "b": (1, 12)}
"""Seed of the start's noise, and months of 30 days after a first one that is thrown away."""
VARIABLES = (
    "temperature", "u_wind", "v_wind", "specific_humidity", "geopotential", "normalized_surface_pressure",
    "surface_exchange.precipitation",
)  # fmt: skip

MODEL = """
import sys
from importlib import resources
from pathlib import Path
from jcm.forcing import ForcingData
from jcm.model import Model
from jcm.physics.speedy.speedy_coords import get_speedy_coords
from jcm.terrain import TerrainData

seed, months, out, variables = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:]
data, coords = resources.files("jcm") / "data/bc/t30/clim", get_speedy_coords()
forcing = ForcingData.from_file(str(data / "forcing.nc"), coords)
model = Model(coords=coords, terrain=TerrainData.from_file(str(data / "terrain.nc"), coords), start_time="2000-01-01")
model.run(initial_state=model.initial_state(random_seed=seed), forcing=forcing, save_interval=1.0, total_time=30.0)
for month in range(months):
    output = model.resume(forcing=forcing, save_interval=1.0, total_time=30.0).to_xarray()[variables]
    output.to_netcdf(out / "part.nc")
    (out / "part.nc").replace(out / f"m{month:02d}.nc")
    print(f"member {out.name}: month {month + 1} of {months}", flush=True)
"""


def months(member: str, folder: Path = FOLDER) -> list[Path]:
    """Return the files of one member, in order.

    Raises
    ------
    FileNotFoundError
        If the member has not been simulated; the message names the command.
    """
    files = sorted((folder / member).glob("m*.nc"))
    if len(files) < MEMBERS[member][1]:
        raise FileNotFoundError(f"{folder / member}: {len(files)} months; run `python -m benchmarks.speedy` first")
    return files


def simulate() -> None:
    """Run the members that are not complete, in an environment of their own for jcm and JAX."""
    python = FOLDER / "venv" / "bin" / "python"
    for member, (seed, count) in MEMBERS.items():
        out = FOLDER / member
        if len(list(out.glob("m*.nc"))) >= count:
            continue
        out.mkdir(parents=True, exist_ok=True)
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(FOLDER / "venv")], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", JCM], check=True)
        subprocess.run([str(python), "-c", MODEL, str(seed), str(count), str(out), *VARIABLES], check=True)
