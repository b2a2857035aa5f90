"""Doors of the controller: what comes in is checked and translated here, nothing else."""
