/*
 * hansa-swarm run and enrol. One thread a plant: the calls of rpc/client.h block, and a thread that waits costs its
 * stack's few touched pages.
 */
#include "base/clock.h"
#include "base/log.h"
#include "base/signals.h"
#include "swarm/commands.h"
#include "swarm/content.h"
#include "swarm/enrol.h"
#include "swarm/plant.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { PLANTS_MAX = 10000, POLL_MS = 50, FILES_PER_PLANT = 3, FILES_MORE = 200 };

static const struct swarm_options defaults = {
	.plants = 1,
	.stall_ms = 20000,
	.retry_ms = 30000,
	.ramp = 16,
	.threads = 4,
	.prefix = "swarm",
};

/* What the command line did not say. */
static struct swarm_options effective(const struct swarm_options *given)
{
	struct swarm_options o = *given;
	o.plants = o.plants != 0 ? o.plants : defaults.plants;
	o.stall_ms = o.stall_ms != 0 ? o.stall_ms : defaults.stall_ms;
	o.retry_ms = o.retry_ms != 0 ? o.retry_ms : defaults.retry_ms;
	o.ramp = o.ramp != 0 ? o.ramp : defaults.ramp;
	o.threads = o.threads != 0 ? o.threads : defaults.threads;
	o.prefix = o.prefix != NULL ? o.prefix : defaults.prefix;
	return o;
}

static enum err raise_files(int64_t plants)
{
	struct rlimit limit;
	rlim_t wanted = (rlim_t)(plants * FILES_PER_PLANT + FILES_MORE);
	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return err_errno("limit of open files");
	if (limit.rlim_cur >= wanted)
		return ERR_OK;
	limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
	if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
		return err_errno("limit of open files");
	if (limit.rlim_cur < (rlim_t)plants + FILES_MORE)
		return err_set(ERR_LIMIT, "%lld plants need more open files than the %llu that ulimit -Hn allows",
			       (long long)plants, (unsigned long long)limit.rlim_cur);
	return ERR_OK;
}

/* ---- the swarm ---- */

static enum err load_operator(const char *dir, struct credential *ret_cred)
{
	char path[PATH_SIZE];
	TRY(credential_load(path_join(path, dir, "operator"), clock_wall_ms(), ret_cred));
	if (ret_cred->address == NULL) {
		credential_free(ret_cred);
		return err_set(ERR_CONFIG, "%s: peer.yaml has no address; is hansad running?", path);
	}
	return ERR_OK;
}

static enum err enrol(const struct swarm *s)
{
	const struct swarm_options *o = s->options;
	int64_t begin = clock_monotonic_ms();
	size_t fresh = 0;
	struct enrol_job job = {.operator= & s->operator,
				.state = o->state,
				.prefix = o->prefix,
				.plants = (size_t)o->plants,
				.threads = (size_t)o->threads};
	TRY(dir_make(o->state, 0700));
	TRY(enrol_plants(&job, &fresh));
	if (fresh > 0)
		log_info("swarm", "%zu plants enrolled in %.1f s", fresh, (double)(clock_monotonic_ms() - begin) / 1e3);
	return ERR_OK;
}

static void end_all(struct swarm *s, struct plant *const *plants, size_t n)
{
	atomic_store(&s->stop, true);
	pthread_mutex_lock(&s->lock);
	pthread_cond_broadcast(&s->stopped);
	pthread_cond_broadcast(&s->gate);
	pthread_mutex_unlock(&s->lock);
	for (size_t i = 0; i < n; i++)
		plant_cancel(plants[i]);
}

/* Until the plants have ended by themselves, or the time is over, or the user stops. */
static void watch(struct swarm *s, size_t n)
{
	int64_t begin = clock_monotonic_ms();
	bool told = false;
	while (atomic_load(&s->running) > 0 && !signals_stop_asked()) {
		int64_t passed = clock_monotonic_ms() - begin;
		if (s->options->seconds > 0 && passed >= s->options->seconds * 1000)
			return;
		if (!told && tally_count_connected(s->tally) == n) {
			log_info("swarm", "all %zu plants connected after %.2f s", n, (double)passed / 1e3);
			told = true;
		}
		clock_sleep_ms(POLL_MS);
	}
}

