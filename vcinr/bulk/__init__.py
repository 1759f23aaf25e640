"""Compression in bulk: a plan of batches, an engine that runs them on many cores or machines, and one commit."""
