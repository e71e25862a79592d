/*
 * In the place of systemd: a socket at PATH, and every message it gets as a line on stdout (newlines in it as spaces).
 * Usage: e2e-notify-tool PATH
 */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

int main(int argc, char **argv)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
	if (argc != 2 || fd < 0 || strlen(argv[1]) >= sizeof at.sun_path)
		return 2;
	memcpy(at.sun_path, argv[1], strlen(argv[1]));
	if (bind(fd, (struct sockaddr *)&at, sizeof at) != 0)
		return 1;
	for (;;) {
		char message[256];
		ssize_t n = recv(fd, message, sizeof message - 1, 0);
		if (n < 0)
			return 1;
		message[n] = '\0';
		for (char *c = message; *c != '\0'; c++)
			*c = *c == '\n' ? ' ' : *c;
		printf("%s\n", message);
		fflush(stdout);
	}
}
