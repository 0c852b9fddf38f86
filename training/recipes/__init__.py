"""Whole ways to a model: `tiny.py` goes the one to EBSeg-tiny, `recipe.py` says how much it takes."""
