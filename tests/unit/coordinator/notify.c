/*
 * What systemd is told, and when it is not: readiness, ends, and the watchdog with its questions to the engine.
 */
#include "coordinator/stage.h"

#include "coordinator/engine_parts.h"
#include "coordinator/notify.h"
#include "coordinator/watchdog.h"

#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static char *scratch;
static int fd;

static void heard(const char *text)
{
	char got[64] = "";
	ssize_t n = recv(fd, got, sizeof got - 1, MSG_DONTWAIT);
	assert_int_equal(n, strlen(text));
	assert_string_equal(got, text);
}

static void heard_nothing(void)
{
	char got[64];
	assert_int_equal(recv(fd, got, sizeof got, MSG_DONTWAIT), -1);
}

static void states_are_told(void **state)
{
	(void)state;
	char got[64] = "", *end;
	const char *path = getenv("NOTIFY_SOCKET");
	char *kept = mem_str(path);
	assert_int_equal(unsetenv("NOTIFY_SOCKET"), 0);
	notify_ready(); /* nobody asked */
	assert_int_equal(setenv("NOTIFY_SOCKET", kept, 1), 0);
	heard_nothing();
	notify_ready();
	heard("READY=1");
	notify_reloading();
	assert_true(recv(fd, got, sizeof got - 1, MSG_DONTWAIT) > 0);
	static const char begin[] = "RELOADING=1\nMONOTONIC_USEC=";
	assert_memory_equal(got, begin, sizeof begin - 1);
	assert_true(strtoll(got + sizeof begin - 1, &end, 10) > 0 && *end == '\0');
	notify_alive();
	heard("WATCHDOG=1");
	notify_stopping(660000);
	heard("STOPPING=1\nEXTEND_TIMEOUT_USEC=660000000");
	free(kept);
}

static void the_watchdog_s_time_is_systemd_s(void **state)
{
	(void)state;
	char pid[32];
	static const struct {
		const char *usec;
		int64_t ms;
	} rows[] = {{"60000000", 60000}, {"1000", 1}, {"999", 0}, {"0", 0}, {"-5", 0}, {"", 0}, {"1s", 0}};
	log_set_level(LOG_LEVEL_ERROR);
	assert_int_equal(notify_watchdog_ms(), 0);
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		assert_int_equal(setenv("WATCHDOG_USEC", rows[i].usec, 1), 0);
		assert_int_equal(notify_watchdog_ms(), rows[i].ms);
	}
	assert_int_equal(setenv("WATCHDOG_USEC", "60000000", 1), 0);
	snprintf(pid, sizeof pid, "%ld", (long)getpid());
	assert_int_equal(setenv("WATCHDOG_PID", pid, 1), 0);
	assert_int_equal(notify_watchdog_ms(), 60000);
	assert_int_equal(setenv("WATCHDOG_PID", "1", 1), 0); /* our parent's, say */
	assert_int_equal(notify_watchdog_ms(), 0);
	assert_int_equal(unsetenv("WATCHDOG_PID"), 0);
	assert_int_equal(unsetenv("WATCHDOG_USEC"), 0);
}

/* A check of which the test says how it ends, and that counts. */
struct patient {
	pthread_mutex_t lock;
	pthread_cond_t seen;
	enum err health;
	unsigned checks;
	bool hangs;
};

static enum err examine(void *arg)
{
	struct patient *p = arg;
	pthread_mutex_lock(&p->lock);
	p->checks++;
	pthread_cond_broadcast(&p->seen);
	while (p->hangs)
		pthread_cond_wait(&p->seen, &p->lock);
	enum err err = p->health;
	pthread_mutex_unlock(&p->lock);
	return err == ERR_OK ? ERR_OK : err_set(err, "said the test");
}

/* From now on checks end like this; returns when `more` of them have begun. */
static void change(struct patient *p, enum err health, bool hangs, unsigned more)
{
	pthread_mutex_lock(&p->lock);
	p->health = health;
	p->hangs = hangs;
	pthread_cond_broadcast(&p->seen);
	for (unsigned until = p->checks + more; p->checks < until;)
		pthread_cond_wait(&p->seen, &p->lock);
	pthread_mutex_unlock(&p->lock);
}

