"""Benchmarks: the same work for several variants, measured at the engine, kept with all circumstances."""
