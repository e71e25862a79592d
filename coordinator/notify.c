#include "coordinator/notify.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void notify(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	if (path == NULL || path[0] == '\0')
		return;
	size_t n = strlen(path);
	if (n >= sizeof to.sun_path) {
		log_warn("serve", "NOTIFY_SOCKET is too long");
		return;
	}
	memcpy(to.sun_path, path, n);
	if (path[0] == '@') /* an abstract socket */
		to.sun_path[0] = '\0';
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&to,
			     (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)) < 0)
		log_warn("serve", "NOTIFY_SOCKET: %s", strerror(errno));
	if (fd >= 0)
		close(fd);
}

void notify_ready(void)
{
	notify("READY=1");
}

void notify_stopping(int64_t within_ms)
{
	char text[80];
	snprintf(text, sizeof text, "STOPPING=1\nEXTEND_TIMEOUT_USEC=%" PRId64, within_ms * 1000);
	notify(text);
}

void notify_reloading(void)
{
	char text[64];
	snprintf(text, sizeof text, "RELOADING=1\nMONOTONIC_USEC=%" PRId64, clock_monotonic_ms() * 1000);
	notify(text);
}

void notify_alive(void)
{
	notify("WATCHDOG=1");
}

int64_t notify_watchdog_ms(void)
{
	const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
	int64_t n, who;
	if (usec == NULL)
		return 0;
	if (!text_to_int(usec, &n) || n < 1000) {
		log_warn("serve", "WATCHDOG_USEC=%.40s is not a number of microseconds from 1000 on; no watchdog",
			 usec);
		return 0;
	}
	if (pid != NULL && (!text_to_int(pid, &who) || who != getpid()))
		return 0; /* it is meant for another process */
	return n / 1000;
}
