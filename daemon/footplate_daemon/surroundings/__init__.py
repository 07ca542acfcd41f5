"""What is around Footplate: the machine, the runtimes and models on it, and what is missing.

facts       what was found, as values
looking     finds it: programs, folders, sockets, the driver; each look with a time limit
findings    facts → what is fine, what is not, and the command that mends it (pure)
entries     facts → tables for config.toml (pure), and their way into the file
"""
