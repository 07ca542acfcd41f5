"""The terminal's widgets: given what they show, posting what the user did; none speaks to the daemon."""
