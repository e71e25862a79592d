/*
 * A bad line: relays TCP connections to TARGET and cuts, stalls or slows them. Prints "listening PORT", then a line of
 * totals whenever something happens and after every MiB; ends on SIGTERM.
 *
 * Usage: e2e-proxy-tool HOST:PORT [key=value ...]
 *	listen=PORT          default: a free one
 *	up=N,N,...           cut all connections when so many bytes, over all connections, have gone to TARGET
 *	down=N,N,...         ... or have come from it
 *	random=BYTES seed=S  cut each connection after 1 to BYTES bytes of both directions ...
 *	cuts=N               ... at most N times (default: 1000)
 *	stall=N:MS           once, after N bytes up: relay nothing for so long
 *	delay=MS             before each piece
 *	rate=N               at most about N bytes a second, both directions together
 */
#include "base/clock.h"
#include "base/err.h"
#include "base/rng.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LINES_MAX = 64, CUTS_MAX = 32, PIECE = 16 << 10, BUFFER = 64 << 10 };

struct thresholds {
	uint64_t v[CUTS_MAX];
	size_t n, next;
};

struct line {
	int plant, target; /* -1: free */
	uint64_t left;     /* until it is cut; UINT64_MAX: never */
};

static struct line lines[LINES_MAX];
static struct thresholds up, down;
static uint64_t total_up, total_down, n_lines, n_cuts, cuts_max = 1000, random_max, stall_at = UINT64_MAX, rate,
						       owed_us;
static int64_t stall_ms, delay_ms;
static struct sockaddr_in target;
static struct rng rng;
static volatile sig_atomic_t ending;

