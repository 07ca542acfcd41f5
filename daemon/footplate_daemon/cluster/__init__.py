"""Batches beyond this machine: handed to an engine that somebody else runs, over a cluster."""
