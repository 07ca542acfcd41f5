"""The terminal's screens: each speaks to the daemon in workers and gives its widgets what they show."""
