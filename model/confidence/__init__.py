"""How far an answer can be trusted.

`card.py`: what a checkpoint tells of itself; `background.py`: below which confidence a pixel is other;
`domain.py`, `caution.py`: when a picture or a word is unlike those that the model knows.
"""
