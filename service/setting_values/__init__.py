"""What settings list: `keys.py`, `origins.py`, `hosts.py`."""
