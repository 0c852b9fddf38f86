"""Exports of annotation tools to the one layout, one module a format."""
