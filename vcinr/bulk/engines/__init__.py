"""Engines run batches: in processes of this machine, in threads, one after another, or on a Dask cluster.

An engine is a file of this folder, whose function `start` gives a `concurrent.futures.Executor` for as long as a
``with`` block lasts; see :class:`vcinr.bulk.engines.base.Engine`. Another package adds one by an entry point of the
group ``vcinr.engines``, which refers to such a function. What an engine is given is a function of one batch. The
function may be called again with the same batch after a worker has died, and must then give the same result.
"""

from __future__ import annotations

from vcinr import plugins
from vcinr.bulk.engines import dask, processes, serial, threads
from vcinr.bulk.engines.base import Engine, Pool, Start
from vcinr.bulk.engines.loop import run
from vcinr.bulk.engines.messages import report
from vcinr.errors import ConfigError

__all__ = ["ENGINES", "Engine", "Pool", "engine_of", "report", "run"]

ENGINES: dict[str, Start] = {
    "processes": processes.start,
    "threads": threads.start,
    "serial": serial.start,
    "dask": dask.start,
}
"""The engines of this package by name."""


def engine_of(name: str = "processes", *, workers: int | None = None, address: str | None = None) -> Engine:
    """Choose an engine by name.

    Parameters
    ----------
    name : str
        One of `ENGINES`, or the name of an entry point of the group ``vcinr.engines``.
    workers : int, optional
        How many processes or threads; by default as many as this process may use cores. A cluster has its own number.
    address : str, optional
        Where the scheduler of a Dask cluster listens, such as ``tcp://node1:8786``.

    Returns
    -------
    Engine
        The engine. Nothing has been started, and no address has been tried.

    Raises
    ------
    ConfigError
        For an unknown name, fewer workers than one, or an address where the engine takes none or lacks its own.
    """
    start = plugins.lookup("engines", ENGINES, name)
    if workers is not None and workers < 1:
        raise ConfigError(f"workers: {workers} are too few; give 1 or more")
    if name == "dask" and not address:
        raise ConfigError("engine dask: no address; give that of the cluster's scheduler, such as tcp://node1:8786")
    if name == "dask" and workers is not None:
        raise ConfigError("engine dask: the cluster has its own workers; leave the number of workers out")
    if name in ENGINES and name != "dask" and address:
        raise ConfigError(f"engine {name}: runs on this machine and takes no address; for {address}, choose dask")
    return Engine(name, start, workers, address)
