#!/usr/bin/env bash
# Builds the documentation site into build/site, and fails on a link that leads nowhere, on a page that is missing from the
# navigation, and on a docstring that cannot be read. Sets up .venv if needed. Safe to run again.
#
#   bash scripts/docs.sh          build
#   bash scripts/docs.sh serve    build, show on http://127.0.0.1:8000, and build again when a page changes
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh docs

export NO_MKDOCS_2_WARNING=1
if [[ "${1:-build}" == serve ]]; then
    exec mkdocs serve --strict
fi
mkdocs build --strict # with --quiet it would not count warnings, and never fail
echo "documentation site: build/site/index.html"
