"""What `ebseg bench` measures.

`engine.py`: one picture; `batches.py`: batches on a device; `names.py`: class names; `gpu_card.py`: what is
asked of a GPU: waits, memory, watts, its data sheet.
"""
