#!/bin/bash
# demo.sh [IMAGE]: a guest survives the SIGKILL of its Master. Exits 0 only if every check holds.
#
# Works on a private copy of the image in var/demo. FT_PAIR names another ft-pair than the release
# build; FT_DEMO_WORK the seconds of guest work between protection and kill (default 5).
set -eu
export LC_ALL=C

top=$(cd "$(dirname "$0")/.." && pwd)
ft_pair=${FT_PAIR:-$top/target/release/ft-pair}
source_image=${1:-$top/var/images/base.img}
work_s=${FT_DEMO_WORK:-5}
dir=$top/var/demo
image=$dir/demo.img
console=$dir/console.txt
events=$dir/events.jsonl
status=$dir/status.json
log=$dir/ft-pair.log
disk=$dir/disk.txt
name=demo
up_pid=''
members=''
began=$SECONDS

say() { printf '[%3d s] %s\n' $((SECONDS - began)) "$*"; }
fail() {
	say "FAILED: $*" >&2
	for file in "$log" "$console"; do
		if [ -s "$file" ]; then
			echo "--- end of $file" >&2
			tail -n 15 "$file" >&2
		fi
	done
	exit 1
}

# A child of ours, or one of the pair's processes, is still what it was when we learnt its pid.
is_ours() { # PID
	[ -n "$1" ] && [ -r "/proc/$1/cmdline" ] &&
		tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null | grep -q 'ft-pair'
}
cleanup() {
	trap - EXIT INT TERM HUP
	local pid tries
	if is_ours "$up_pid"; then
		kill -TERM "$up_pid" 2>/dev/null || true
		for ((tries = 0; tries < 50; tries++)); do
			is_ours "$up_pid" || break
			sleep 0.1
		done
	fi
	for pid in $up_pid $members; do
		if is_ours "$pid"; then
			kill -KILL "$pid" 2>/dev/null || true
		fi
	done
	rm -f "$image" "$dir/input"
}
trap cleanup EXIT
trap 'exit 1' INT TERM HUP

alive() { is_ours "$up_pid" || fail "ft-pair up ended early"; }

# The pair prints CR LF and prompts may precede a line: a ledger line is found by its form alone.
ledger_lines() { # FILE
	tr -d '\r' <"$1" | grep -aoE 'ledger [0-9]{6,} up [0-9]+\.[0-9]{2}$' || true
}
count() { ledger_lines "$console" | wc -l; }

wait_lines() { # LINES SECONDS WHAT
	local deadline=$((SECONDS + $2)) shown=$SECONDS
	while [ "$(count)" -lt "$1" ]; do
		alive
		[ $SECONDS -lt "$deadline" ] || fail "no $1 ledger lines within $2 s: $3"
		if ((SECONDS - shown >= 5)); then
			shown=$SECONDS
			say "  ... $3: $(count) ledger lines, console: $(tail -n 1 "$console" | tr -cd '[:print:]' | cut -c 1-80)"
		fi
		sleep 0.2
	done
}

# The status is one JSON object with "name", "protected" and "master"/"slave" objects with "pid".
# All white space goes first, so that the layout does not matter.
ask_status() { timeout 10 "$ft_pair" status "$name" --json >"$status" 2>>"$log"; }
status_pid() { # ROLE
	tr -d ' \t\n' <"$status" | sed -n "s/.*\"$1\":{\([^{}]*[,]\)\{0,1\}\"pid\":\([0-9][0-9]*\).*/\2/p"
}
status_protected() { tr -d ' \t\n' <"$status" | grep -q '"protected":true'; }

field() { # EVENT FIELD: of the first such event, as a bare number
	grep -a "\"event\": *\"$1\"" "$events" | head -n 1 | sed -n "s/.*\"$2\": *\([0-9.]*\).*/\1/p"
}
known_members() {
	local pid
	for pid in $(status_pid master) $(status_pid slave); do
		case " $members " in *" $pid "*) ;; *) members="$members $pid" ;; esac
	done
}

[ -x "$ft_pair" ] || fail "no $ft_pair: run 'make build'"
[ -f "$source_image" ] || fail "no $source_image: run 'make image'"
command -v debugfs >/dev/null || PATH=$PATH:/sbin:/usr/sbin
command -v debugfs >/dev/null || fail "debugfs is missing: run 'make deps'"
mkdir -p "$dir"
exec 9>"$dir/.lock"
flock -n 9 || fail "another demo is running in $dir"
rm -f "$console" "$events" "$status" "$log" "$disk" "$image"

say "copying the image"
cp --reflink=auto --sparse=always "$source_image" "$image"

append=$(debugfs -R 'cat /boot/extlinux/extlinux.conf' "$image" 2>/dev/null |
	sed -n 's/^[[:space:]]*append[[:space:]]*//p' | head -n 1)
[ -n "$append" ] || fail "$source_image has no command line in /boot/extlinux/extlinux.conf"
say "starting the pair: $append ft.ledger"
: >"$console"
# Its input stays open and silent, so that the console does not see an end of file.
rm -f "$dir/input"
mkfifo "$dir/input"
exec 8<>"$dir/input"
"$ft_pair" up "$image" --name "$name" --append "$append ft.ledger" --events "$events" -q \
	<"$dir/input" >"$console" 2>"$log" 9>&- 8>&- &
up_pid=$!

wait_lines 10 180 "booting"
say "the guest is up and writes its ledger: $(count) lines"