static enum err run_plants(struct swarm *s)
{
	size_t n = (size_t)s->options->plants, started = 0;
	struct plant **plants = mem_array(n, sizeof(struct plant *));
	char why[1024] = "";
	enum err err = ERR_OK;
	while (started < n && err == ERR_OK) {
		err = plant_start(s, started, &plants[started]);
		started += err == ERR_OK;
	}
	if (err == ERR_OK)
		watch(s, n);
	snprintf(why, sizeof why, "%s", err == ERR_OK ? "" : err_text());
	end_all(s, plants, started);
	for (size_t i = 0; i < started; i++) {
		enum err ended = plant_join(plants[i]);
		if (ended != ERR_OK)
			log_error("swarm", "%s", err_text());
		if (ended != ERR_OK && err == ERR_OK) {
			err = ended;
			snprintf(why, sizeof why, "%s", err_text());
		}
	}
	free(plants);
	return err == ERR_OK ? ERR_OK : err_set(err, "%s", why);
}

static enum err print_report(const struct swarm *s, bool whole)
{
	struct json *report = tally_report(s->tally);
	struct buf text;
	buf_init(&text, (size_t)1 << 30);
	enum err err = whole ? json_write(report, &text) : json_write_pretty(report, &text);
	if (err == ERR_OK)
		printf("%s\n", buf_str(&text));
	buf_deinit(&text);
	json_free(report);
	return err;
}

static void swarm_init(struct swarm *s, const struct swarm_options *o)
{
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	s->options = o;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->stopped, &attr);
	pthread_cond_init(&s->gate, &attr);
	pthread_condattr_destroy(&attr);
}

static void swarm_deinit(struct swarm *s)
{
	pthread_cond_destroy(&s->stopped);
	pthread_cond_destroy(&s->gate);
	pthread_mutex_destroy(&s->lock);
	tally_close(s->tally);
	credential_free(&s->operator);
	content_free_shared();
}

static enum err run_in(struct swarm *s)
{
	TRY(load_operator(s->options->dir, &s->operator));
	TRY(tally_open(s->options->receipts, (size_t)s->options->plants, &s->tally));
	TRY(enrol(s));
	enum err err = run_plants(s);
	char *text = mem_str(err_text());
	enum err printed = print_report(s, s->options->json);
	if (err == ERR_OK && printed == ERR_OK && tally_count_wrong(s->tally) > 0)
		err = err_set(ERR_INTERNAL, "updates were accepted that had to be refused");
	else if (err != ERR_OK)
		err_set(err, "%s", text);
	free(text);
	return err != ERR_OK ? err : printed;
}

static enum err run(const void *p, const char *const *words, size_t n_words)
{
	(void)words, (void)n_words;
	struct swarm_options o = effective(p);
	struct swarm s = {.running = 0};
	TRY(mischief_parse(o.misbehave, &o.mischief));
	TRY(raise_files(o.plants));
	swarm_init(&s, &o);
	rpc_init();
	enum err err = run_in(&s);
	rpc_shutdown();
	char *text = mem_str(err_text());
	swarm_deinit(&s);
	if (err != ERR_OK)
		err_set(err, "%s", text);
	free(text);
	return err;
}

static enum err only_enrol(const void *p, const char *const *words, size_t n_words)
{
	(void)words, (void)n_words;
	struct swarm_options o = effective(p);
	struct swarm s = {.options = &o};
	TRY(load_operator(o.dir, &s.operator));
	rpc_init();
	enum err err = enrol(&s);
	rpc_shutdown();
	credential_free(&s.operator);
	return err;
}

