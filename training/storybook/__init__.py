"""The drawn data set that every machine can make, and the tiny encoders pretrained on it.

`generate.py` draws `scene.py` and its parts; `pretrain/`: the encoders.
"""
