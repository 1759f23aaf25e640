"""Data sets: files of many formats as xarray, public sources as registry packages, and splits of signals.

Nothing is imported here: reading files (:mod:`vcinr.datasets.readers`) needs the base install alone, while
:mod:`vcinr.datasets.ingest` needs the training extra.
"""
