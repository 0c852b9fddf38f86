"""Versions that come and go.

`models.py`: all models; `follower.py`: one that follows a `registry.py`; `arrivals.py`: versions on their
way into memory; `quarantine.py`: those that are refused or waited for; `changes.py`: what administrators
ask for; `loader.py`: loads and warms; `served.py`: swaps; `loaded.py`: a version and its leases;
`canary.py`: a trial; `announcements.py`: word of news by Redis; `status.py`: what is shown of it.
"""
