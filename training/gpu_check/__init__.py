"""`make gpu-check`; `checks.py` has what is looked at."""
