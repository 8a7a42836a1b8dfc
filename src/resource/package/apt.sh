export DEBIAN_FRONTEND=noninteractive APT_LISTCHANGES_FRONTEND=none NEEDRESTART_MODE=l UCF_FORCE_CONFFOLD=1
stamp=/var/lib/soc-provision/apt-lists
fetched=

# Waits until nobody holds dpkg's or apt's locks, and says who does. /proc/locks names the process
# by id and the file by its inode.
wait_lock() {
    waited=0 said=
    while :; do
        nodes=$(stat -c %i /var/lib/dpkg/lock-frontend /var/lib/dpkg/lock /var/cache/apt/archives/lock /var/lib/apt/lists/lock 2>/dev/null)
        holder=
        while read -r _ _ _ access pid file _; do
            [ "$access" = WRITE ] || continue
            for node in $nodes; do
                if [ "${file##*:}" = "$node" ]; then holder=$pid; fi
            done
        done </proc/locks
        [ -n "$holder" ] || return 0
        name=
        if [ -r "/proc/$holder/comm" ]; then read -r name <"/proc/$holder/comm" || :; fi
        if [ "$holder" != "$said" ]; then
            printf 'waiting for the package lock, held by process %s (%s)\n' "$holder" "${name:-unknown}" >&2
            said=$holder
        fi
        if [ "$waited" -ge 1200 ]; then
            printf 'the package lock is still held by process %s (%s) after 20 minutes\n' "$holder" "${name:-unknown}" >&2
            exit 1
        fi
        sleep 2
        waited=$((waited + 2))
    done
}

apt() {
    wait_lock
    command apt-get -y -q -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 -o Acquire::Retries=3 \
        -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@"
}

# What a run that was cut off has left half done: apt refuses to work before that is put right.
repair() {
    broken=
    for file in /var/lib/dpkg/updates/[0-9]*; do
        if [ -e "$file" ]; then broken=1; fi
    done
    if [ -n "$broken" ] || [ -n "$(dpkg --audit)" ]; then
        wait_lock
        echo 'repairing packages that are half-configured' >&2
        dpkg --force-confdef --force-confold --configure -a || apt --fix-broken install || exit 1
    fi
}

update() {
    fetched=1
    apt update || return 1
    mkdir -p "${stamp%/*}" && : >"$stamp"
}

# Whether the lists are older than this many seconds, or than a repository's definition.
outdated() {
    newest=0
    for file in "$stamp" /var/lib/apt/periodic/update-success-stamp /var/lib/apt/lists/partial; do
        if [ -e "$file" ]; then
            time=$(stat -c %Y -- "$file")
            if [ "$time" -gt "$newest" ]; then newest=$time; fi
        fi
    done
    [ $(($(date +%s) - newest)) -le "$1" ] || return 0
    for file in /etc/apt/sources.list /etc/apt/sources.list.d /etc/apt/sources.list.d/*; do
        if [ -e "$file" ] && [ "$file" -nt "$stamp" ] && [ "$file" -nt /var/lib/apt/lists ]; then return 0; fi
    done
    return 1
}

# Every name is in the lists. The part of an argument before `=` is the name.
known() {
    for word in "$@"; do
        case $word in
        -*) ;;
        *) apt-cache -q=2 show "${word%%=*}" >/dev/null 2>&1 || return 1 ;;
        esac
    done
}

# Installs. What must go for it is said, and is never what people log in with or become root with.
bring() {
    apt install --no-remove --allow-downgrades --allow-change-held-packages "$@" && return 0
    goes=$(command apt-get -s -q install --allow-downgrades --allow-change-held-packages "$@" 2>/dev/null | sed -n 's/^Remv \([^ ]*\).*/\1/p')
    [ -n "$goes" ] || return 1
    for name in $goes; do
        case $name in
        openssh-server | sudo)
            echo "apt would remove $name for it, and nobody could work on this host any more" >&2
            exit 1
            ;;
        esac
    done
    echo "for it apt removes" $goes >&2
    apt install --allow-downgrades --allow-change-held-packages "$@"
}

# Takes the age that lists may have, then apt's arguments. Old lists name versions that mirrors no
# longer have, so a failure is tried again with new ones.
install_all() {
    age=$1
    shift
    if [ -z "$fetched" ] && { outdated "$age" || ! known "$@"; }; then update || :; fi
    bring "$@" && return 0
    [ -z "$fetched" ] || return 1
    echo 'trying again with new package lists' >&2
    update || :
    bring "$@"
}
