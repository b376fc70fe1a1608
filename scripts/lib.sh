# Functions that scripts of this folder share; sourced by them, with bash.
#
# They use what the script sets: needs, an array of what must be there, as command:Debian
# package or /a/file:Debian package. Exit code 2 means that something is missing.

# ---- what must be there ------------------------------------------------------------

# postgres_bin prints the folder of Postgres' programs: that of PATH, else Debian's newest.
postgres_bin() {
	local initdb
	if initdb=$(command -v initdb) && initdb=$(readlink -f "$initdb") && [ -x "${initdb%/*}/postgres" ]; then
		echo "${initdb%/*}"
		return
	fi
	local newest
	newest=$(printf '%s\n' /usr/lib/postgresql/*/bin/initdb | sort -V | tail -n 1)
	[ -x "$newest" ] && echo "${newest%/*}"
}

have() {
	case $1 in
	/*) [ -e "$1" ] ;;
	postgres) [ -n "$(postgres_bin)" ] ;;
	# Servers are in sbin, which is not on everybody's PATH.
	*) PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null ;;
	esac
}

# missing prints the packages of what is missing (with "commands": its names).
missing() {
	local need
	for need in "${needs[@]}"; do
		have "${need%:*}" || if [ "${1-}" = commands ]; then echo "${need%:*}"; else echo "${need##*:}"; fi
	done | sort -u | tr '\n' ' ' | sed 's/ $//'
}

install_packages() {
	echo "== installing: $*"
	# Some packages start a server when they are installed; we start our own.
	local policy=/usr/sbin/policy-rc.d status
	if [ -e "$policy" ]; then
		policy=
	else
		printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"
	fi
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@" >/dev/null
	status=$?
	[ -z "$policy" ] || rm -f "$policy"
	return $status
}

# require_tools WHO sees to it that Go is there and all of needs, or ends the script. As
# root on Debian missing packages are installed. WHO needs them, as in «the tests».
require_tools() {
	PATH="$PATH:/usr/local/go/bin"
	local version missing
	if ! command -v go >/dev/null; then
		version=$(sed -n 's/^go //p' go.mod)
		echo "error: Go is missing; version $version or newer is needed" >&2
		echo "hint: install it as https://go.dev/doc/install says, then run this again" >&2
		exit 2
	fi
	missing=$(missing)
	[ -n "$missing" ] || return 0
	if ! command -v apt-get >/dev/null; then
		echo "error: $1 need: $(missing commands)" >&2
		echo "hint: install them and run this again (on Debian the packages are: $missing)" >&2
		exit 2
	elif [ "$(id -u)" != 0 ]; then
		echo "sudo apt-get install --no-install-recommends $missing"
		exit 2
	fi
	# shellcheck disable=SC2086 # a list of packages
	if ! install_packages $missing || [ -n "$(missing)" ]; then
		echo "error: could not install: $(missing)" >&2
		exit 2
	fi
}

# ---- a folder and a database of our own --------------------------------------------

tmp=
postgres_pid=
postgres_url=

# temporary_folder NAME makes the folder $tmp, which is removed when the script ends,
# after the database in it has been stopped.
temporary_folder() {
	# Under /tmp and nowhere longer: the path of a Unix socket is short.
	tmp=$(mktemp -d "/tmp/certwright-$1-XXXXXX") || exit 2
	trap cleanup EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
}

cleanup() {
	trap '' INT TERM HUP
	if [ -n "$postgres_pid" ]; then
		kill -QUIT "$postgres_pid" 2>/dev/null # its data is thrown away
		wait "$postgres_pid" 2>/dev/null
	fi
	rm -rf -- "$tmp"
}

# start_postgres [FLAGS] starts a server in $tmp and sets postgres_pid and postgres_url,
# the URL of its superuser. It runs as an ordinary user, and is durable: fsync is on.
# FLAGS are further ones of postgres, as in -c shared_buffers=64MB.
start_postgres() {
	local bin dir=$tmp/pg password port try
	local -a run=()
	bin=$(postgres_bin)
	mkdir -m 700 "$dir" || return
	chmod 711 "$tmp" || return
	password=$(openssl rand -hex 16) || return
	(umask 077 && printf %s "$password" >"$dir/password") || return

	# Postgres refuses root.
	if [ "$(id -u)" = 0 ]; then
		local user=nobody
		id postgres >/dev/null 2>&1 && user=postgres
		chown -R "$user:" "$dir" || return
		run=(setpriv "--reuid=$user" "--regid=$(id -g "$user")" --clear-groups)
	fi

	local locale=C.UTF-8
	[ "$(uname)" != Darwin ] || locale=en_US.UTF-8
	if ! (cd "$dir" && ${run[@]+"${run[@]}"} "$bin/initdb" --pgdata="$dir/data" --username=postgres \
		--pwfile="$dir/password" --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 \
		--locale="$locale" --no-sync >"$tmp/initdb.log" 2>&1); then
		cat "$tmp/initdb.log" >&2
		return 1
	fi

	# If this script is killed, the server ends too (Linux).
	if command -v setpriv >/dev/null; then
		[ ${#run[@]} -gt 0 ] || run=(setpriv)
		run+=(--pdeathsig QUIT)
	fi
	for try in 1 2 3 4 5; do
		# Below the ports that the system gives to outgoing connections.
		port=$((15000 + RANDOM % 17000))
		(cd "$dir" && exec ${run[@]+"${run[@]}"} "$bin/postgres" -D "$dir/data" -k "$dir" -h 127.0.0.1 -p "$port" \
			-c fsync=on -c full_page_writes=on -c synchronous_commit=on -c logging_collector=off \
			-c timezone=UTC -c log_timezone=UTC "$@") >"$tmp/postgres.log" 2>&1 </dev/null &
		postgres_pid=$!
		while kill -0 "$postgres_pid" 2>/dev/null; do
			if "$bin/pg_isready" -q -h "$dir" -p "$port"; then
				postgres_url="postgres://postgres:$password@/postgres?host=$dir&port=$port"
				return 0
			fi
			sleep 0.1
		done
		postgres_pid=
	done
	cat "$tmp/postgres.log" >&2
	return 1
}
