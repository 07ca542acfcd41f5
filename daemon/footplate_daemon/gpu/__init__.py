"""What the GPUs hold and do, as the NVIDIA driver tells it."""
