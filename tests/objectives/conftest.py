"""Lets the tests of this room import `objective_cases`, also in spawned processes."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
