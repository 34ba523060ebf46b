"""Measurements of Vedette beside other databases on the same load. Nothing imports this."""
