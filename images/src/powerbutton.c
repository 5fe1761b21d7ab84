/* powerbutton: waits in the background for an ACPI power button and then runs /sbin/poweroff. */
#include <fcntl.h>
#include <linux/input.h>
#include <poll.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { DEVICES = 32, BITS = 8 * sizeof(unsigned long) };

int main(void)
{
	struct pollfd fds[DEVICES];
	nfds_t count = 0;

	for (int i = 0; i < DEVICES; i++) {
		unsigned long keys[KEY_MAX / BITS + 1] = { 0 };
		char path[32];
		snprintf(path, sizeof path, "/dev/input/event%d", i);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		if (ioctl(fd, EVIOCGBIT(EV_KEY, sizeof keys), keys) < 0 ||
		    !(keys[KEY_POWER / BITS] >> KEY_POWER % BITS & 1)) {
			close(fd);
			continue;
		}
		fds[count++] = (struct pollfd){ .fd = fd, .events = POLLIN };
	}
	if (count == 0) {
		fprintf(stderr, "powerbutton: no input device has a power key\n");
		return 1;
	}
	if (daemon(0, 1) < 0) {
		perror("powerbutton");
		return 1;
	}
	while (poll(fds, count, -1) > 0) {
		for (nfds_t i = 0; i < count; i++) {
			struct input_event event;
			if (!(fds[i].revents & POLLIN) ||
			    read(fds[i].fd, &event, sizeof event) != sizeof event)
				continue;
			if (event.type == EV_KEY && event.code == KEY_POWER && event.value == 1) {
				execl("/sbin/poweroff", "poweroff", NULL);
				perror("/sbin/poweroff");
				return 1;
			}
		}
	}
	return 1;
}