#define AT(member) offsetof(struct swarm_options, member)
#define OPTIONS_BOTH                                                                                                   \
	{"plants", 'n', CLI_INT, AT(plants), "N", "how many (1)", .required = false, .min = 1, .max = PLANTS_MAX},     \
		{"dir", 'd', CLI_STRING, AT(dir), "DIR", "the federation's directory", .required = true},              \
		{"state",         0,     CLI_STRING,                                                                   \
		 AT(state),       "DIR", "where the plants' credentials are kept, and used again",                     \
		 .required = true},                                                                                    \
		{"prefix",         0, CLI_STRING, AT(prefix), "NAME", "plants are called NAME-00001, ... (swarm)",     \
		 .required = false},                                                                                   \
	{                                                                                                              \
		"threads", 0, CLI_INT, AT(threads), "N", "enrolments at a time (4)", .required = false, .min = 1,      \
										     .max = ENROL_THREADS_MAX          \
	}

static const struct cli_option run_options[] = {
	OPTIONS_BOTH,
	{"think", 0, CLI_INT, AT(think_ms), "MS", "training time, give or take a half (0)", .required = false, .min = 0,
	 .max = 3600e3},
	{"rate", 0, CLI_REAL, AT(rate), "BYTES/S", "of each connection, up and down (as fast as it goes)",
	 .required = false, .min = 1, .max = 1e12},
	{"prepared", 0, CLI_FLAG, AT(prepared), NULL, "one update a plant and job, the same in all its rounds",
	 .required = false},
	{"wait-only", 0, CLI_FLAG, AT(wait_only), NULL, "hear of rounds, take part in none", .required = false},
	{"misbehave", 0, CLI_STRING, AT(misbehave), "KIND=SHARE,...",
	 "of the updates: stall, cut, digest, range, base, repeat, late; of the waits: hangup", .required = false},
	{"stall", 0, CLI_INT, AT(stall_ms), "MS", "how long one stalls that stalls (20000)", .required = false,
	 .min = 1, .max = 3600e3},
	{"retry", 0, CLI_INT, AT(retry_ms), "MS", "longest wait before trying again (30000, as hansa join)",
	 .required = false, .min = 1, .max = 3600e3},
	{"ramp", 0, CLI_INT, AT(ramp), "N", "handshakes at a time, at the beginning (16)", .required = false, .min = 1,
	 .max = PLANTS_MAX},
	{"seconds", 0, CLI_INT, AT(seconds), "S", "stop after that (never)", .required = false, .min = 1, .max = 1e6},
	{"jobs", 0, CLI_INT, AT(jobs), "N", "a plant ends when it has been told of so many jobs' ends (never)",
	 .required = false, .min = 1, .max = 1e6},
	{"receipts", 0, CLI_STRING, AT(receipts), "FILE", "append each receipt as a line of JSON", .required = false},
	{"json", 0, CLI_FLAG, AT(json), NULL, "the report on one line", .required = false},
	{0},
};

const struct cli_command command_run = {
	.name = "run",
	.arguments = "",
	.summary = "enrol plants and take part in the federation's jobs with all of them",
	.help = "Each plant has its own key, certificate and connection. It waits for a task, fetches the base, "
		"thinks, "
		"and sends an update of random\n"
		"values; the report on stdout says what happened. What is done wrong on purpose and must be refused, "
		"but is "
		"accepted, ends it with an error.\n\n"
		"Example:\n"
		"  hansa-swarm run --dir /var/lib/hansa --state swarm --plants 50 --jobs 1 --think 200 --misbehave "
		"cut=0.1,digest=0.02 --json\n",
	.options = run_options,
	.args_size = sizeof(struct swarm_options),
	.run = run,
};

static const struct cli_option enrol_options[] = {OPTIONS_BOTH, {0}};

const struct cli_command command_enrol = {
	.name = "enrol",
	.arguments = "",
	.summary = "only enrol the plants; their folders under --state are what `hansa join` calls identity",
	.help = "Example:\n  hansa-swarm enrol --dir /var/lib/hansa --state swarm --plants 16\n",
	.options = enrol_options,
	.args_size = sizeof(struct swarm_options),
	.run = only_enrol,
};
