/*
 * Runs a coordinator and plants, kills one of them (-9) again and again at a phase that its log shows or at a random
 * moment, and starts it again at once. When there have been enough kills it lets the job end: the plants (--once) end
 * by themselves, the coordinator is stopped politely.
 *
 * Usage: e2e-kill-tool FEDERATION-DIR KILLS SEED PLANT...       logs: DIR.log, DIR-PLANT.log; what was killed when: stdout
 */
#include "base/clock.h"
#include "base/err.h"
#include "base/rng.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	PLANTS_MAX = 4,
	LINE_SIZE = 4096,
	PHASE_WAIT_MS = 1500,
	MOMENT_MAX_MS = 250,
	JITTER_MAX_US = 3000,
	END_MS = 240000
};

/* First what is seen once after a start, then what comes in every round. */
static const char *const coordinator_phases[] = {
	" resumed job ", " serving ",        " opened job=",   " accepted job=",
	" sealed job=",  " aggregated job=", " committed job="};
static const char *const plant_phases[] = {"taking part as", "held-out samples; ", ": held out ", ": sent "};
enum { START_PHASES = 2 };

struct process {
	char name[64], log[256], config[256];
	const char *const *phases;
	size_t n_phases;
	bool is_plant, ended;
	pid_t pid;
	int out; /* its stderr */
	int log_fd;
	char line[LINE_SIZE];
	size_t n;
};

/* The next kill. */
struct plan {
	struct process *victim;
	const char *phase; /* NULL: when the time has come */
	int64_t at_ms;     /* ... and if the phase does not come */
	long jitter_us;
};

static struct process processes[PLANTS_MAX + 1];
static size_t n_processes;
static struct rng rng;
static struct plan plan;
static unsigned kills, kills_wanted;

static void die(const char *what)
{
	fprintf(stderr, "e2e-kill-tool: %s\n", what);
	for (size_t i = 0; i < n_processes; i++) {
		if (processes[i].pid > 0)
			kill(processes[i].pid, SIGKILL);
	}
	exit(1);
}

static void start(struct process *p)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) != 0)
		die("pipe");
	p->n = 0;
	p->pid = fork();
	if (p->pid < 0)
		die("fork");
	if (p->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* nothing is left running when this program is killed itself */
		dup2(ends[1], 2);
		int null = open("/dev/null", O_WRONLY);
		dup2(null, 1);
		if (p->is_plant)
			execlp("hansa", "hansa", "join", "--config", p->config, "--once", (char *)NULL);
		else
			execlp("hansad", "hansad", "serve", "--config", p->config, (char *)NULL);
		_exit(127);
	}
	close(ends[1]);
	p->out = ends[0];
	fcntl(p->out, F_SETFL, O_NONBLOCK);
}

/* `again`: has just been started; NULL: none. */
static void next_plan(struct process *again)
{
	int64_t now = clock_monotonic_ms();
	plan = (struct plan){.victim = again};
	if (again != NULL && rng_below(&rng, 4) == 0) {
		plan.phase = again->phases[rng_below(&rng, START_PHASES)];
	} else {
		/* The coordinator twice as often as all plants together. */
		plan.victim = &processes[rng_below(&rng, 3) > 0 ? 0 : 1 + rng_below(&rng, n_processes - 1)];
		size_t n = plan.victim->n_phases, which = START_PHASES + rng_below(&rng, n - START_PHASES + 1);
		plan.phase = which < n ? plan.victim->phases[which] : NULL;
	}
	plan.at_ms = now + (plan.phase != NULL ? PHASE_WAIT_MS : (int64_t)rng_below(&rng, MOMENT_MAX_MS));
	/* Half of them right away: the line is written while the step that it tells of has just ended. */
	plan.jitter_us = rng_below(&rng, 2) == 0 ? 0 : (long)rng_below(&rng, JITTER_MAX_US);
}

/* What it had still to say goes to the log, but plans nothing. */
static void read_log(struct process *p, bool *ret_seen);

static void strike(const char *when)
{
	struct process *p = plan.victim;
	struct timespec jitter = {.tv_nsec = plan.jitter_us * 1000};
	bool ignored = false;
	nanosleep(&jitter, NULL);
	kill(p->pid, SIGKILL);
	waitpid(p->pid, NULL, 0);
	read_log(p, &ignored);
	close(p->out);
	kills++;
	printf("%u %s:%s +%ld us\n", kills, p->name, when, plan.jitter_us);
	dprintf(p->log_fd, "--- killed\n");
	start(p);
	next_plan(p);
}

