"""Who runs when.

`admission.py` lets in by `price.py`, what work costs in seconds of a device, and `host_memory.py`, what it
holds of the host's memory; `returns.py`: when the others are to come back; `scheduler.py`: all devices,
`device.py`: one and its thread; `queue.py`: whose turn it is, of `work.py` and `text_work.py`;
`step_runner.py`: embed, predict, classify, bisect; `engine.py`: one version on one device, `torch_engine.py`
the one that serves; `picture_threads.py`: decoding and encoding; `recordings.py`: what a warm-up records;
`padded_shapes.py`: the shapes of `padding = few`; `device_memory.py`: how many pictures a device holds;
`batch_limits.py`, `delivery.py`, `deadline.py`, `out_of_memory.py`.
"""
