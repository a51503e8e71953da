#!/bin/sh
# "make demo": a Slurm cluster of three virtual machines on this computer, an MPI job across two of them, and away again.
set -eu
cd "$(dirname "$0")"

name=demo
spec=local-slurm.yaml
began=$(date +%s)
made=no

if [ -t 1 ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); else bold='' plain=''; fi

title() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
show() { printf '%s$ %s%s\n' "$bold" "$*" "$plain" && "$@"; }
on_head() { show vcluster ssh "$name" -- "$@"; }
took() { printf '%5d s  %s\n' $(($(date +%s) - since)) "$1" >>"$times" && since=$(date +%s); }

# What there is of vcluster on this computer apart from the image cache: files of its state, and processes on them.
state=$(python3 -c 'from vcluster.places import state_root; print(state_root())')
cache=$(python3 -c 'from vcluster.places import cache_root; print(cache_root())')
files() { [ ! -e "$state" ] || find "$state" ! -type d | LC_ALL=C sort; }
processes() { ps -ww -A -o pid= -o args= | grep -F -e "$state/" | grep -v -F -e 'grep -F' | LC_ALL=C sort || true; }

scratch=$(mktemp -d)
times=$scratch/times
finish() {
    status=$?
    trap : INT TERM # a second Ctrl-C must not stop the cleaning half way
    if [ "$made" = yes ]; then
        title "Stopped with status $status: cleaning up"
        vcluster down "$name" --yes || printf 'Something may be left; this takes it away: vcluster down %s\n' "$name"
    fi
    rm -rf "$scratch"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

if vcluster list --json | grep -q "\"name\": \"$name\""; then
    printf 'You have a cluster called "%s" already, and this demonstration would take it for its own.\n' "$name" >&2
    printf 'Look at it with: vcluster status %s\nTake it away with: vcluster down %s\n' "$name" "$name" >&2
    exit 2
fi
files >"$scratch/files-before"
processes >"$scratch/processes-before"

since=$began
title 'Is this computer able to run it?'
show vcluster doctor
took 'doctor'

title 'One file, one command'
grep -v -e '^#' -e '^$' "$spec"
made=yes
show vcluster up "$spec" --yes
took 'up: image if there was none, three machines, first job on each'

title 'An MPI program: copied, compiled on the head, run on two workers'
show vcluster cp "$name" hello_mpi.c :hello_mpi.c
on_head 'mpicc -O2 -o /home/vcluster/hello_mpi hello_mpi.c'
on_head srun -N2 --ntasks-per-node=1 --mpi=pmix /home/vcluster/hello_mpi | tee "$scratch/out"
[ "$(sed -n 's/^hello from rank .* on //p' "$scratch/out" | sort -u | wc -l)" -eq 2 ] || {
    echo 'The program did not run on two workers.' >&2
    exit 1
}
took 'MPI: copy, compile, run'

title 'What Slurm says'
on_head sinfo
on_head sacct -X --format=JobID,JobName%12,Partition,NNodes,NodeList%14,State,ExitCode,Elapsed
took 'sinfo, sacct'

title 'Away again'
show vcluster down "$name" --yes
made=no
took 'down'

title 'What is left?'
left=no
vcluster list --json >"$scratch/list"
if grep -q "\"name\": \"$name\"" "$scratch/list"; then left=yes && echo 'the cluster is still listed'; fi
for what in files processes; do
    $what >"$scratch/$what-after"
    if ! diff "$scratch/$what-before" "$scratch/$what-after"; then left=yes; fi
done
if [ "$left" = yes ]; then
    echo 'The lines above should not be there.' >&2
    exit 1
fi
printf 'No machine, no process, no file but the image cache: %s\n' "$(du -sh "$cache" | cut -f1) in $cache"

title 'How long it took'
cat "$times"
printf '%5d s  together\n' $(($(date +%s) - began))
