"""What settings list (`keys.py`, `origins.py`, `hosts.py`), `units.py`, `words.py` of wrong values."""
