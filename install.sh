#!/bin/sh
# Installs kedge as a service of this machine, or upgrades it, and starts it:
#
#   curl -sfL https://get.example/install.sh | sh -                        a server: a complete site
#   ... | K3S_URL=https://SERVER:6443 K3S_TOKEN=TOKEN sh -                 an agent of that server
#   ... | sh -s - server --disable local-storage                           with flags of kedge
#
# Run it again at any time: what is as asked for stays untouched, and kedge is restarted only when something changed.
# Pods go on during that.
#
# Settings, as environment variables; INSTALL_K3S_... is the same as INSTALL_KEDGE_...:
#
#   INSTALL_KEDGE_EXEC           command and flags of kedge; arguments of this script are added
#   INSTALL_KEDGE_VERSION        release to install; default: the newest
#   INSTALL_KEDGE_CHANNEL        stable or latest (the newest release), or a name that INSTALL_KEDGE_CHANNEL_URL/NAME
#                                answers with a version
#   INSTALL_KEDGE_BASE_URL       where releases are: http(s)://, file:// or a folder. The files of a release are looked for in
#                                download/VERSION (or latest/download), in VERSION, and directly there
#   INSTALL_KEDGE_FILE           a release file on this machine, for example kedge-amd64.zst; nothing is downloaded
#   INSTALL_KEDGE_SHA256         checksum of INSTALL_KEDGE_FILE, when sha256sums.txt is not beside it
#   INSTALL_KEDGE_SKIP_DOWNLOAD  true: the program is in its place already
#   INSTALL_KEDGE_SKIP_ENABLE    true: do not start kedge at boot, nor now
#   INSTALL_KEDGE_SKIP_START     true: do not start kedge now
#   INSTALL_KEDGE_FORCE_RESTART  true: restart kedge even when nothing changed
#   INSTALL_KEDGE_SYMLINK        skip: no kubectl, crictl and ctr beside kedge; force: also over commands that are there
#   INSTALL_KEDGE_BIN_DIR        default /usr/local/bin, or /opt/bin where that is read-only
#   INSTALL_KEDGE_BIN_DIR_READ_ONLY  true: write nothing there
#   INSTALL_KEDGE_SYSTEMD_DIR    default /etc/systemd/system
#   INSTALL_KEDGE_NAME           the service is called kedge-NAME
#   INSTALL_KEDGE_TYPE           of the systemd service; default notify
#
# Every K3S_..., KEDGE_... and CONTAINERD_... variable and the proxy variables are kept for the service, readable by root only.
set -eu
set -f # no word of a setting may become a list of files

# The only place that says where releases are published.
DEFAULT_BASE_URL=https://github.com/kedge-io/kedge/releases
CONFIG_DIR=/etc/kedge
# What the compressed and the unpacked program need together, in KiB.
NEED_KIB=327680
# How long a start is watched, in seconds. The service goes on trying after that.
START_SECONDS=180

info() { echo "[INFO]  $*"; }
warn() { echo "[WARN]  $*" >&2; }
fatal() { echo "[ERROR] $*" >&2; exit 1; }

# setting NAME DEFAULT: the value of INSTALL_KEDGE_NAME, else of INSTALL_K3S_NAME, else the default.
setting() { eval "printf '%s' \"\${INSTALL_KEDGE_$1:-\${INSTALL_K3S_$1:-\$2}}\""; }
# kept NAME: the value of KEDGE_NAME, else of K3S_NAME.
kept() { eval "printf '%s' \"\${KEDGE_$1:-\${K3S_$1:-}}\""; }
is_true() { case $1 in true | TRUE | True | 1 | yes) return 0 ;; esac; return 1; }

