"""What Prometheus is told: what has happened since the daemon began, and how everything is now."""
