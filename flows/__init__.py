"""Prefect flows: one for each stage of dvc.yaml, the pipeline of all stages, and the deployments. No maths here."""
