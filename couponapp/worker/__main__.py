"""`python -m couponapp.worker`."""

import sys

from couponapp.worker.main import main

if __name__ == "__main__":
    sys.exit(main())
