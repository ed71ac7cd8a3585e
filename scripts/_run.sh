# Read by ./scripts/planet and others, which set $scripts: `become PROGRAM ARGUMENT…` turns this
# process into .venv/bin/PROGRAM, after _setup.py has installed what is missing. When nothing is,
# that takes a few milliseconds.
root=${scripts%/*}
venv=$root/.venv

# Set up, for this folder, and nothing touched since: neither the lists of packages, nor the
# interpreter, nor an installed package (deleting or adding one changes the folder that holds it).
# Running tests may write into __pycache__.
ready() {
    [ -x "$venv/bin/python" ] && [ -r "$venv/ready" ] && read -r folder <"$venv/ready" &&
        [ "$folder" = "$root" ] &&
        [ -z "$(find -H "$root/requirements.lock" "$root/pyproject.toml" "$venv/pyvenv.cfg" \
            "$venv/bin" "$venv/bin/python" "$venv"/lib/python3.*/site-packages -maxdepth 1 \
            -cnewer "$venv/ready" ! -name __pycache__ 2>&1)" ]
}

# The Python that .venv was made with, else the first suitable one on the PATH.
find_python() {
    made_by=$(sed -n 's/^executable = //p' "$venv/pyvenv.cfg" 2>/dev/null)
    suits='import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))'
    for python in "$made_by" python3 python3.13 python3.12 python3.11; do
        "$python" -c "$suits" >/dev/null 2>&1 && return
    done
    echo "set-up: no Python 3.11, 3.12 or 3.13 on the PATH" \
        "(python3 is: $(python3 --version 2>&1)); install one, for example with" \
        "'apt install python3' or 'uv python install 3.12'" >&2
    exit 1
}

become() {
    ready && { program=$1; shift; exec "$venv/bin/$program" "$@"; }
    find_python
    exec "$python" -I "$scripts/_setup.py" "$@"
}
