"""What `ebseg bench` measures.

`engine.py`: one picture; `batches.py`: batches on a device; `names.py`: class names; `runtimes.py`: other
runtimes beside ours; `gpu_card.py`: what is asked of a GPU: waits, memory, watts, its data sheet.
"""
