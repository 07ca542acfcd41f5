"""Which variant is active, how it becomes so, and what a failed start means."""
