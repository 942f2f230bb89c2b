# Sourced by prepare_instance.sh and run_instance.sh: which verifier runs, in a folder that is this user's alone.
# State is one line, GROUP START: a process group and when its leader was started, so that no other process that has
# come to the same number is taken for it.

state_folder=${TMPDIR:-/tmp}/prunecert-vnncomp-$(id -u)
state=$state_folder/running

# Make the folder; fails where somebody else's, or a link, is in its place.
own_state_folder() {
  mkdir -m 700 "$state_folder" 2>/dev/null
  if [ -L "$state_folder" ] || [ ! -d "$state_folder" ] || [ ! -O "$state_folder" ] || [ -L "$state" ]; then
    echo "$state_folder: not a folder of this user's own; remove it or set TMPDIR" >&2
    return 1
  fi
  chmod 700 "$state_folder"
}

# When a process was started, in the words of the system; nothing for one that is not there.
started_at() {
  if [ -r "/proc/$1/stat" ]; then
    sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20
  else
    LC_ALL=C ps -o lstart= -p "$1" 2>/dev/null | tr -s ' ' '_'
  fi
}

# Whether a process runs a verifier of these scripts.
is_verifier() {
  case $(ps -o args= -p "$1" 2>/dev/null) in *toolkit.bench.vnncomp*) return 0 ;; *) return 1 ;; esac
}

# Note that a process leads the group of a running verifier.
note_running() {
  echo "$1 $(started_at "$1")" > "$state"
}

# End the verifier that an earlier instance left behind, if it is one.
end_left_behind() {
  [ -f "$state" ] && [ -O "$state" ] || return 0
  local group start
  read -r group start < "$state" || true
  rm -f "$state"
  case $group in '' | *[!0-9]* | 0 | 1) return 0 ;; esac
  if [ -n "$start" ] && [ "$start" = "$(started_at "$group")" ] && is_verifier "$group"; then
    kill -KILL -- "-$group" 2>/dev/null || true
  fi
}
