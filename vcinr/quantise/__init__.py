"""Quantisers of the latents with their entropy models: a file for each kind, all of which end as `state.Quantiser`."""
