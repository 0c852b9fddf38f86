"""`ebseg segment`: what to do, here or on a service, file by file."""
