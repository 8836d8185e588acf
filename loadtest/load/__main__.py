"""`python -m loadtest.load`."""

import sys

from loadtest.load.run import end_on_term, main

if __name__ == "__main__":
    end_on_term()
    sys.exit(main())
