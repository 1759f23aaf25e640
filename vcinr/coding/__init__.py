"""Entropy coding: integer tables, coders of latents and of residuals, and lossless coding of masks and values."""
