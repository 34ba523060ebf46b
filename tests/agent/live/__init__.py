"""Real actions on the live kernel, in a sandbox, and the rules they must raise."""
