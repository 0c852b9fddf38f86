"""Pictures and truth.

`layout.py`: the one layout of data sets, `writing.py`: how it is written, `class_file.py`: its class list,
`pictures.py`: its pictures, `present.py`: whether one is there, `check.py`: what is wrong with one,
`class_lists.py`: class lists put together, `mixture.py`: data sets put together, and how often each picture
comes, `prepare/`: public archives to it; `exports/`: annotation tools' exports to it; `samples.py`:
pictures in an order that only the seed decides; `augment.py`: resized, cropped, coloured, mirrored.
"""
