"""What the figures of benchmarks mean: compared, judged, recommended, and put on paper. Pure.

This is reckoned by whoever asks, not by the daemon: while that measures, nothing else should use its core.
"""
