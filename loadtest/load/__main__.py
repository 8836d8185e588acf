"""`python -m loadtest.load`."""

import sys

from loadtest.load.run import main
from loadtest.testbed.command_line import end_on_term

if __name__ == "__main__":
    end_on_term()
    sys.exit(main())
