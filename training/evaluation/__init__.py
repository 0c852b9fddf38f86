"""What a checkpoint scores.

`evaluate.py` over `confusion_counts.py` and `metrics.py`: intersection over union, accuracies;
`confusion_report.py`: what was taken for what, as CSV and picture; `pictures.py`: panels to look at;
`calibrate.py`: the threshold of other; `reproduce.py`: the paper's Table 1, of `benchmarks.py` and
`kept_scores.py`.
"""
