"""`python -m tests.load.limited BYTES WORDS`: `ebseg WORDS` in a process that may have so much memory.

The limit is on data (RLIMIT_DATA): heap, anonymous maps and stacks, as a pod's limit counts them but for what
only looks used, such as libraries' addresses. What goes beyond fails, where a pod would be killed.
"""

import resource
import sys

from ebseg import main

if __name__ == "__main__":
    most = int(sys.argv.pop(1))
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    sys.exit(main())