static unsigned told; /* read only where the watchdog cannot be telling: in a later check */

static void tell(void)
{
	told++;
}

static void only_the_healthy_are_kept_alive(void **state)
{
	(void)state;
	struct patient p = {.health = ERR_OK};
	struct watchdog *w;
	pthread_mutex_init(&p.lock, NULL);
	pthread_cond_init(&p.seen, NULL);
	log_set_level((enum log_level) - 1); /* it complains, as it should */
	assert_ok(watchdog_start(1, examine, &p, tell, &w));
	change(&p, ERR_OK, false, 4); /* again and again */
	change(&p, ERR_OK, true, 1);  /* it hangs in this one */
	assert_true(told >= 3);
	unsigned before = told;
	change(&p, ERR_IO, false, 3);
	change(&p, ERR_IO, true, 1);
	assert_int_equal(told, before);
	change(&p, ERR_OK, false, 3);
	watchdog_stop(w);
	assert_true(told > before);
	pthread_cond_destroy(&p.seen);
	pthread_mutex_destroy(&p.lock);
	log_set_level(LOG_LEVEL_ERROR);
}

static void an_engine_that_does_nothing_is_not_well(void **state)
{
	(void)state;
	struct stage s;
	stage_make(&s);
	assert_ok(engine_check(s.engine));
	stage_pass(3 * 60 * 1000);
	assert_ok(engine_check(s.engine));
	stage_pass(1);
	assert_int_equal(engine_check(s.engine), ERR_DEADLINE);
	(void)engine_pump(s.engine);
	assert_ok(engine_check(s.engine));
	stage_drop(&s);
}

/* A disk so slow that each write to the new model takes minutes. */
static enum err slow_disk(void *arg, enum file_op op, const char *path, size_t n, size_t *ret_short)
{
	struct stage *s = arg;
	(void)n, (void)ret_short;
	if (strstr(path, "/models/job-") == NULL)
		return ERR_OK;
	if (op == FILE_OP_WRITE)
		stage_pass(3 * 60 * 1000);
	/* The header and a block are written: together they took longer than a step may without a sign of life. */
	if (op == FILE_OP_SYNC)
		assert_ok(engine_check(s->engine));
	return ERR_OK;
}

static void a_step_that_gets_on_is_well_and_one_that_does_not_is_not(void **state)
{
	(void)state;
	struct stage s;
	stage_make(&s);
	engine_beat(s.engine, true);
	stage_pass(5 * 60 * 1000);
	assert_ok(engine_check(s.engine));
	stage_pass(1);
	assert_fails(engine_check(s.engine), ERR_DEADLINE, "step for 300 s");
	uint64_t job = stage_start(&s, "quorum: 3\n");
	for (const char *who = "abc"; *who != '\0'; who++)
		stage_report(&s, (const char[]){*who, '\0'}, job, 1);
	int64_t before = stage_monotonic;
	file_set_hook(slow_disk, &s);
	stage_settle(&s);
	file_set_hook(NULL, NULL);
	assert_true(stage_monotonic - before > 5 * 60 * 1000);
	assert_int_equal(stage_round(&s, job, 1).state.phase, ROUND_COMMITTED);
	stage_drop(&s);
}

static int begin(void **state)
{
	(void)state;
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	scratch = scratch_make();
	snprintf(at.sun_path, sizeof at.sun_path, "%.80s/notify", scratch);
	fd = socket(AF_UNIX, SOCK_DGRAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
	assert_int_equal(setenv("NOTIFY_SOCKET", at.sun_path, 1), 0);
	return 0;
}

static int end(void **state)
{
	(void)state;
	close(fd);
	scratch_remove(scratch);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(states_are_told),
		cmocka_unit_test(the_watchdog_s_time_is_systemd_s),
		cmocka_unit_test(only_the_healthy_are_kept_alive),
		cmocka_unit_test(an_engine_that_does_nothing_is_not_well),
		cmocka_unit_test(a_step_that_gets_on_is_well_and_one_that_does_not_is_not),
	};
	return cmocka_run_group_tests(tests, begin, end);
}
