"""Machine-code loops of the agent; they see only arrays and scalars."""
