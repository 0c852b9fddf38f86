"""`ebseg batch`: what it asks for, and the machine's part of a run."""
