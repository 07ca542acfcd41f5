"""The verbs of the command line, one module each; each has one click command of its module's name."""
