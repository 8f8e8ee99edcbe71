"""Puts a Markdown file into one comment of a pull request: made at the first time, updated from then on.

    GITHUB_TOKEN=... GITHUB_REPOSITORY=owner/name PR_NUMBER=12 python scripts/ci_comment.py site/comment.md

Nothing but the standard library, so that it runs without installing anything. GITHUB_API_URL is GitHub's own by
default. Where the file is missing, the comment says that there is no report.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

MARKER = "<!-- harness-benchmark -->"
BOT = "github-actions[bot]"
MOST = 65_000
"""Characters; GitHub refuses more than 65,536."""


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    missing = [name for name in ("GITHUB_TOKEN", "GITHUB_REPOSITORY", "PR_NUMBER") if not os.environ.get(name)]
    if missing:
        print(f"Error: set {' and '.join(missing)}.", file=sys.stderr)
        return 2
    number = os.environ["PR_NUMBER"]
    if not number.isdecimal():
        print(f"Error: PR_NUMBER must be a number, not {number!r}.", file=sys.stderr)
        return 2
    path = Path(arguments[0])
    text = (
        path.read_text(encoding="utf-8") if path.exists() else "The benchmark ended without a report; its log says why."
    )
    body = f"{MARKER}\n{text}"
    if len(body) > MOST:
        body = body[:MOST] + "\n\n(cut; the whole report is in the workflow's artifact)\n"
    try:
        print(put(body, number))
    except urllib.error.URLError as error:
        print(f"Error: GitHub did not take the comment: {error}.", file=sys.stderr)
        return 1
    return 0


def put(body: str, number: str) -> str:
    """Updates our comment on the pull request, or makes it; returns its address."""
    comments = f"/repos/{os.environ['GITHUB_REPOSITORY']}/issues/{number}/comments"
    page = 1
    while found := call("GET", f"{comments}?per_page=100&page={page}"):
        for comment in found:
            # Anyone may write the marker; only our own comment can and should be updated.
            if comment["user"]["login"] == BOT and str(comment.get("body") or "").startswith(MARKER):
                path = f"/repos/{os.environ['GITHUB_REPOSITORY']}/issues/comments/{comment['id']}"
                return call("PATCH", path, {"body": body})["html_url"]
        page += 1
    return call("POST", comments, {"body": body})["html_url"]


def call(method: str, path: str, data: dict[str, Any] | None = None) -> Any:
    """One call of the REST API; raises urllib.error.URLError."""
    base = os.environ.get("GITHUB_API_URL", "https://api.github.com")
    headers = {
        "Authorization": f"Bearer {os.environ['GITHUB_TOKEN']}",
        "Accept": "application/vnd.github+json",
        "X-GitHub-Api-Version": "2022-11-28",
        "User-Agent": "harness-benchmark",
    }
    content = json.dumps(data).encode() if data is not None else None
    request = urllib.request.Request(base + path, data=content, headers=headers, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
