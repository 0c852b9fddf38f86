"""One training run.

`trainer.py`: the steps; `loss_module.py`: a batch to its loss; `parts.py`, `lora.py`: what is trained;
`optim.py`, `ema.py`: optimiser and averaged weights; `distributed.py`: several processes; `state.py`,
`folder.py`: all that a run needs to go on; `artifacts.py`, `cards.py`: what it gives; `evaluations.py`: its
scores, and which is the best; `curves.py`, `signals.py`, `precision.py`.
"""
