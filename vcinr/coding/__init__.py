"""Entropy coding: integer tables, static and adaptive coders of latents, the residual coder, masks."""
