"""mkdocs hook: the pages of the repository's root join the site, and links that are written for the forge work on it.

On the forge, README.md links to docs/data.md, and docs/data.md to ../README.md or to any file of the repository. On
the site README.md is index.md, all pages are in one folder, and other files are copied to the site when a page links to
them. A link to a folder of the repository becomes plain text, since a site cannot list it.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ROOT_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "CODE_OF_CONDUCT.md": "code_of_conduct.md",
}
LINK = re.compile(r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|!\[[^\]]*\]\([^)]*\))*)\]\((?P<target>[^)\s]+)\)")
CODE = re.compile(r"^(?P<fence>```+|~~~+).*?^(?P=fence)[ \t]*$|`[^`\n]*\]\([^`\n]*`", flags=re.DOTALL | re.MULTILINE)


def site_markdown(markdown: str, page: str) -> tuple[str, set[str]]:
    """A page's text as the site needs it.

    Args:
        markdown: The text as it is in the repository.
        page: Its path there, such as README.md or docs/data.md.

    Returns:
        The text with its links changed, and the files (paths from the repository's root) that the site must hold.
    """
    files: set[str] = set()

    def change(match: re.Match[str]) -> str:
        target, anchor = _split(match["target"])
        text = LINK.sub(change, match["text"]) if "](" in match["text"] else match["text"]
        if not target or re.match(r"[a-z]+:", target):
            return f"{match['image']}[{text}]({match['target']})"
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
        if path in ROOT_PAGES:
            return f"[{text}]({ROOT_PAGES[path]}{anchor})"
        if path.startswith("docs/"):
            return f"{match['image']}[{text}]({path.removeprefix('docs/')}{anchor})"
        if (ROOT / path).is_dir():
            return text
        files.add(path)
        return f"{match['image']}[{text}]({path}{anchor})"

    parts, end = [], 0
    for code in CODE.finditer(markdown):  # code is shown, not followed
        parts += [LINK.sub(change, markdown[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, LINK.sub(change, markdown[end:])]), files


def _split(target: str) -> tuple[str, str]:
    path, mark, anchor = target.partition("#")
    return path, mark + anchor


def on_files(files: Any, config: Any) -> Any:
    """Add the pages of the root, and the files that any page links to. Called by mkdocs."""
    from mkdocs.structure.files import File

    pages = [*ROOT_PAGES, *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").glob("*.md")))]
    linked: set[str] = set()
    for page in pages:
        text, found = site_markdown((ROOT / page).read_text(encoding="utf-8"), page)
        linked |= {path for path in found if (ROOT / path).is_file()}  # mkdocs warns of the others
        if page in ROOT_PAGES:
            files.append(File.generated(config, ROOT_PAGES[page], content=text))
    for path in sorted(linked):
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Change the links of a page that lies in docs/. Called by mkdocs."""
    if page.file.src_uri in ROOT_PAGES.values():
        return markdown
    return site_markdown(markdown, f"docs/{page.file.src_uri}")[0]
