"""The live terminal view behind `vedette top`: views, where their numbers come from, screen and keys."""
