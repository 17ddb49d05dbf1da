"""`python -m lightning_dataselect`, where the command itself is not on the path."""

import sys

from lightning_dataselect.cli.main import main

sys.exit(main())
