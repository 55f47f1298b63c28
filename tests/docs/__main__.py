"""Write the generated parts of the documentation: `python -m tests.docs`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from docs.written import written

for path, content in written().items():
    path.write_text(content, "utf-8")
