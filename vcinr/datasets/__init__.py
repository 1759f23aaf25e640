"""Data sets: files of many formats as xarray, public data from registry packages, and signals in splits.

Nothing is imported here. Reading files (:mod:`vcinr.datasets.readers`) needs only the base install, while
:mod:`vcinr.datasets.ingest` needs the training extra.
"""