# double_quoted TEXT: TEXT as a shell and as systemd read it between double quotes.
double_quoted() { printf '"%s"' "$(printf '%s' "$1" | sed 's/[\\"`$]/\\&/g')"; }
# single_quoted TEXT: TEXT as one word of a shell.
single_quoted() { printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"; }
# unit_quoted TEXT: TEXT as one argument in ExecStart of systemd.
unit_quoted() { printf '"%s"' "$(printf '%s' "$1" | sed 's/[\\"]/\\&/g; s/%/%%/g; s/\$/$$/g')"; }

check_machine() {
	[ "$(id -u)" -eq 0 ] || fatal "this must run as root: pipe it to 'sudo sh -', with the variables after sudo"
	case $(uname -s) in Linux) ;; *) fatal "kedge runs on Linux, this is $(uname -s)" ;; esac
	machine=$(uname -m)
	case $machine in
	x86_64 | amd64) ARCH=amd64 ;;
	aarch64 | arm64)
		ARCH=arm64
		[ "$(getconf LONG_BIT 2>/dev/null || echo 64)" = 64 ] || ARCH=arm
		;;
	armv7* | armv8*) ARCH=arm ;;
	*) fatal "kedge is not made for $machine: it needs x86_64, aarch64 or armv7" ;;
	esac
	if [ -d /run/systemd/system ] && command -v systemctl >/dev/null; then
		INIT=systemd
	elif command -v openrc-run >/dev/null || [ -x /sbin/openrc-run ]; then
		INIT=openrc
	else
		fatal "found neither systemd nor OpenRC to run kedge: put the program in place yourself and start 'kedge server'"
	fi
}

# words TEXT: the words of TEXT, each quoted for a shell. Quotes and backslashes group as in a shell; nothing else means anything.
words() {
	printf '%s\n' "$1" | awk -v q="'" '
		function put(c) { word = word (c == q ? q "\\" q q : c); have = 1 }
		function flush_word() { if (have) printf " %s%s%s", q, word, q; word = ""; have = 0 }
		{
			for (i = 1; i <= length($0); i++) {
				c = substr($0, i, 1)
				if (quote != "" && c == quote) quote = ""
				else if (c == "\\" && quote == "") put(substr($0, ++i, 1))
				else if (c == "\\" && quote != q && index("\\\"$`", substr($0, i + 1, 1))) put(substr($0, ++i, 1))
				else if (quote == "" && (c == q || c == "\"")) { quote = c; have = 1 }
				else if (quote == "" && c ~ /[ \t]/) flush_word()
				else put(c)
			}
			if (quote == "") flush_word(); else put("\n")
		}
		END { exit quote != "" }'
}

# parse_command EXEC ARGUMENT...: sets COMMAND and ARGUMENTS, each argument quoted for a shell.
parse_command() {
	exec_words=$(words "$1") || fatal "INSTALL_KEDGE_EXEC has a quote without its pair: $1"
	shift
	given=""
	for word in "$@"; do given="$given $(single_quoted "$word")"; done
	eval "set -- $exec_words$given"
	case ${1:-} in
	"" | -*) COMMAND=server; [ -z "$(kept URL)" ] || COMMAND=agent ;;
	server | agent) COMMAND=$1; shift ;;
	*) fatal "kedge has no service command $1: use server or agent" ;;
	esac
	ARGUMENTS="" DATA_DIR=$(kept DATA_DIR) HAS_TOKEN="" HAS_URL="" previous=""
	for word in "$@"; do
		ARGUMENTS="$ARGUMENTS $(single_quoted "$word")"
		case $previous in --data-dir | -d) DATA_DIR=$word ;; esac
		case $word in
		--data-dir=* | -d=*) DATA_DIR=${word#*=} ;;
		--token | --token=* | -t | -t=* | --token-file | --token-file=*) HAS_TOKEN=yes ;;
		--server | --server=* | -s | -s=*) HAS_URL=yes ;;
		esac
		previous=$word
	done
	DATA_DIR=${DATA_DIR:-/var/lib/kedge}
}

# in_config_file KEY: the settings file has the key.
in_config_file() { grep -qs "^$1:" "$(kept CONFIG_FILE)" "$CONFIG_DIR/config.yaml"; }

