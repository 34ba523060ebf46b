"""System calls as columns of fields: what rules and outputs ask for."""
