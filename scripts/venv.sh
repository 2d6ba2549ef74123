# Sourced by the other scripts: makes .venv, installs this checkout with $EXTRAS, and activates it.
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "cope_train needs Python 3.11 or newer; $("$python" --version) found. Name another with PYTHON=..." >&2
    exit 2
}
[ -f .venv/bin/activate ] || "$python" -m venv .venv
source .venv/bin/activate
# Installed once for each state of pyproject.toml and set of extras.
stamp=".venv/installed-${EXTRAS:-base}-$(cksum <pyproject.toml | tr -d ' ')"
if [ ! -e "$stamp" ]; then
    echo "Installing cope_train into .venv (once) ..."
    pip install --quiet --disable-pip-version-check -e ".${EXTRAS:+[$EXTRAS]}"
    touch "$stamp"
fi
