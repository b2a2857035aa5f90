"""Benchmarks: Ogent and a peer in the same run, as ratios."""
