/*
 * ledger [PERIOD_MS]: a witness inside the guest.
 *
 * Appends one numbered line per period to /var/ledger.txt, syncs it, and only then writes the same
 * line to the console. So a line seen on the console is a promise that the disk holds it. A later
 * start goes on after the last complete line.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char PATH[] = "/var/ledger.txt";

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void write_all(int fd, const char *buf, size_t len, const char *what)
{
	while (len > 0) {
		ssize_t n = write(fd, buf, len);
		if (n < 0)
			die(what);
		buf += n;
		len -= (size_t)n;
	}
}

/* The last number in the file; cuts off a line that a power loss left incomplete. */
static unsigned long last_number(int fd)
{
	char buf[256];
	off_t size = lseek(fd, 0, SEEK_END);
	off_t from = size > (off_t)sizeof buf ? size - (off_t)sizeof buf : 0;
	ssize_t n = pread(fd, buf, sizeof buf, from);
	unsigned long number = 0;

	if (size < 0 || n < 0)
		die(PATH);
	while (n > 0 && buf[n - 1] != '\n')
		n--;
	if (from + n < size && ftruncate(fd, from + n) < 0)
		die(PATH);
	if (n == 0)
		return 0;
	buf[n - 1] = '\0';
	char *line = strrchr(buf, '\n');
	if (sscanf(line ? line + 1 : buf, "ledger %lu", &number) != 1) {
		fprintf(stderr, "ledger: %s: the last line is not a ledger line\n", PATH);
		exit(1);
	}
	return number;
}

int main(int argc, char **argv)
{
	long period_ms = argc > 1 ? atol(argv[1]) : 100;
	int file = open(PATH, O_RDWR | O_CREAT | O_APPEND, 0644);
	int console = open("/dev/console", O_WRONLY | O_NOCTTY);
	struct timespec next, up;
	unsigned long number;

	if (period_ms <= 0) {
		fprintf(stderr, "usage: ledger [PERIOD_MS]\n");
		return 2;
	}
	if (file < 0)
		die(PATH);
	if (console < 0)
		die("/dev/console");
	number = last_number(file);
	clock_gettime(CLOCK_MONOTONIC, &next);
	for (;;) {
		char line[64];
		clock_gettime(CLOCK_BOOTTIME, &up);
		int len = snprintf(line, sizeof line, "ledger %06lu up %ld.%02ld\n", ++number,
				   (long)up.tv_sec, up.tv_nsec / 10000000);
		write_all(file, line, (size_t)len, PATH);
		if (fsync(file) < 0)
			die(PATH);
		write_all(console, line, (size_t)len, "/dev/console");

		next.tv_nsec += period_ms % 1000 * 1000000;
		next.tv_sec += period_ms / 1000 + next.tv_nsec / 1000000000;
		next.tv_nsec %= 1000000000;
		clock_gettime(CLOCK_MONOTONIC, &up);
		/* Late by more than a period: do not catch up with a burst. */
		if (up.tv_sec > next.tv_sec ||
		    (up.tv_sec == next.tv_sec && up.tv_nsec > next.tv_nsec))
			next = up;
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
	}
}
