"""Quantisers of the latent modulation and their entropy models."""
