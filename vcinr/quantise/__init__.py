"""Quantisers of the latent modulation and their entropy models: each kind a file, and all end as `state.Quantiser`."""
