"""What benchmarks share: real encodes and decodes as rows of figures, the machine they ran on, sums over rows."""
