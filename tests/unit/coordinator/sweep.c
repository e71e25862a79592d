/*
 * Power is lost at every durable operation of a whole job, and again while it is being taken up: after each start all that was
 * acknowledged is there, once, and the job ends with the bytes of an undisturbed one.
 */
#include "coordinator/sweep.h"

#include "base/clock.h"

/* How thorough: a sanitizer makes everything many times slower, and that for threads has little to look at here. */
#if defined(__SANITIZE_THREAD__)
enum { SEEDS = 1, MODES_AT_ONCE = 1, TWICE_EVERY = 4, STRIDE = 4 };
#elif defined(__SANITIZE_ADDRESS__)
enum { SEEDS = 1, MODES_AT_ONCE = 1, TWICE_EVERY = 4, STRIDE = 1 };
#else
enum { SEEDS = 2, MODES_AT_ONCE = CRASHDISK_MODES, TWICE_EVERY = 1, STRIDE = 1 };
#endif

/* One run: when power is lost. */
struct outage {
	enum crashdisk_mode mode;
	uint64_t seed;
	uint64_t first;  /* operation; 0: never */
	uint64_t second; /* counted from the restart; 0: never */
	uint64_t every;  /* again after each restart, so many operations later; 0: no more */
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

/* Power comes back, and may be lost again at once. */
static void come_back(struct sweep *w, struct crashdisk *disk, const struct outage *o, unsigned *losses)
{
	enum err err = ERR_OK;
	do {
		if (*losses > 0)
			crashdisk_restore(disk);
		uint64_t next = *losses == 0 ? o->first : *losses == 1 ? o->second : 0;
		if (*losses > 0 && o->every > 0 && *losses < 100)
			next = o->every + *losses / 8; /* or it would never get beyond that many operations */
		crashdisk_arm(disk, next, o->mode);
		err = stage_try_open(&w->stage);
		++*losses;
	} while (crashdisk_dead(disk) && (stage_close(&w->stage), true));
	assert_ok(err);
	sweep_check(w, true);
}

static void go_on(struct sweep *w, struct crashdisk *disk, const struct outage *o, unsigned *losses)
{
	enum err err = sweep_step_once(w);
	if (crashdisk_dead(disk)) {
		stage_close(&w->stage);
		come_back(w, disk, o, losses);
		return;
	}
	/* What a power loss made of a part is noticed, and it is sent anew. */
	if (err == ERR_UNAVAILABLE && ++w->troubles < 4)
		return;
	if (err != ERR_OK)
		fail_msg("step %zu: %s (%s)", w->at, err_text(), err_name(err));
	w->troubles = 0;
	sweep_check(w, false);
	w->at++;
}

/* Returns how many operations there were up to the power loss, if it was one; *ret_lost: it has come. */
static uint64_t run(const struct sweep_script *script, const struct outage *o, struct buf *expected, bool *ret_lost)
{
	struct sweep w;
	unsigned losses = 0;
	sweep_begin(&w, script, &template);
	struct crashdisk *disk = crashdisk_new(w.stage.dir, o->seed);
	come_back(&w, disk, o, &losses);
	while (!sweep_is_over(&w))
		go_on(&w, disk, o, &losses);
	uint64_t count = crashdisk_count(disk);
	crashdisk_arm(disk, 0, CRASHDISK_DROP);
	sweep_finish(&w, expected, o->first == 0);
	crashdisk_free(disk);
	sweep_end(&w);
	*ret_lost = losses > 1;
	return count;
}

static void power_lost_anywhere_changes_nothing(void **state)
{
	const struct sweep_script *script = *state;
	struct buf expected;
	bool lost = true;
	size_t runs = 0;
	int64_t start = clock_monotonic_ms();
	uint64_t total = run(script, &(struct outage){.first = 0}, &expected, &lost);
	assert_false(lost);
	assert_true(total > 50);
	for (uint64_t n = 1; n <= total; n += STRIDE) {
		for (unsigned m = 0; m < MODES_AT_ONCE; m++) {
			enum crashdisk_mode mode = (enum crashdisk_mode)((n + m) % CRASHDISK_MODES);
			for (uint64_t seed = 0; seed < (mode == CRASHDISK_MIXED ? SEEDS : 1); seed++, runs++) {
				struct outage o = {.mode = mode, .seed = n * 100 + seed, .first = n};
				/* A second one, somewhere in what a start does or soon after. */
				if ((n / CRASHDISK_MODES + seed) % TWICE_EVERY == 0 && seed % 2 == 0)
					o.second = 1 + (n * 7 + m) % 23;
				(void)run(script, &o, &expected, &lost);
				assert_true(lost);
			}
		}
	}
	/* Many: a coordinator that never lives for long. */
	for (uint64_t every = 30; every <= 60; every += 10, runs++)
		(void)run(script,
			  &(struct outage){.mode = CRASHDISK_MIXED, .seed = every, .first = every, .every = every},
			  &expected, &lost);
	print_message("%s: %llu operations, %zu runs, %lld ms\n", script->name, (unsigned long long)total, runs,
		      (long long)(clock_monotonic_ms() - start));
	buf_deinit(&expected);
}

int main(void)
{
	struct CMUnitTest tests[SWEEP_SCRIPTS];
	sweep_tests(tests, power_lost_anywhere_changes_nothing);
	return cmocka_run_group_tests(tests, setup, teardown);
}
