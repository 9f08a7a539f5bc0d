"""Works of the tests, offered as another package would: `light_work` lies where imports find it."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
