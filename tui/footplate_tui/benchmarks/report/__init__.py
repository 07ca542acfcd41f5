"""One HTML page with everything of a run: no script, nothing to fetch, light and dark, fit to print."""
