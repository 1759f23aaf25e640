"""Entropy coding: integer tables, one ANS bitstream a chunk, the residual coder, masks."""
