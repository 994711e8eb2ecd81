#!/bin/sh
# Starts and stops a master and an agent on this machine.
#
#   service.sh start          a master on loopback and an agent beside it
#   service.sh start master   a master on all addresses, for PEER_MASTERS
#   service.sh start worker   an agent only, for EXPLORER_ADDRESSES
#   service.sh stop | status | logs
#
# The programs take their settings from the environment; see their --help.
set -eu

cd "$(dirname "$0")/.."
: "${RUN_DIR:=.run}"
. scripts/process.sh

# The home directory, where nobody says which it is: the programs find it, too.
if [ -z "${HOME-}" ]; then
	HOME=$(eval "cd ~$(id -un)" 2>/dev/null && pwd) || true
	export HOME
fi
home=${HOME:-'~'}

# reachable prints a listening address as one that can be connected to here.
reachable() {
	case $1 in
	0.0.0.0:*) echo "127.0.0.1:${1##*:}" ;;
	'[::]':* | :*) echo "localhost:${1##*:}" ;;
	*) echo "$1" ;;
	esac
}

rpc=${EXPLORER_TCP_ADDR-127.0.0.1:9002}
ui=${EXPLORER_UI_ADDR-127.0.0.1:9001}
socket=${EXPLORER_RPC_SOCKET-${HERO_SOCKET_DIR:-$home/hero/var/sockets}/hero_compute/explorer_rpc.sock}
data=${EXPLORER_DATA_DIR:-$home/hero/var/hero_explorer}

# wait_until COMMAND… waits for 30 seconds, or until process $1 has ended.
wait_until() {
	wait_name=$1
	shift
	wait_tries=0
	until "$@" >/dev/null 2>&1; do
		wait_tries=$((wait_tries + 1))
		if ! process_pid "$wait_name" >/dev/null || [ "$wait_tries" -ge 150 ]; then
			return 1
		fi
		sleep 0.2
	done
	process_pid "$wait_name" >/dev/null
}

start_master() {
	if pid=$(process_pid explorer); then
		echo "explorer is already running (pid $pid); make stop ends it"
		return
	fi
	process_start explorer bin/explorer serve
	if [ -n "$rpc" ]; then
		addr=http://$(reachable "$rpc")
	else
		addr=unix://$socket
	fi
	printf '%s\n%s\n%s\n' "$rpc" "$ui" "$socket" >"$RUN_DIR/explorer.addrs"
	if ! wait_until explorer bin/explorer health --timeout 2s --addr "$addr"; then
		process_stop explorer || true
		rm -f "$RUN_DIR/explorer.addrs"
		process_complain explorer
		exit 1
	fi
	echo "explorer is running (pid $(process_pid explorer)), its data is in $data"
	show_addresses
}

# show_addresses prints where the running master is.
show_addresses() {
	{
		read -r shown_rpc
		read -r shown_ui
		read -r shown_socket
	} <"$RUN_DIR/explorer.addrs" 2>/dev/null || return 0
	[ -z "$shown_ui" ] || echo "  page    http://$(reachable "$shown_ui")"
	[ -z "$shown_rpc" ] || echo "  API     http://$(reachable "$shown_rpc")/rpc"
	[ -z "$shown_socket" ] || echo "  socket  $shown_socket"
	case $shown_rpc in
	0.0.0.0:* | '[::]':* | :*) echo "  and on every other address of this machine" ;;
	esac
}

# start_agent DIR EXPLORERS
start_agent() {
	if pid=$(process_pid workeragent); then
		echo "workeragent is already running (pid $pid); make stop ends it"
		return
	fi
	process_start workeragent bin/workeragent run --data-dir "$1" --explorers "$2"
	if ! wait_until workeragent bin/workeragent status --data-dir "$1"; then
		process_stop workeragent || true
		process_complain workeragent
		exit 1
	fi
	echo "workeragent is running (pid $(process_pid workeragent)), it reports this machine to $2"
}

start() {
	agent_data=${AGENT_DATA_DIR:-${data}_agent}
	case ${1-} in
	'')
		start_master
		start_agent "$agent_data" "${EXPLORER_ADDRESSES:-$(reachable "${rpc:-unix://$socket}")}"
		;;
	master)
		rpc=${EXPLORER_TCP_ADDR-0.0.0.0:9002}
		ui=${EXPLORER_UI_ADDR-0.0.0.0:9001}
		export EXPLORER_TCP_ADDR="$rpc" EXPLORER_UI_ADDR="$ui"
		start_master
		;;
	worker)
		if [ -z "${EXPLORER_ADDRESSES-}" ]; then
			echo "make start MODE=worker needs EXPLORER_ADDRESSES, the masters to report to:" >&2
			echo "  make start MODE=worker EXPLORER_ADDRESSES=192.0.2.1,192.0.2.2" >&2
			exit 2
		fi
		start_agent "$agent_data" "$EXPLORER_ADDRESSES"
		;;
	*)
		echo "MODE=$1 is not known; leave it out, or give master or worker" >&2
		exit 2
		;;
	esac
}

stop() {
	for name in workeragent explorer; do
		if process_stop $name; then
			echo "$name has ended"
		else
			echo "$name is not running"
		fi
	done
	# A master that was killed cannot take its socket away.
	if left=$(sed -n 3p "$RUN_DIR/explorer.addrs" 2>/dev/null) && [ -S "$left" ] &&
		! bin/explorer health --timeout 2s --addr "unix://$left" >/dev/null 2>&1; then
		rm -f "$left"
	fi
	rm -f "$RUN_DIR/explorer.addrs"
}

status() {
	if pid=$(process_pid explorer); then
		echo "explorer is running (pid $pid)"
		show_addresses
	else
		echo "explorer is not running"
	fi
	if pid=$(process_pid workeragent); then
		echo "workeragent is running (pid $pid)"
	else
		echo "workeragent is not running"
	fi
}

logs() {
	set --
	for name in explorer workeragent; do
		[ ! -f "$RUN_DIR/$name.log" ] || set -- "$@" "$RUN_DIR/$name.log"
	done
	if [ $# -eq 0 ]; then
		echo "no logs in $RUN_DIR; make start writes them"
		return
	fi
	if [ -n "${FOLLOW-}" ]; then
		exec tail -n "${LINES:-50}" -f "$@"
	fi
	tail -n "${LINES:-50}" "$@"
}

case ${1-} in
start | stop | status | logs) "$@" ;;
*)
	sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' "$0" >&2
	exit 2
	;;
esac
