"""The Open Inference Protocol.

`protocol.py` and `input.py` read a request, `answer.py` writes the reply; `statistics.py`: what a version
did.
"""
