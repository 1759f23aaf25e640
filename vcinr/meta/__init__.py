"""Meta-learning: inner loops, the outer loop, checkpoints, modulation extraction."""
