"""``python -m colabkit``: see ``colabkit.cli``."""

import sys

from colabkit.cli import main

if __name__ == "__main__":
    sys.exit(main())
