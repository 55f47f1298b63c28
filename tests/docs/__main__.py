"""Write the generated parts of the documentation: ``python -m tests.docs [MODEL_TYPE...]``.

With model types, only their rows of the table of architectures are written; without, all are, which
takes a minute.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from docs.written import written

for path, content in written(sys.argv[1:]).items():
    path.write_text(content, "utf-8")
