# Makes .venv in the current folder (the checkout), installs t0train from pinned versions, torch first, and activates it.
# Does nothing when that is already so. Not run but sourced, by the other scripts:
#
#   source scripts/setup.sh         to use t0train
#   source scripts/setup.sh docs    to build the documentation site
#   source scripts/setup.sh dev     to work on it (includes docs)
#
# $PYTHON names the interpreter to build on (python3 by default). T0TRAIN_UNPINNED=1 ignores constraints.txt and takes the
# newest versions that pyproject.toml allows; T0TRAIN_TORCH=2.10.* takes that release of torch and pins the others.

t0train_setup() {
    local extras="$1" python="${PYTHON:-python3}" stamp="" wanted pins=(-c constraints.txt)
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo "error: t0train needs Python 3.11 or newer, but $python is $("$python" -V 2>&1); set PYTHON to a newer one." >&2
        return 2
    fi
    [[ -z "${T0TRAIN_TORCH:-}" ]] || pins=(-c .venv/constraints.txt)
    [[ -z "${T0TRAIN_UNPINNED:-}" ]] || pins=()
    wanted="$({ pwd; echo "${pins[@]} ${T0TRAIN_TORCH:-}"; cat constraints.txt pyproject.toml; } | cksum)"
    for stamp in ".venv/installed-$extras" .venv/installed-dev; do
        if [[ -f "$stamp" && "$(cat "$stamp")" == "$wanted" ]]; then
            source .venv/bin/activate
            return
        fi
    done
    [[ -x .venv/bin/python ]] || "$python" -m venv .venv
    source .venv/bin/activate
    echo "Installing t0train into .venv (a few minutes the first time) ..." >&2
    for stamp in .venv/installed-*; do # those of the same versions stay true: installing more takes nothing away
        [[ ! -f "$stamp" || "$(cat "$stamp")" == "$wanted" ]] || rm "$stamp"
    done
    grep -v '^torch==' constraints.txt >.venv/constraints.txt
    pip install -qq --disable-pip-version-check "${pins[@]}" "torch${T0TRAIN_TORCH:+==$T0TRAIN_TORCH}"
    pip install -qq --disable-pip-version-check "${pins[@]}" -e ".${extras:+[$extras]}"
    echo "$wanted" >".venv/installed-$extras"
}

t0train_setup "${1:-}"
