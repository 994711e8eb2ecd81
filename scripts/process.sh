# Background processes with pid files, for other scripts to source. RUN_DIR says
# where NAME.pid and NAME.log are.
#
# A pid file holds the pid and the mark of the process, so that a pid that the
# system has given to another program meanwhile is never taken for ours.

# process_mark PID prints what tells this process from a later one with its pid:
# when it started.
process_mark() {
	if [ -r "/proc/$1/stat" ]; then
		# The name, in parentheses, may hold spaces; field 22 is the start.
		sed 's/^.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20
	else
		ps -o lstart= -p "$1" 2>/dev/null | tr -s ' ' '_'
	fi
}

# process_ended PID succeeds when there is no such process, or only the remains
# of one that nobody has waited for.
process_ended() {
	kill -0 "$1" 2>/dev/null || return 0
	case $(sed 's/^.*) //' "/proc/$1/stat" 2>/dev/null) in Z*) return 0 ;; esac
	return 1
}

# process_pid NAME prints the pid of NAME if it runs, and fails otherwise.
process_pid() {
	[ -f "$RUN_DIR/$1.pid" ] || return 1
	read -r process_pid_pid process_pid_mark <"$RUN_DIR/$1.pid" || return 1
	process_ended "$process_pid_pid" && return 1
	[ "$(process_mark "$process_pid_pid")" = "$process_pid_mark" ] || return 1
	echo "$process_pid_pid"
}

# process_start NAME COMMAND… runs the command in the background, in a session
# of its own where the system has setsid, so that Ctrl-C here does not reach it.
process_start() {
	process_start_name=$1
	shift
	mkdir -p "$RUN_DIR"
	if command -v setsid >/dev/null 2>&1; then
		set -- setsid "$@"
	else
		set -- nohup "$@"
	fi
	"$@" </dev/null >"$RUN_DIR/$process_start_name.log" 2>&1 &
	echo "$! $(process_mark $!)" >"$RUN_DIR/$process_start_name.pid"
}

# process_stop NAME asks NAME to end, waits for 10 seconds, and ends it. It
# fails when NAME does not run.
process_stop() {
	if ! process_stop_pid=$(process_pid "$1"); then
		rm -f "$RUN_DIR/$1.pid"
		return 1
	fi
	kill "$process_stop_pid" 2>/dev/null || true
	process_stop_tries=0
	until process_ended "$process_stop_pid"; do
		process_stop_tries=$((process_stop_tries + 1))
		if [ "$process_stop_tries" -eq 110 ]; then
			echo "$1 (pid $process_stop_pid) has not ended within 10 seconds; killing it" >&2
			kill -9 "$process_stop_pid" 2>/dev/null || true
		fi
		sleep 0.1
	done
	rm -f "$RUN_DIR/$1.pid"
}

# process_complain NAME shows why NAME is not there.
process_complain() {
	echo "$1 has failed; the end of $RUN_DIR/$1.log:" >&2
	tail -n 20 "$RUN_DIR/$1.log" | sed 's/^/    /' >&2
}
