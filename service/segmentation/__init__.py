"""One request from bytes to answer.

`pipeline.py`, and `answering.py` around it; `door.py`: its way to the engine, by `local_door.py` in the same
process; `tiled.py`: large pictures, with `picture_plan.py`; `several.py`: many at a time; `requested.py`,
`resolved.py` and `outputs.py`: what it asks for; `decode.py`: its picture; `answer.py` with `encode.py`,
`run_lengths.py` (RLE), `polygons.py`, `regions.py` and `exchange.py` (COCO, GeoJSON), `render.py` (PNG,
WebP), `colors.py` (how they are coloured), `sheet.py`.
"""
