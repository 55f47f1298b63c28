"""What a site needs beside the pages: README and CHANGELOG are pages of it, too, and links to files
that are no pages become plain text, since a site has no repository around it.
"""

import re
from pathlib import Path
from posixpath import normpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
# pages of the site, and where they really lie
ABOVE = {"index.md": "README.md", "changelog.md": "CHANGELOG.md"}
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#\s:]+)(#[^)\s]*)?\)")
_PICTURE = re.compile(r"(!\[[^\]]*\]\()docs/")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name, source in ABOVE.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    source = ABOVE.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    pages = {real: name for name, real in ABOVE.items()}

    def link(match: re.Match[str]) -> str:
        text, target, fragment = match.groups(default="")
        path = normpath(f"{Path(source).parent}/{target}")
        name = pages.get(path, path.removeprefix("docs/"))
        found = files.get_file_from_path(name)
        return f"[{text}]({name}{fragment})" if found and found.inclusion.is_included() else text

    return _PICTURE.sub(r"\1", _LINK.sub(link, markdown))
