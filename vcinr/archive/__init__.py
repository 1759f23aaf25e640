"""Archives: Zarr v3 stores of bitstreams with their model inside, readable by plain zarr and xarray."""
