#!/usr/bin/env bash
# Makes sure that the report's tests find a Chromium. Usage: ensure_chromium.sh PYTHON
set -euo pipefail
python=${1:-python3}

found() {
    [ -n "${GRADLAB_CHROMIUM:-}" ] && [ -x "$GRADLAB_CHROMIUM" ] && return 0
    for name in chromium chromium-browser google-chrome; do
        command -v "$name" >/dev/null && return 0
    done
    "$python" - <<'PYTHON'
import os, sys
from playwright.sync_api import sync_playwright
with sync_playwright() as play:
    sys.exit(not os.path.exists(play.chromium.executable_path))
PYTHON
}

found && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "No Chromium found: installing the system package"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -qq && apt-get install -y -qq chromium; } >/dev/null || true
    found && exit 0
fi
echo "No Chromium found: asking Playwright for its own"
"$python" -m playwright install chromium || true
found && exit 0

echo "The report's tests need Chromium. Install it with the one command" >&2
echo "    sudo apt-get install chromium" >&2
echo "or set GRADLAB_CHROMIUM to the browser's path, then run make test again." >&2
exit 1
