"""Meta-learning: inner loops, the outer loop, checkpoints, and extraction of modulations."""
