"""Several processes on one machine: a supervisor hands transfers out, worker processes move the bytes.

The supervisor keeps discovery, the state, and all that is shown; what a worker process needs of them
comes over one socket pair. A process may die at any instruction: what it held is given to the others.
"""

from __future__ import annotations
