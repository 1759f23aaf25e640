"""Data sets: public data from registry packages, and signals in splits. Nothing is imported here."""
