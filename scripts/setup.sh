# Makes .venv in the current folder (the checkout), installs t0train from pinned versions, torch first, and activates it.
# Does nothing when that is already so. Not run but sourced, by quickstart.sh and test.sh:
#
#   source scripts/setup.sh         to use t0train
#   source scripts/setup.sh dev     to work on it
#
# $PYTHON names the interpreter to build on (python3 by default).

t0train_setup() {
    local extras="$1" python="${PYTHON:-python3}" stamp="" wanted
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo "error: t0train needs Python 3.11 or newer, but $python is $("$python" -V 2>&1); set PYTHON to a newer one." >&2
        return 2
    fi
    wanted="$({ pwd; cat constraints.txt pyproject.toml; } | cksum)"
    for stamp in ".venv/installed-$extras" .venv/installed-dev; do
        if [[ -f "$stamp" && "$(cat "$stamp")" == "$wanted" ]]; then
            source .venv/bin/activate
            return
        fi
    done
    [[ -x .venv/bin/python ]] || "$python" -m venv .venv
    source .venv/bin/activate
    echo "Installing t0train into .venv (a few minutes the first time) ..." >&2
    rm -f .venv/installed-*
    pip install -qq --disable-pip-version-check torch==2.13.0
    pip install -qq --disable-pip-version-check -c constraints.txt -e ".${extras:+[$extras]}"
    echo "$wanted" >".venv/installed-$extras"
}

t0train_setup "${1:-}"