check_command() {
	case $DATA_DIR in
	/*[!/]*) ;;
	*) fatal "the data directory must be an absolute path below /: $DATA_DIR" ;;
	esac
	url=$(kept URL)
	case $url in
	"" | https://*) ;;
	*) fatal "K3S_URL must begin with https://: $url" ;;
	esac
	[ "$COMMAND" = agent ] || return 0
	[ -n "$HAS_URL$url" ] || in_config_file server ||
		fatal "an agent needs its server: set K3S_URL=https://SERVER:6443"
	[ -n "$HAS_TOKEN$(kept TOKEN)$(kept TOKEN_FILE)" ] || in_config_file token || in_config_file token-file ||
		fatal "an agent needs a token: set K3S_TOKEN to what /var/lib/kedge/server/agent-token holds on the server, or K3S_TOKEN_FILE"
	file=$(kept TOKEN_FILE)
	[ -z "$file" ] || [ -r "$file" ] || fatal "K3S_TOKEN_FILE: cannot read $file"
}

# name_things sets the names of the service and of all files.
name_things() {
	name=$(setting NAME "")
	case $name in *[!A-Za-z0-9_.-]*) fatal "INSTALL_KEDGE_NAME may have letters, digits, dots, dashes and underscores: $name" ;; esac
	SERVICE=kedge
	[ "$COMMAND" = server ] || SERVICE=kedge-$COMMAND
	[ -z "$name" ] || SERVICE=kedge-${name#kedge-}
	for other in kedge kedge-agent; do
		if [ -n "$name" ] || [ "$SERVICE" = "$other" ]; then continue; fi
		if [ ! -e "/etc/systemd/system/$other.service" ] && [ ! -e "/etc/init.d/$other" ]; then continue; fi
		fatal "this machine runs $other, not $SERVICE: for an upgrade give the same settings as at the first installation; for a change run $other-uninstall.sh first"
	done
	SYSTEMD_DIR=$(setting SYSTEMD_DIR /etc/systemd/system)
	if [ "$INIT" = systemd ]; then
		SERVICE_FILE=$SYSTEMD_DIR/$SERVICE.service
		ENV_FILE=$SERVICE_FILE.env
	else
		SERVICE_FILE=/etc/init.d/$SERVICE
		ENV_FILE=$CONFIG_DIR/$SERVICE.env
	fi
	READ_ONLY=""
	is_true "$(setting BIN_DIR_READ_ONLY false)" && READ_ONLY=yes
	BIN_DIR=$(setting BIN_DIR "")
	if [ -z "$BIN_DIR" ]; then
		BIN_DIR=/usr/local/bin
		[ -n "$READ_ONLY" ] || can_write "$BIN_DIR" || BIN_DIR=/opt/bin
	fi
	KILLALL=$BIN_DIR/kedge-killall.sh
	UNINSTALL=$BIN_DIR/$SERVICE-uninstall.sh
}

can_write() { mkdir -p "$1" 2>/dev/null && touch "$1/.kedge-install" 2>/dev/null && rm -f "$1/.kedge-install"; }

# --- download -----------------------------------------------------------------------------------------------------------

# fetch URL FILE: gets an http(s) or file URL or a path. Fails without a word when it is not there.
fetch() {
	case $1 in
	file://*) cp "${1#file://}" "$2" 2>/dev/null ;;
	/*) cp "$1" "$2" 2>/dev/null ;;
	*)
		if command -v curl >/dev/null; then
			curl -sfL --retry 3 --connect-timeout 30 -o "$2" "$1"
		elif command -v wget >/dev/null; then
			wget -q -O "$2" "$1"
		else
			fatal "neither curl nor wget is here to download with: install one, or see INSTALL_KEDGE_FILE"
		fi
		;;
	esac
}

checksum() {
	if command -v sha256sum >/dev/null; then sha256sum "$1" | cut -d' ' -f1
	elif command -v shasum >/dev/null; then shasum -a 256 "$1" | cut -d' ' -f1
	else fatal "found no sha256sum to check the download with: install coreutils"; fi
}

# listed FILE SUMS: the checksum that a list has for a file.
listed() { sed -n "s/^\([0-9a-f]\{64\}\) [ *]$1\$/\1/p" "$2"; }

# verify FILE SUM NAME
verify() {
	[ "$(checksum "$1")" = "$2" ] || fatal "$3 does not have the checksum $2: the download is damaged, or somebody changed it"
}

# find_release: sets RELEASE, the place of the release's files, and writes its checksum list to $TMP/sums.
find_release() {
	base=$(setting BASE_URL "$DEFAULT_BASE_URL")
	base=${base%/}
	case $base in
	http://* | https://* | file:///* | /*) ;;
	*) fatal "INSTALL_KEDGE_BASE_URL must begin with https://, http://, file:/// or /: $base" ;;
	esac
	case $base in *[[:space:]]*) fatal "INSTALL_KEDGE_BASE_URL may have no spaces: $base" ;; esac
	VERSION=$(setting VERSION "")
	channel=$(setting CHANNEL stable)
	if [ -z "$VERSION" ] && [ "$channel" != stable ] && [ "$channel" != latest ]; then
		url=$(setting CHANNEL_URL "")
		[ -n "$url" ] || fatal "INSTALL_KEDGE_CHANNEL=$channel needs INSTALL_KEDGE_CHANNEL_URL: without it there are stable and latest"
		fetch "${url%/}/$channel" "$TMP/channel" || fatal "channel $channel is not at $url"
		VERSION=$(head -n 1 "$TMP/channel" | tr -d ' \r')
	fi
	case $VERSION in *[!A-Za-z0-9.+_-]*) fatal "not a version: $VERSION" ;; esac
	places="$base/latest/download $base"
	[ -z "$VERSION" ] || places="$base/download/$VERSION $base/$VERSION $base"
	for RELEASE in $places; do
		if fetch "$RELEASE/sha256sums.txt" "$TMP/sums"; then return; fi
	done
	fatal "found no release${VERSION:+ $VERSION} (sha256sums.txt) at $base: check the network, INSTALL_KEDGE_VERSION and INSTALL_KEDGE_BASE_URL"
}

# unpack FILE NAME: writes the program in a release file to $TMP/kedge; its form is that of NAME.
unpack() {
	case $2 in
	*.zst) zstd -d -q -c "$1" >"$TMP/kedge" ;;
	*.xz) xz -d -c "$1" >"$TMP/kedge" ;;
	*.gz) gzip -d -c "$1" >"$TMP/kedge" ;;
	*) mv "$1" "$TMP/kedge" ;;
	esac || fatal "cannot unpack $2: is there space in $BIN_DIR?"
}

# download: puts the release's program into $TMP/kedge, or says that the installed one is it.
download() {
	find_release
	plain=kedge-$ARCH
	want=$(listed "$plain" "$TMP/sums")
	[ -n "$want" ] || fatal "the release at $RELEASE has no $plain"
	if [ -x "$BIN_DIR/kedge" ] && [ "$(checksum "$BIN_DIR/kedge")" = "$want" ]; then
		info "$BIN_DIR/kedge is the program of that release"
		return 1
	fi
	check_space
	file=$plain
	if command -v zstd >/dev/null && [ -n "$(listed "$plain.zst" "$TMP/sums")" ]; then file=$plain.zst
	elif command -v xz >/dev/null && [ -n "$(listed "$plain.xz" "$TMP/sums")" ]; then file=$plain.xz
	elif command -v gzip >/dev/null && [ -n "$(listed "$plain.gz" "$TMP/sums")" ]; then file=$plain.gz; fi
	info "getting $RELEASE/$file"
	fetch "$RELEASE/$file" "$TMP/$file" || fatal "cannot get $RELEASE/$file: check the network and the space in $BIN_DIR"
	verify "$TMP/$file" "$(listed "$file" "$TMP/sums")" "$file"
	unpack "$TMP/$file" "$file"
	verify "$TMP/kedge" "$want" "$plain"
}

# use_file PATH: the same for a file on this machine.
use_file() {
	[ -r "$1" ] || fatal "INSTALL_KEDGE_FILE: cannot read $1"
	want=$(setting SHA256 "")
	list=$(dirname "$1")/sha256sums.txt
	if [ -z "$want" ] && [ -r "$list" ]; then want=$(listed "$(basename "$1")" "$list"); fi
	[ -n "$want" ] || fatal "nothing says which checksum $1 must have: put sha256sums.txt of the release beside it, or set INSTALL_KEDGE_SHA256"
	verify "$1" "$want" "$1"
	check_space
	cp "$1" "$TMP/file" || fatal "cannot copy $1: is there space in $BIN_DIR?"
	unpack "$TMP/file" "$1"
	if [ -x "$BIN_DIR/kedge" ] && [ "$(checksum "$BIN_DIR/kedge")" = "$(checksum "$TMP/kedge")" ]; then return 1; fi
}

check_space() {
	free=$(df -Pk "$BIN_DIR" | awk 'NR == 2 {print $4}')
	[ "${free:-$NEED_KIB}" -ge "$NEED_KIB" ] ||
		fatal "no space: $BIN_DIR has $((free / 1024)) MiB free, the installation needs $((NEED_KIB / 1024)) MiB: free some, or choose another INSTALL_KEDGE_BIN_DIR"
}

install_binary() {
	skip=$(setting SKIP_DOWNLOAD false)
	if is_true "$skip" || [ "$skip" = binary ] || [ -n "$READ_ONLY" ]; then
		[ -x "$BIN_DIR/kedge" ] || fatal "the download is to be skipped, but $BIN_DIR/kedge is not there: put the program in place and make it executable"
		return
	fi
	can_write "$BIN_DIR" || fatal "cannot write to $BIN_DIR: choose another INSTALL_KEDGE_BIN_DIR"
	TMP=$(mktemp -d "$BIN_DIR/.kedge-install-XXXXXX")
	trap 'rm -rf "$TMP"' EXIT
	trap 'exit 1' HUP INT TERM
	file=$(setting FILE "")
	if [ -n "$file" ]; then use_file "$file" || return 0; else download || return 0; fi
	chmod 0755 "$TMP/kedge"
	said=$("$TMP/kedge" --version 2>/dev/null) || fatal "the program does not run on this machine ($(uname -m)): is it the right file?"
	said=$(printf '%s\n' "$said" | awk 'NR == 1 {print $2}')
	[ -z "${VERSION:-}" ] || [ "$said" = "$VERSION" ] || fatal "asked for $VERSION, but the release there is $said"
	# A program that runs keeps its file: the new one takes the name.
	mv -f "$TMP/kedge" "$BIN_DIR/kedge"
	info "installed kedge $said as $BIN_DIR/kedge"
}

link_commands() {
	how=$(setting SYMLINK "")
	[ "$how" != skip ] && [ -z "$READ_ONLY" ] || return 0
	for command in kubectl crictl ctr; do
		found=$(command -v "$command" || true)
		if [ "$found" = "$BIN_DIR/$command" ] && [ "$(readlink "$found")" = kedge ]; then continue; fi
		if [ -n "$found" ] && [ "$how" != force ]; then
			info "left $found as it is: kedge's own is 'kedge $command'"
			continue
		fi
		ln -sf kedge "$BIN_DIR/$command"
	done
}

# --- files --------------------------------------------------------------------------------------------------------------

# put MODE FILE: writes standard input to a file when it is not like that already.
put() {
	mkdir -p "$(dirname "$2")"
	(umask 077 && cat >"$2.new") || fatal "cannot write $2: is there space?"
	chmod "$1" "$2.new"
	if [ -f "$2" ] && [ "$(cat "$2.new")" = "$(cat "$2")" ]; then
		rm -f "$2.new"
		chmod "$1" "$2"
		return 0
	fi
	mv -f "$2.new" "$2"
	info "wrote $2"
}

# kept_variables: NAME="value" for each variable that the service is to have.
kept_variables() {
	env | sed -n 's/^\(K3S_[A-Za-z0-9_]*\|KEDGE_[A-Za-z0-9_]*\|CONTAINERD_[A-Za-z0-9_]*\)=.*/\1/p
		s/^\(HTTP_PROXY\|HTTPS_PROXY\|NO_PROXY\|http_proxy\|https_proxy\|no_proxy\)=.*/\1/p' | LC_ALL=C sort -u |
		while read -r variable; do
			# A line of another variable's value may look like a name.
			eval "[ -n \"\${$variable:-}\" ]" || continue
			printf '%s=%s\n' "$variable" "$(eval "double_quoted \"\$$variable\"")"
		done
}