static void die(const char *what)
{
	fprintf(stderr, "e2e-proxy-tool: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void say(const char *what)
{
	printf("%s up=%llu down=%llu connections=%llu cuts=%llu\n", what, (unsigned long long)total_up,
	       (unsigned long long)total_down, (unsigned long long)n_lines, (unsigned long long)n_cuts);
	fflush(stdout);
}

static void parse_list(const char *text, struct thresholds *out)
{
	for (char *end = NULL; out->n < CUTS_MAX; text = end + 1) {
		out->v[out->n++] = strtoull(text, &end, 10);
		if (*end != ',')
			return;
	}
}

static void parse(int argc, char **argv)
{
	for (int i = 2; i < argc; i++) {
		const char *value = strchr(argv[i], '=');
		if (value == NULL) {
			fprintf(stderr, "e2e-proxy-tool: %s: key=value is wanted\n", argv[i]);
			exit(2);
		}
		value++;
		char *end;
		unsigned long long n = strtoull(value, &end, 10);
		if (strncmp(argv[i], "up=", 3) == 0) {
			parse_list(value, &up);
		} else if (strncmp(argv[i], "down=", 5) == 0) {
			parse_list(value, &down);
		} else if (strncmp(argv[i], "random=", 7) == 0) {
			random_max = n;
		} else if (strncmp(argv[i], "seed=", 5) == 0) {
			rng_seed(&rng, n);
		} else if (strncmp(argv[i], "cuts=", 5) == 0) {
			cuts_max = n;
		} else if (strncmp(argv[i], "stall=", 6) == 0) {
			stall_at = n;
			stall_ms = *end == ':' ? strtoll(end + 1, NULL, 10) : 0;
		} else if (strncmp(argv[i], "delay=", 6) == 0) {
			delay_ms = (int64_t)n;
		} else if (strncmp(argv[i], "rate=", 5) == 0) {
			rate = n;
		} else if (strncmp(argv[i], "listen=", 7) != 0) {
			fprintf(stderr, "e2e-proxy-tool: unknown %s\n", argv[i]);
			exit(2);
		}
	}
}

static uint16_t listen_port(int argc, char **argv)
{
	for (int i = 2; i < argc; i++) {
		if (strncmp(argv[i], "listen=", 7) == 0)
			return (uint16_t)strtoul(argv[i] + 7, NULL, 10);
	}
	return 0;
}

static struct sockaddr_in address_of(const char *text)
{
	struct sockaddr_in a = {.sin_family = AF_INET};
	char host[64] = "";
	const char *colon = strrchr(text, ':');
	if (colon == NULL || (size_t)(colon - text) >= sizeof host)
		die(text);
	memcpy(host, text, (size_t)(colon - text));
	a.sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
	if (inet_pton(AF_INET, host, &a.sin_addr) != 1)
		die(text);
	return a;
}

/* Little is under way at any time, so that what a cut loses is little and always the same. */
static int socket_new(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), size = BUFFER, on = 1;
	if (fd < 0)
		die("socket");
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	return fd;
}

/* With a reset: what has not been read at the other end is gone. */
static void drop(struct line *l)
{
	struct linger reset = {.l_onoff = 1};
	setsockopt(l->plant, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
	setsockopt(l->target, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
	close(l->plant);
	close(l->target);
	l->plant = l->target = -1;
}

static void cut_all(void)
{
	n_cuts++;
	say("cut");
	for (size_t i = 0; i < LINES_MAX; i++) {
		if (lines[i].plant >= 0)
			drop(&lines[i]);
	}
}

static void accept_one(int listener)
{
	size_t i = 0;
	int plant = accept4(listener, NULL, NULL, SOCK_CLOEXEC), onward = socket_new();
	while (i < LINES_MAX && lines[i].plant >= 0)
		i++;
	struct line l = {plant, onward, UINT64_MAX};
	if (plant < 0 || i == LINES_MAX || connect(onward, (struct sockaddr *)&target, sizeof target) != 0) {
		if (plant >= 0)
			drop(&l);
		else
			close(onward);
		return;
	}
	if (random_max > 0 && n_cuts < cuts_max)
		l.left = 1 + rng_below(&rng, random_max);
	n_lines++;
	lines[i] = l;
}

static bool reached(struct thresholds *t, uint64_t total)
{
	if (t->next == t->n || total < t->v[t->next])
		return false;
	t->next++;
	return true;
}

static bool write_all(int fd, const char *p, size_t n)
{
	while (n > 0) {
		ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
		if (k <= 0)
			return false;
		p += k;
		n -= (size_t)k;
	}
	return true;
}

/* Before a piece is relayed. */
static void hold_up(size_t n)
{
	if (total_up >= stall_at) {
		stall_at = UINT64_MAX;
		say("stall");
		clock_sleep_ms(stall_ms);
	}
	if (delay_ms > 0)
		clock_sleep_ms(delay_ms);
	/* A piece takes less than a millisecond at the rates of interest: what is owed adds up. */
	owed_us += rate > 0 ? 1000000 * (uint64_t)n / rate : 0;
	clock_sleep_ms((int64_t)(owed_us / 1000));
	owed_us %= 1000;
}

/* One piece in one direction. */
static void relay(struct line *l, bool upward)
{
	char piece[PIECE];
	size_t want = l->left < PIECE ? (size_t)l->left : PIECE;
	ssize_t n = recv(upward ? l->plant : l->target, piece, want, 0);
	if (n <= 0) {
		drop(l);
		return;
	}
	hold_up((size_t)n);
	uint64_t before = (total_up >> 20) + (total_down >> 20);
	*(upward ? &total_up : &total_down) += (uint64_t)n;
	if ((total_up >> 20) + (total_down >> 20) != before)
		say("at");
	if (!write_all(upward ? l->target : l->plant, piece, (size_t)n)) {
		drop(l);
		return;
	}
	if (l->left != UINT64_MAX)
		l->left -= (uint64_t)n;
	if (reached(&up, total_up) || reached(&down, total_down)) {
		cut_all();
	} else if (l->left == 0) {
		n_cuts++;
		say("cut");
		drop(l);
	}
}

static void on_term(int number)
{
	(void)number;
	ending = 1;
}

static int listen_on(uint16_t port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
	socklen_t n = sizeof a;
	int fd = socket_new();
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (bind(fd, (struct sockaddr *)&a, sizeof a) != 0 || listen(fd, LINES_MAX) != 0 ||
	    getsockname(fd, (struct sockaddr *)&a, &n) != 0)
		die("listen");
	printf("listening %u\n", ntohs(a.sin_port));
	fflush(stdout);
	return fd;
}

static void pass(int listener)
{
	struct pollfd fds[2 * LINES_MAX + 1] = {{.fd = listener, .events = POLLIN}};
	for (size_t i = 0; i < LINES_MAX; i++) {
		fds[1 + 2 * i] = (struct pollfd){.fd = lines[i].plant, .events = POLLIN};
		fds[2 + 2 * i] = (struct pollfd){.fd = lines[i].target, .events = POLLIN};
	}
	if (poll(fds, 2 * LINES_MAX + 1, 200) <= 0)
		return;
	for (size_t i = 0; i < LINES_MAX; i++) {
		if (lines[i].plant >= 0 && fds[1 + 2 * i].revents != 0)
			relay(&lines[i], true);
		if (lines[i].plant >= 0 && fds[2 + 2 * i].revents != 0)
			relay(&lines[i], false);
	}
	if (fds[0].revents != 0)
		accept_one(listener);
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		fprintf(stderr, "usage: e2e-proxy-tool HOST:PORT [key=value ...]\n");
		return 2;
	}
	rng_seed(&rng, 1);
	parse(argc, argv);
	target = address_of(argv[1]);
	struct sigaction action = {.sa_handler = on_term};
	sigaction(SIGTERM, &action, NULL);
	for (size_t i = 0; i < LINES_MAX; i++)
		lines[i].plant = lines[i].target = -1;
	int listener = listen_on(listen_port(argc, argv));
	while (!ending)
		pass(listener);
	say("end");
	return 0;
}
