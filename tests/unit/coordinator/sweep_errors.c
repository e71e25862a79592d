/*
 * A disk that refuses instead of losing power, at every durable operation of a whole job: once, or from there on, full or read-only, until
 * somebody makes room. The job stops where it is and says why; nothing is corrupted meanwhile; with room it goes on, without a restart or
 * after one, to the bytes of an undisturbed one.
 */
#include "coordinator/sweep.h"

#include "base/clock.h"

#include <errno.h>

enum kind { ONCE, FULL, READ_ONLY, KINDS };

#if defined(__SANITIZE_THREAD__)
enum { KINDS_AT_ONCE = 1, STRIDE = 4 };
#elif defined(__SANITIZE_ADDRESS__)
enum { KINDS_AT_ONCE = 1, STRIDE = 1 };
#else
enum { KINDS_AT_ONCE = KINDS, STRIDE = 1 };
#endif

enum { ROOM_AFTER = 3 /* failures */ };

static const struct {
	int code;
	const char *text, *database; /* what is said about it, by the system and by SQLite */
} kinds[KINDS] = {
	{EIO, "Input/output error", "disk I/O error"},
	{ENOSPC, "No space left on device", "database or disk is full"},
	{EROFS, "Read-only file system", "Read-only file system"},
};

struct refusal {
	enum kind kind;
	uint64_t at, seen; /* operation; 0: never */
	bool hit, room;    /* it has come; there is room again */
};

static struct stage template;

static int setup(void **state)
{
	(void)state;
	sweep_template(&template);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	sweep_template_drop(&template);
	return 0;
}

static enum err hook(void *arg, enum file_op op, const char *path, size_t n, size_t *ret_short)
{
	struct refusal *r = arg;
	bool grows = op == FILE_OP_CREATE || op == FILE_OP_WRITE || op == FILE_OP_MKDIR;
	(void)path;
	r->seen++;
	if (r->at == 0 || r->seen < r->at || r->room || (r->kind == FULL && !grows))
		return ERR_OK;
	r->hit = true;
	r->room = r->kind == ONCE;
	if (op == FILE_OP_WRITE && r->kind != READ_ONLY)
		*ret_short = n / 2;
	errno = kinds[r->kind].code;
	return ERR_IO;
}

static bool says(const char *text, enum kind kind)
{
	return strstr(text, kinds[kind].text) != NULL || strstr(text, kinds[kind].database) != NULL;
}

/* What an operator reads, on the terminal or in the log, names the cause. */
static void check_said(const struct refusal *r, const char *log)
{
	if (!says(err_text(), r->kind) && !says(log, r->kind))
		fail_msg("neither '%s' nor the log says '%s': %s", err_text(), kinds[r->kind].text, log);
}

/* `log`: of the attempt; NULL: not kept. */
static void suffer(struct sweep *w, struct refusal *r, enum err err, const char *log)
{
	if (!r->hit || ++w->troubles > ROOM_AFTER + 3)
		fail_msg("step %zu: %s (%s)", w->at, err_text(), err_name(err));
	if (err != ERR_IO && err != ERR_UNAVAILABLE)
		fail_msg("step %zu ended for good: %s (%s)", w->at, err_text(), err_name(err));
	if (log != NULL && !r->room)
		check_said(r, log);
	r->room |= w->troubles >= ROOM_AFTER;
	stage_monotonic += 100000; /* what failed is tried again later */
}

static void start(struct sweep *w, struct refusal *r)
{
	enum err err;
	while ((err = stage_try_open(&w->stage)) != ERR_OK)
		suffer(w, r, err, "");
	sweep_check(w, true);
}

/* An attempt whose log is kept, unless nothing has gone wrong yet. */
static enum err attempt(struct sweep *w, char **ret_log)
{
	*ret_log = NULL;
	if (w->troubles == 0)
		return sweep_step_once(w);
	struct capture c = capture_begin(STDERR_FILENO);
	enum err err = sweep_step_once(w);
	*ret_log = capture_end(&c);
	return err;
}

static void go_on(struct sweep *w, struct refusal *r)
{
	char *log;
	enum err err = attempt(w, &log);
	if (err == ERR_OK) {
		w->at++;
		w->troubles = 0;
	} else {
		suffer(w, r, err, log);
		/* Whoever reads that may also try to start it again. */
		if (r->at % 2 == 1 && w->troubles == 2) {
			stage_close(&w->stage);
			start(w, r);
		}
	}
	free(log);
	sweep_check(w, false);
}

static uint64_t run(const struct sweep_script *script, struct refusal *r, struct buf *expected)
{
	struct sweep w;
	sweep_begin(&w, script, &template);
	file_set_hook(hook, r);
	start(&w, r);
	while (!sweep_is_over(&w))
		go_on(&w, r);
	uint64_t seen = r->seen;
	bad_disk_remove();
	sweep_finish(&w, expected, r->at == 0);
	sweep_end(&w);
	return seen;
}

static void a_refusal_anywhere_changes_nothing(void **state)
{
	const struct sweep_script *script = *state;
	struct buf expected;
	size_t runs = 0, hits = 0;
	int64_t begun = clock_monotonic_ms();
	uint64_t total = run(script, &(struct refusal){.at = 0}, &expected);
	assert_true(total > 50);
	for (uint64_t n = 1; n <= total; n += STRIDE) {
		for (unsigned k = 0; k < KINDS_AT_ONCE; k++, runs++) {
			struct refusal r = {.kind = (enum kind)((n + k) % KINDS), .at = n};
			(void)run(script, &r, &expected);
			assert_true(r.hit || r.kind == FULL); /* what remains may need no room */
			hits += r.hit;
		}
	}
	assert_true(hits > runs * 8 / 10);
	print_message("%s: %llu operations, %zu runs, %lld ms\n", script->name, (unsigned long long)total, runs,
		      (long long)(clock_monotonic_ms() - begun));
	buf_deinit(&expected);
}

int main(void)
{
	struct CMUnitTest tests[SWEEP_SCRIPTS];
	sweep_tests(tests, a_refusal_anywhere_changes_nothing);
	return cmocka_run_group_tests(tests, setup, teardown);
}
