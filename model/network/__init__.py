"""The paper, and nothing else.

`ebseg.py` runs `predict` without class names and `classify` with them; encoders (`sam_encoder.py`,
`swin_encoder.py`, `clip_image.py`, `clip_text.py`), `fusion.py`, decoders (`pixel_decoder.py`,
`deformable_attention.py`, `transformer_decoder.py`), `mask_attention.py`, `balance.py`; sizes in
`config.py`, wired by `build.py`; `kernels.py`: every choice that is made for a kind of processor, which
attention SAM's blocks run among them; `pictures.py`: normalised and padded; `predictions.py`: what comes
out; `label_map.py`: label maps, in tiles on a CPU, in bands on a GPU; `copies.py`: copies to and from a
device for which neither stands still; `device.py`: what "auto" means; `table_cache.py`: what is kept for a
picture size; `graphs.py`: the network recorded for a GPU; `layers.py`, `precision.py`: shared parts;
`json_reading.py`: dataclasses that were written as JSON; `libraries/`: the modules of open_clip and
segment_anything that it is made of.
"""
