"""Prefect flows: one a stage of dvc.yaml, the pipeline over all of them, the deployments. No maths here."""
