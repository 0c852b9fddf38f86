"""Words: class lists, prompts, and the lists of the benchmarks.

`classes.py`: class lists, and which classes count as trained; `templates.py`: prompts; `benchmarks/`: the
lists of six benchmarks.
"""
