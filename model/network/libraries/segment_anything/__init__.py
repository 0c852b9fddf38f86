"""The modules of segment_anything's network one by one."""

from model.network.libraries import folders

__path__ = folders("segment_anything", "modeling")