# backoff: longer and longer pauses between starts, where systemd knows them (since release 254).
backoff() {
	release=$(systemctl --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')
	[ "${release:-0}" -lt 254 ] || printf 'RestartSteps=6\nRestartMaxDelaySec=120s\n'
}

# shellcheck disable=SC2120 # the arguments are set inside
systemd_unit() {
	cat <<-UNIT
		[Unit]
		Description=kedge $COMMAND: Kubernetes at the edge
		Documentation=https://github.com/kedge-io/kedge
		# Not network-online: a site starts with its link down.
		Wants=network.target
		After=network.target
		StartLimitIntervalSec=0

		[Service]
		Type=$(setting TYPE notify)
		EnvironmentFile=-/etc/default/%N
		EnvironmentFile=-/etc/sysconfig/%N
		EnvironmentFile=-$ENV_FILE
		# Pods outlive kedge: only the main process is stopped, and the cgroups below are kedge's own.
		KillMode=process
		Delegate=yes
		LimitNOFILE=1048576
		LimitNPROC=infinity
		LimitCORE=infinity
		TasksMax=infinity
		# An old board may take minutes; kedge itself gives up when a part hangs.
		TimeoutStartSec=0
		TimeoutStopSec=120s
		# kedge is alive while its parts are ready; after this time without, it is started again.
		WatchdogSec=300s
		Restart=always
		RestartSec=5s
		$(backoff)
	UNIT
	printf 'ExecStart=%s %s' "$BIN_DIR/kedge" "$COMMAND"
	eval "set -- $ARGUMENTS"
	for argument in "$@"; do printf ' \\\n    %s' "$(unit_quoted "$argument")"; done
	cat <<-UNIT

		# At power-off, and only then, pods are ended in order; systemd would wait 90 s for those that ignore it.
		ExecStopPost=-$KILLALL --at-power-off

		[Install]
		WantedBy=multi-user.target
	UNIT
}

openrc_service() {
	cat <<-SERVICE
		#!/sbin/openrc-run
		description="kedge $COMMAND: Kubernetes at the edge"
		supervisor=supervise-daemon
		command=$BIN_DIR/kedge
		command_args=$(double_quoted "$COMMAND$ARGUMENTS")
		output_log=/var/log/$SERVICE.log
		error_log=/var/log/$SERVICE.log
		pidfile=/run/$SERVICE.pid
		respawn_delay=5
		respawn_max=0
		rc_ulimit="-n 1048576"

		set -a
		[ ! -f /etc/environment ] || . /etc/environment
		[ ! -f $ENV_FILE ] || . $ENV_FILE
		set +a

		depend() {
			use net
			after net
			want cgroups
		}
	SERVICE
}

logrotate_rule() {
	cat <<-RULE
		/var/log/$SERVICE.log {
			missingok
			notifempty
			copytruncate
			rotate 4
			size 10M
		}
	RULE
}

# header NAME: the beginning of a script that we leave on the machine.
header() {
	cat <<-HEADER
		#!/bin/sh
		# $1
		SERVICE=$SERVICE
		BIN_DIR=$(single_quoted "$BIN_DIR")
		DATA_DIR=$(single_quoted "$DATA_DIR")
	HEADER
}

killall_script() {
	header "Stops kedge and ends every pod: processes, mounts, network links, nftables tables and cgroups. Data stays."
	cat <<'SCRIPT'
# Pods have KEDGE_KILL_SECONDS (default 10) to end by themselves.
set -u
[ "$(id -u)" -eq 0 ] || { echo "kedge-killall: run this as root" >&2; exit 1; }
[ ! -d "$DATA_DIR" ] || DATA_DIR=$(cd "$DATA_DIR" && pwd -P)
PATH=$PATH:/usr/sbin:/sbin:/usr/local/sbin

# programs PATTERN: the processes that run a program whose path matches.
programs() {
	# shellcheck disable=SC2012 # ls reads all links at once, and the names are numbers
	ls -l /proc/[0-9]*/exe 2>/dev/null | sed -n "s#.* /proc/\([0-9]*\)/exe -> $1\( (deleted)\)\{0,1\}\$#\1#p"
}

shims() { programs "$DATA_DIR/data/[0-9a-f]*/bin/containerd-shim-runc-v2"; }

# pods: every process below a shim, and what lost its shim but is in a pod's cgroup.
pods() {
	grep -hE '^(Pid|PPid):' /proc/[0-9]*/status 2>/dev/null | awk -v roots="$(shims | tr '\n' ' ')" '
		$1 == "Pid:" {pid = $2}
		$1 == "PPid:" {children[$2] = children[$2] " " pid}
		END {
			n = split(roots, queue, " ")
			for (i = 1; i <= n; i++) {
				m = split(children[queue[i]], found, " ")
				for (j = 1; j <= m; j++) { queue[++n] = found[j]; print found[j] }
			}
		}'
	# In a container, processes of other containers are all called 0.
	find /sys/fs/cgroup -path '*kubepods*' -name cgroup.procs -exec cat {} + 2>/dev/null | grep -vx 0
}

# end SIGNAL PID...: without complaint about those that are gone.
end() {
	signal=$1
	shift
	[ $# -eq 0 ] || kill "-$signal" "$@" 2>/dev/null
	return 0
}

# await SECONDS FUNCTION: waits until it prints nothing.
await() {
	read -r begin _ </proc/uptime
	while [ -n "$($2)" ]; do
		read -r now _ </proc/uptime
		[ $((${now%%.*} - ${begin%%.*})) -lt "$1" ] || return 1
		sleep 0.2 2>/dev/null || sleep 1
	done
}

# shellcheck disable=SC2046 # lists of numbers
end_pods() {
	end TERM $(pods)
	await "${KEDGE_KILL_SECONDS:-10}" pods
	end KILL $(pods)
	await 10 pods
	end KILL $(shims)
	await 10 shims
	end KILL $(pods)
}

if [ "${1:-}" = --at-power-off ]; then
	# The service calls this whenever it stops. Pods outlive that, but for the end of the machine.
	[ "$(systemctl is-system-running 2>/dev/null)" = stopping ] && end_pods
	exit 0
fi

kedges() {
	for pid in $(programs "$BIN_DIR/kedge"); do
		case $(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline") in *kedge" server "* | *kedge" agent "*) echo "$pid" ;; esac
	done
}

# shellcheck disable=SC2046 # a list of numbers
stop_kedge() {
	for service in kedge kedge-agent "$SERVICE"; do
		if [ -d /run/systemd/system ]; then
			systemctl stop "$service.service" 2>/dev/null
		elif [ -x "/etc/init.d/$service" ]; then
			rc-service "$service" stop 2>/dev/null
		fi
	done
	end TERM $(kedges)
	await 60 kedges
	end KILL $(kedges)
}

# mounts: those of kedge and its pods, the last one first.
mounts() {
	sed 's/^[^ ]* \([^ ]*\) .*/\1/' /proc/self/mounts | while read -r path; do
		path=$(printf '%b' "$path" | sed 's#//deleted$##')
		case $path in
		/run/kedge/* | "$DATA_DIR"/agent/* | /var/lib/kubelet/pods/* | /var/lib/kubelet/plugins/* | /run/netns/cni-*) echo "$path" ;;
		esac
	done | sed '1!G;h;$!d'
}

unmount_all() {
	mounts | while read -r path; do
		umount "$path" 2>/dev/null || umount -l "$path"
	done
	rm -f /run/netns/cni-*
	rmdir /run/netns 2>/dev/null
}

delete_links() {
	for link in /sys/class/net/cni0/brif/* /sys/class/net/*; do
		name=${link##*/}
		case $link:$name in
		*/brif/*:veth* | *:cni0 | *:kedge* | *:flannel*) ;;
		*) continue ;;
		esac
		[ -e "/sys/class/net/$name" ] || continue
		ip link delete "$name" || echo "kedge-killall: the network link $name is left: delete it with ip (Debian: iproute2)" >&2
	done
}

delete_tables() {
	nft=$DATA_DIR/data/current/bin/nft
	[ -x "$nft" ] || nft=$(command -v nft) || return 0
	"$nft" list tables 2>/dev/null | while read -r _ family table; do
		case $table in
		kedge* | kube-proxy | cni_hostport | cni_plugins_masquerade | flannel-ipv4 | flannel-ipv6) "$nft" delete table "$family" "$table" ;;
		esac
	done
}

delete_cgroups() {
	if [ -d /run/systemd/system ]; then
		systemctl stop kubepods.slice 2>/dev/null
		systemctl reset-failed 'cri-containerd-*.scope' 'kubepods*.slice' 2>/dev/null
	fi
	find /sys/fs/cgroup -depth -type d -path '*kubepods*' -exec rmdir {} \; 2>/dev/null
}

stop_kedge
end_pods
unmount_all
delete_links
delete_tables
delete_cgroups
# What runc knows of the containers; another containerd has its own below other names.
rm -rf /run/kedge /run/flannel /run/containerd/runc/k8s.io
rmdir /run/containerd/runc /run/containerd 2>/dev/null
# Where device mappers made for KubeEdge look for kedge.
[ ! -S /etc/kubeedge/dmi.sock ] || rm -f /etc/kubeedge/dmi.sock
rmdir /etc/kubeedge 2>/dev/null
exit 0
SCRIPT
}

uninstall_script() {
	header "Removes kedge from this machine, with all pods, volumes and settings."
	printf 'CONFIG_DIR=%s\nSERVICE_FILE=%s\nENV_FILE=%s\n' "$CONFIG_DIR" "$(single_quoted "$SERVICE_FILE")" "$(single_quoted "$ENV_FILE")"
	cat <<'SCRIPT'
set -u
[ "$(id -u)" -eq 0 ] || { echo "$SERVICE-uninstall: run this as root" >&2; exit 1; }

if [ -d /run/systemd/system ]; then
	systemctl disable "$SERVICE.service" 2>/dev/null
elif command -v rc-update >/dev/null; then
	rc-update del "$SERVICE" default 2>/dev/null
fi
"$BIN_DIR/kedge-killall.sh"
rm -f "$SERVICE_FILE" "$ENV_FILE" "/var/log/$SERVICE.log" "/etc/logrotate.d/$SERVICE"
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	systemctl reset-failed "$SERVICE.service" 2>/dev/null
fi

# remove DIRECTORY: with what is in it, but never what is mounted there.
remove() {
	if grep -q " $1/" /proc/self/mounts; then
		find "$1" -xdev -depth ! -type d -exec rm -f {} + 2>/dev/null
		echo "$SERVICE-uninstall: something is mounted below $1: unmount it and remove the directory" >&2
		return
	fi
	rm -rf "${1:?}"/* "$1"/.[!.]* "$1"/..?*
	rmdir "$1" 2>/dev/null || true
}

for other in "${SERVICE_FILE%/*}"/kedge*; do
	case $other in
	"${SERVICE_FILE%/*}/kedge*" | */kedge*.env | */kedge*.d) continue ;;
	esac
	echo "$SERVICE-uninstall: $other is still there: the program and its data stay"
	rm -f "$0"
	exit 0
done
for command in kubectl crictl ctr; do
	[ "$(readlink "$BIN_DIR/$command")" != kedge ] || rm -f "$BIN_DIR/$command"
done
kubelet=/var/lib/kubelet
[ "$DATA_DIR" = /var/lib/kedge ] || kubelet="" # with another data directory it is in there
for directory in "$CONFIG_DIR" "$DATA_DIR" $kubelet /var/log/pods /var/log/containers; do
	[ ! -d "$directory" ] || remove "$directory"
done
# Other CNI networks keep theirs below other names.
rm -f /var/lib/cni/results/kedge-* /var/lib/cni/results/cni-loopback-*
rmdir /var/lib/cni/results /var/lib/cni 2>/dev/null
# The controllers make a directory for volume plugins; with a plugin in it, it stays.
(cd /usr/libexec 2>/dev/null && rmdir -p kubernetes/kubelet-plugins/volume/exec 2>/dev/null)
rm -f "$BIN_DIR/kedge" "$BIN_DIR/kedge-killall.sh" "$0"
exit 0
SCRIPT
}

# --- service ------------------------------------------------------------------------------------------------------------

# state is a checksum of what a restart of kedge would bring into use.
state() {
	for file in "$BIN_DIR/kedge" "$SERVICE_FILE" "$ENV_FILE"; do
		if [ -f "$file" ]; then checksum "$file"; else echo none; fi
	done
}

write_files() {
	if [ -z "$READ_ONLY" ]; then
		killall_script | put 0755 "$KILLALL"
		uninstall_script | put 0755 "$UNINSTALL"
	fi
	kept_variables | put 0600 "$ENV_FILE"
	if [ "$INIT" = systemd ]; then
		loaded=$(state)
		# shellcheck disable=SC2119
		systemd_unit | put 0644 "$SERVICE_FILE"
		[ "$loaded" = "$(state)" ] || systemctl daemon-reload
	else
		openrc_service | put 0755 "$SERVICE_FILE"
		[ ! -d /etc/logrotate.d ] || logrotate_rule | put 0644 "/etc/logrotate.d/$SERVICE"
	fi
}

enable_service() {
	if [ "$INIT" = systemd ]; then
		systemctl -q is-enabled "$SERVICE.service" 2>/dev/null || systemctl -q enable "$SERVICE_FILE"
	else
		rc-update show default 2>/dev/null | grep -q "^ *$SERVICE " || rc-update -q add "$SERVICE" default
	fi
}

running() {
	if [ "$INIT" = systemd ]; then systemctl -q is-active "$SERVICE.service"
	else rc-service -q "$SERVICE" status >/dev/null 2>&1; fi
}

# started BEFORE: the service is active, and not as what it was before.
started() { [ "$(invocation)" != "$1" ] && running; }
invocation() { systemctl show -p InvocationID --value "$SERVICE.service"; }

start_service() {
	info "starting $SERVICE"
	if [ "$INIT" = openrc ]; then
		rc-service "$SERVICE" restart
		return
	fi
	was=$(invocation)
	systemctl restart --no-block "$SERVICE.service"
	waited=0
	while ! started "$was"; do
		restarts=$(systemctl show -p NRestarts --value "$SERVICE.service")
		if [ "$(invocation)" != "$was" ] && [ "${restarts:-0}" -ge 2 ]; then
			journalctl -q -n 15 -o cat -u "$SERVICE.service" >&2 || true
			fatal "$SERVICE does not start: see above, and 'journalctl -u $SERVICE'"
		fi
		if [ "$waited" -ge "$START_SECONDS" ]; then
			warn "$SERVICE is not ready after $START_SECONDS s and goes on trying: see 'kedge status' and 'journalctl -u $SERVICE'"
			return
		fi
		waited=$((waited + 1))
		sleep 1
	done
	info "$SERVICE is ready"
}

main() {
	check_machine
	parse_command "$(setting EXEC '')" "$@"
	check_command
	name_things
	before=$(state)
	install_binary
	link_commands
	write_files
	is_true "$(setting SKIP_ENABLE false)" && return
	enable_service
	is_true "$(setting SKIP_START false)" && return
	if [ "$before" = "$(state)" ] && running && ! is_true "$(setting FORCE_RESTART false)"; then
		info "nothing changed: $SERVICE goes on running"
		return
	fi
	start_service
	[ "$COMMAND" = agent ] || info "look at it with: kedge status; kedge kubectl get nodes"
}

# A download that was cut short must not run: this line is the last one.
main "$@"
