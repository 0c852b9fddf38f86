"""The locks, what installs them and what renews them.

Standard library only, since it runs before there is an environment.
"""
