"""Data of the benchmarks: packages of public registries, their arrays, and models trained on them."""
