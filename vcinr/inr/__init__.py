"""Implicit neural representations: the shared SIREN, its conditionings, the model artifact."""