static void take_line(struct process *p, bool *seen)
{
	p->line[p->n] = '\0';
	if (plan.victim == p && plan.phase != NULL && strstr(p->line, plan.phase) != NULL)
		*seen = true;
	dprintf(p->log_fd, "%s\n", p->line);
	p->n = 0;
}

static void read_log(struct process *p, bool *ret_seen)
{
	char piece[LINE_SIZE];
	ssize_t n;
	while ((n = read(p->out, piece, sizeof piece)) > 0) {
		for (ssize_t i = 0; i < n; i++) {
			if (piece[i] == '\n' || p->n == LINE_SIZE - 1)
				take_line(p, ret_seen);
			if (piece[i] != '\n')
				p->line[p->n++] = piece[i];
		}
	}
}

/* Something has ended by itself. Before the last kill that is a plant that saw the end of its job, or a failure. */
static void reap(void)
{
	int status;
	for (size_t i = 0; i < n_processes; i++) {
		struct process *p = &processes[i];
		bool ignored = false;
		if (p->ended || waitpid(p->pid, &status, WNOHANG) != p->pid)
			continue;
		read_log(p, &ignored);
		p->pid = 0;
		if (!WIFEXITED(status) || WEXITSTATUS(status) != 0 || !p->is_plant) {
			fprintf(stderr, "%s: status %d\n", p->name, status);
			die("ended with an error; see its log");
		}
		if (kills < kills_wanted)
			die("the job ended before there were enough kills: it needs more rounds");
		p->ended = true;
		close(p->out);
		p->out = -1;
	}
}

static bool plants_run(void)
{
	for (size_t i = 1; i < n_processes; i++) {
		if (!processes[i].ended)
			return true;
	}
	return false;
}

static void pass(void)
{
	struct pollfd fds[PLANTS_MAX + 1];
	bool active = kills < kills_wanted;
	for (size_t i = 0; i < n_processes; i++)
		fds[i] = (struct pollfd){.fd = processes[i].out, .events = POLLIN};
	int64_t left = plan.at_ms - clock_monotonic_ms();
	poll(fds, n_processes, !active || left > 50 ? 50 : left > 0 ? (int)left : 0);
	for (size_t i = 0; i < n_processes; i++) {
		bool seen = false;
		if (fds[i].revents != 0)
			read_log(&processes[i], &seen);
		if (seen && active) {
			strike(plan.phase);
			return;
		}
	}
	reap();
	if (active && clock_monotonic_ms() >= plan.at_ms)
		strike(" at a random moment");
}

static void add(const char *dir, const char *plant)
{
	struct process *p = &processes[n_processes++];
	*p = (struct process){.is_plant = plant != NULL, .out = -1};
	snprintf(p->name, sizeof p->name, "%.60s", plant != NULL ? plant : "hansad");
	if (plant != NULL) {
		snprintf(p->log, sizeof p->log, "%.100s-%.60s.log", dir, plant);
		snprintf(p->config, sizeof p->config, "%.100s-%.60s/plant.yaml", dir, plant);
		p->phases = plant_phases;
		p->n_phases = sizeof plant_phases / sizeof *plant_phases;
	} else {
		snprintf(p->log, sizeof p->log, "%.100s.log", dir);
		snprintf(p->config, sizeof p->config, "%.100s/hansad.yaml", dir);
		p->phases = coordinator_phases;
		p->n_phases = sizeof coordinator_phases / sizeof *coordinator_phases;
	}
	p->log_fd = open(p->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (p->log_fd < 0)
		die(p->log);
}

int main(int argc, char **argv)
{
	int status;
	if (argc < 5 || argc > 4 + PLANTS_MAX) {
		fprintf(stderr, "usage: e2e-kill-tool FEDERATION-DIR KILLS SEED PLANT...\n");
		return 2;
	}
	setlinebuf(stdout);
	kills_wanted = (unsigned)strtoul(argv[2], NULL, 10);
	rng_seed(&rng, strtoull(argv[3], NULL, 10));
	add(argv[1], NULL);
	for (int i = 4; i < argc; i++)
		add(argv[1], argv[i]);
	for (size_t i = 0; i < n_processes; i++)
		start(&processes[i]);
	next_plan(NULL);
	int64_t until_ms = INT64_MAX;
	while (plants_run()) {
		pass();
		if (kills == kills_wanted && until_ms == INT64_MAX)
			until_ms = clock_monotonic_ms() + END_MS;
		if (clock_monotonic_ms() > until_ms)
			die("the job does not end after the last kill");
	}
	kill(processes[0].pid, SIGTERM);
	if (waitpid(processes[0].pid, &status, 0) != processes[0].pid || status != 0)
		die("the coordinator did not end cleanly");
	return 0;
}