deadline=$((SECONDS + 120))
until ask_status && known_members && status_protected; do
	alive
	[ $SECONDS -lt $deadline ] || fail "not protected within 120 s; status: $(cat "$status")"
	sleep 0.3
done
master=$(status_pid master)
[ -n "$master" ] && is_ours "$master" || fail "status names no living Master: $(cat "$status")"
say "protected: Master $master, Slave $(status_pid slave); $work_s s of guest work"
before=$(count)
wait_lines $((before + 10)) 60 "guest work"
sleep "$work_s"

ask_status && known_members && status_protected || fail "no longer protected before the kill"
master=$(status_pid master)
[ -n "$master" ] && is_ours "$master" || fail "status names no living Master: $(cat "$status")"
at_kill=$(count)
say "kill -9 $master, the Master, after $at_kill ledger lines"
kill -KILL "$master"
wait_lines $((at_kill + 30)) 90 "after the kill"
at_end=$(count)
say "the guest goes on: $((at_end - at_kill)) lines since"
ask_status && known_members || true

say "powering the guest off"
timeout 90 "$ft_pair" down "$name" >>"$log" 2>&1 || fail "ft-pair down failed"
deadline=$((SECONDS + 60))
while is_ours "$up_pid"; do
	[ $SECONDS -lt $deadline ] || fail "ft-pair up did not end within 60 s of down"
	sleep 0.2
done
up_rc=0
wait "$up_pid" || up_rc=$?
left=''
for pid in $members; do
	if is_ours "$pid"; then
		left="$left $pid"
	fi
done

# --- the checks ---
failed=0
results=$dir/results.txt
: >"$results"
check() { # OK TEXT DETAIL
	if [ "$1" = yes ]; then
		printf '  ok    %-44s %s\n' "$2" "$3" >>"$results"
	else
		printf '  FAIL  %-44s %s\n' "$2" "$3" >>"$results"
		failed=1
	fi
}

ledger_lines "$console" >"$dir/console-ledger.txt"
timeout 30 debugfs -R 'cat /var/ledger.txt' "$image" >"$disk" 2>/dev/null || true

# Prints "yes|no TAB detail": numbers go up by one from the first, uptime never falls.
sequence='
	/^ledger [0-9]+ up [0-9.]+$/ {
		n = $2 + 0
		if (NR == 1) first = n
		else if (n != last + 1 && bad == "") bad = "line " NR ": " last " is followed by " n
		if ($4 + 0 < up && bad == "") bad = "line " NR ": uptime falls from " up " to " $4
		last = n; up = $4 + 0; next
	}
	{ if (bad == "") bad = "line " NR " is no ledger line: " $0 }
	END {
		if (NR == 0) print "no\tempty"
		else if (bad != "") print "no\t" bad
		else print "yes\t" NR " lines, " first " to " last ", uptime to " up " s"
	}'
verdict=$(awk "$sequence" "$dir/console-ledger.txt")
check "${verdict%%	*}" "console: none missing, doubled, out of order" "${verdict#*	}"
verdict=$(awk "$sequence" "$disk")
check "${verdict%%	*}" "disk: none missing, doubled, out of order" "${verdict#*	}"

verdict=$(awk '
	FILENAME == ARGV[1] { line[FNR] = $0; n = FNR; next }
	{ if (FNR <= n && $0 != line[FNR] && bad == "") bad = "line " FNR ": disk \"" $0 "\", console \"" line[FNR] "\"" ; m = FNR }
	END {
		if (bad == "" && m < n) bad = "disk ends at line " m + 0 ", console has " n
		if (n == 0) bad = "no line"
		if (bad != "") print "no\t" bad; else print "yes\t" m - n " more on disk"
	}' "$dir/console-ledger.txt" "$disk")
check "${verdict%%	*}" "every console line is on the disk" "${verdict#*	}"

boots=$(grep -ac 'ft: userland up' "$console" || true)
uptimes=$(awk -v k="$at_kill" 'NR == k { a = $4 } END { print (a == "" ? "?" : a) " s at the kill, " $4 " s at the end" }' "$dir/console-ledger.txt")
if [ "$boots" = 1 ] && ! grep -aq 'Kernel panic' "$console"; then ok=yes; else ok=no; fi
check $ok "one boot, the uptime goes on" "$boots boot, $uptimes"

detect=$(field failover detect_ms)
live=$(field failover live_ms)
failovers=$(grep -ac '"event": *"failover"' "$events" || true)
if [ -n "$detect" ] && [ -n "$live" ] && [ "$failovers" = 1 ]; then ok=yes; else ok=no; fi
check $ok "failover reported, once" "detected after ${detect:-?} ms, live after ${live:-?} ms"

if [ $up_rc = 0 ]; then ok=yes; else ok=no; fi
check $ok "ft-pair up ended well" "exit code $up_rc"
if [ -z "$left" ]; then ok=yes; else ok=no; fi
check $ok "nothing is left running" "${left:-no process of the pair}"
if timeout 60 e2fsck -fn "$image" >"$dir/fsck.txt" 2>&1; then ok=yes; else ok=no; fi
check $ok "the disk is clean" "e2fsck -fn"

echo
echo "  what happened                                  $((SECONDS - began)) s in all"
echo "  ----------------------------------------------------------------------------"
cat "$results"
echo
if [ $failed != 0 ]; then
	echo "demo: FAILED; console, events and log are in $dir" >&2
	exit 1
fi
echo "demo: the guest outlived its Master; live again ${live} ms after the kill"
