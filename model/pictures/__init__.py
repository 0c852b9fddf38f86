"""Files to pixels, for training and service alike.

`decode.py` over `formats.py`, `heif.py` and `jpeg_xl.py`, whose decoder is `jpeg_xl_process.py`;
`colors.py`: to sRGB, with `coded_colors.py`; `mending.py`: harmless oddities;
`suffixes.py`: endings of picture files; `palette.py`: colours of classes over them.
"""
