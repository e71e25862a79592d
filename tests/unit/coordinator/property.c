/*
 * A round is a pure function of what was sealed: whoever came first, whatever streams were cut, however often the coordinator was started
 * again, by however many threads the updates came in and were summed up, the models are the same bytes.
 */
#include "coordinator/sweep.h"

#include "coordinator/aggregate.h"
#include "coordinator/staleness.h"

#include <pthread.h>

#if defined(__SANITIZE_THREAD__)
enum { SEEDS = 12, CROWDS = 6 };
#elif defined(__SANITIZE_ADDRESS__)
enum { SEEDS = 24, CROWDS = 6 };
#else
enum { SEEDS = 120, CROWDS = 24 };
#endif

/* Large enough that several threads have something to do. */
static const char wide_model[] = "name: wide\n"
				 "input: [32]\n"
				 "classes: [a, b, c]\n"
				 "layers:\n"
				 "  - {op: linear, name: one, out: 256}\n"
				 "  - {op: relu}\n"
				 "  - {op: linear, name: two, out: 128}\n"
				 "  - {op: relu}\n"
				 "  - {op: linear, name: head, out: outputs}\n";

static const struct sweep_script scripts[] = {
	{.name = "small", .job = "rounds: 3\nquorum: 4\nkeep_updates: all\n"},
	{.name = "large", .job = "rounds: 3\nquorum: 4\nkeep_updates: all\n", .large = true},
	/* Here it does matter who comes first, but only for what is sealed. */
	{.name = "late",
	 .job = "rounds: 5\nquorum: 1\ngoal: 2\nlate: carry\nkeep_updates: all\nlate_weight: inverse\n"},
};
enum { SMALL, LARGE, LATE, SCRIPTS };

static struct stage template;
static struct buf expected[SCRIPTS];
static size_t late_ones; /* updates that counted in a later round */

static void begin(struct sweep *w, size_t script)
{
	static struct sweep_script all_kept;
	all_kept = scripts[script];
	all_kept.keep_updates = UINT32_MAX;
	all_kept.keep_models = true;
	sweep_begin(w, &all_kept, &template);
	stage_open(&w->stage);
	assert_ok(sweep_start(w));
}

static bool runs(struct sweep *w)
{
	return stage_job(&w->stage, w->job).state == WIRE_JOB_RUNNING;
}

/* ---- streams ---- */

/* Some bytes of it, from where an earlier stream ended or somewhere before; perhaps all. */
static enum err bring_some(struct rng *rng, struct bytes update, uint64_t offset, struct upload **u)
{
	for (size_t at = (size_t)offset; *u != NULL && at < update.n;) {
		size_t n = 1 + (size_t)rng_below(rng, update.n / 2);
		n = n < update.n - at ? n : update.n - at;
		enum err err = stage_add(*u, bytes_of(update.p + at, n));
		at += n;
		if (err == ERR_OK && rng_below(rng, 5) != 0)
			continue;
		(rng_below(rng, 8) == 0 ? engine_upload_abort : engine_upload_suspend)(*u);
		*u = NULL;
		return err_set(ERR_UNAVAILABLE, "cut");
	}
	return ERR_OK;
}

/* One stream. ERR_OK: there is a receipt. */
static enum err stream_some(struct sweep *w, struct rng *rng, const char *who, uint32_t round)
{
	struct bytes update = stage_update(&w->stage, who, round);
	struct wire_head head = stage_head(&w->stage, w->job, round, who, update);
	const struct wire_upload_offset_request request = {
		.job = w->job, .round = round, .size = head.size, .digest = head.digest};
	struct wire_upload_offset_reply reply;
	struct wire_receipt receipt;
	struct upload *u = NULL;
	engine_upload_offset(w->stage.engine, who, &request, &reply);
	head.offset = rng_below(rng, 4) == 0 ? rng_below(rng, reply.offset + 1) : reply.offset;
	enum err err = engine_upload_begin(w->stage.engine, who, &head, &u, &receipt);
	if (err == ERR_OK)
		err = bring_some(rng, update, head.offset, &u);
	if (err == ERR_OK && u != NULL)
		err = engine_upload_commit(u, &receipt);
	update_free(&update);
	return err;
}

/* Refusals that a plant of a job with these streams may see. */
static bool is_usual(enum err err)
{
	return err == ERR_OK || err == ERR_UNAVAILABLE || err == ERR_STALE || err == ERR_DUPLICATE;
}

/* ---- calculated again ---- */

static struct json *lineage(const struct round_row *r)
{
	char text[DIGEST_TEXT_SIZE], number[16];
	struct json *meta = json_map();
	snprintf(number, sizeof number, "%u", r->state.number);
	json_put(meta, "hansa.federation", json_str("test"));
	json_put(meta, "hansa.job", json_str("test"));
	json_put(meta, "hansa.round", json_str(number));
	json_put(meta, "hansa.parent", json_str(digest_format(&r->base, text)));
	return meta;
}

/* The kept updates of a round in any order, by so many threads. */
static void check_again(struct sweep *w, struct rng *rng, const struct round_row *r, unsigned threads)
{
	struct aggregate_input inputs[SWEEP_PLANTS];
	struct staleness weights[SWEEP_PLANTS];
	char paths[SWEEP_PLANTS][PATH_SIZE], base[PATH_SIZE], out[PATH_SIZE];
	struct update_row *u;
	struct digest made;
	uint32_t order[SWEEP_PLANTS];
	uint64_t size;
	size_t n;
	assert_ok(db_update_list(w->stage.db, w->job, r->state.number, &u, &n));
	assert_true(n > 0 && n <= SWEEP_PLANTS);
	for (size_t i = 0; i < n; i++) {
		weights[i] = (struct staleness){.samples = u[i].samples, .late = u[i].round - u[i].base_round};
		order[i] = (uint32_t)i;
		late_ones += weights[i].late > 0;
	}
	staleness_weigh(weights, n, JOB_LATE_INVERSE);
	rng_shuffle(rng, order, n);
	for (size_t i = 0; i < n; i++) {
		const struct update_row *from = &u[order[i]];
		inputs[i] = (struct aggregate_input){.path = sweep_path(w, from, paths[i]),
						     .offset = from->place < 0 ? 0 : (uint64_t)from->place,
						     .weight = weights[order[i]].weight,
						     .full = weights[order[i]].full,
						     .digest = &from->digest};
	}
	struct json *meta = lineage(r);
	const struct aggregate_job job = {.base_path = store_path(w->stage.store, &r->base, base),
					  .base_digest = &r->base,
					  .manifest = w->stage.manifest,
					  .inputs = inputs,
					  .n_inputs = n,
					  .server_rate = 1,
					  .meta = meta,
					  .out_path = path_join(out, w->stage.dir, "again"),
					  .threads = threads};
	assert_ok(aggregate_run(&job, &made, &size));
	assert_true(digest_equal(&made, &r->model));
	assert_int_equal(size, r->model_size);
	assert_ok(file_discard(out));
	json_free(meta);
	free(u);
}

/* As sweep_finish(), and every round from its kept updates. */
static void finish(struct sweep *w, struct rng *rng, size_t script, bool first)
{
	struct round_row *rounds;
	size_t n;
	if (script == LATE) {
		stage_restart(&w->stage);
		sweep_check(w, true);
		assert_int_equal(stage_job(&w->stage, w->job).state, WIRE_JOB_DONE);
	} else {
		sweep_finish(w, &expected[script], first);
	}
	assert_ok(db_round_list(w->stage.db, w->job, &rounds, &n));
	for (size_t i = 0; i < n; i++)
		check_again(w, rng, &rounds[i], 1 + (unsigned)rng_below(rng, AGGREGATE_THREADS_MAX));
	free(rounds);
	sweep_end(w);
}

/* ---- any order, any cuts, any restarts ---- */

static const unsigned restarts_of[] = {0, 1, 2, 1000};

static void schedule(size_t script, uint64_t seed, unsigned restarts)
{
	struct sweep w;
	struct rng rng;
	uint32_t base[SWEEP_PLANTS] = {0}; /* what each is sending an update for */
	rng_seed(&rng, seed);
	begin(&w, script);
	while (runs(&w)) {
		size_t i = (size_t)rng_below(&rng, SWEEP_PLANTS);
		const char who[] = {(char)('a' + (int)i), '\0'};
		uint32_t now = stage_job(&w.stage, w.job).round;
		/* Where late ones count, a plant may also go on with what it has. */
		if (base[i] == 0 || script != LATE)
			base[i] = now;
		enum err err = stream_some(&w, &rng, who, base[i]);
		if (!is_usual(err))
			fail_msg("%s: %s (%s)", who, err_text(), err_name(err));
		if (err == ERR_OK || err == ERR_STALE)
			base[i] = 0;
		for (uint64_t pumps = rng_below(&rng, 4); pumps > 0; pumps--)
			engine_pump(w.stage.engine);
		if (restarts > 0 && rng_below(&rng, 4) == 0) {
			stage_restart(&w.stage);
			restarts--;
		}
	}
	finish(&w, &rng, script, false);
}

static void neither_order_nor_cuts_nor_restarts_show(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++)
		schedule((size_t)seed % SCRIPTS, seed, restarts_of[seed / SCRIPTS % 4]);
	assert_true(late_ones > 0);
}

/* ---- several threads ---- */

enum { STREAMS = 2 * SWEEP_PLANTS }; /* two of each plant, which comes again while its dead connection lingers */

struct stream {
	struct sweep *w;
	pthread_t thread;
	struct rng rng;
	char who[2];
	unsigned budget; /* tries */
	struct crashdisk *disk;
	struct sweep_receipt got[SWEEP_ROUNDS + 1];
	enum err err; /* what it did not expect */
	char text[256];
};

static bool has_power(const struct stream *s)
{
	return s->disk == NULL || !crashdisk_dead(s->disk);
}

static void note_receipt(struct stream *s, uint32_t round)
{
	struct update_row row;
	assert_ok(db_update_find(s->w->stage.db, s->w->job, round, s->who, &row));
	s->got[round] = (struct sweep_receipt){true, row.digest, row.round};
}

static void *stream_thread(void *arg)
{
	struct stream *s = arg;
	uint32_t sent = 0;
	for (; s->budget > 0 && has_power(s) && runs(s->w) && s->err == ERR_OK; s->budget--) {
		uint32_t round = stage_job(&s->w->stage, s->w->job).round;
		enum err err = sent == round ? ERR_UNAVAILABLE : stream_some(s->w, &s->rng, s->who, round);
		if (sent == round)
			usleep(1000);
		if (err == ERR_OK) {
			note_receipt(s, round);
			sent = round;
		}
		if (is_usual(err) || !has_power(s))
			continue;
		s->err = err;
		snprintf(s->text, sizeof s->text, "%s", err_text());
	}
	return NULL;
}

static void take_receipts(struct sweep *w, const struct stream *s)
{
	if (s->err != ERR_OK)
		fail_msg("%s: %s (%s)", s->who, s->text, err_name(s->err));
	for (uint32_t round = 1; round <= SWEEP_ROUNDS; round++) {
		if (s->got[round].given)
			w->receipts[s->who[0] - 'a'][round] = s->got[round];
	}
}

/* From a start to an end, which may be that of the power; not open afterwards. `disk` may be NULL. */
static void live(struct sweep *w, uint64_t seed, unsigned budget, struct crashdisk *disk)
{
	struct stream streams[STREAMS];
	struct stage_call watch = {0};
	assert_ok(engine_start(w->stage.engine));
	stage_watch(&w->stage, w->job, 0, &watch);
	for (size_t i = 0; i < STREAMS; i++) {
		streams[i] = (struct stream){
			.w = w, .budget = budget, .disk = disk, .who = {(char)('a' + (int)i / 2), '\0'}};
		rng_seed(&streams[i].rng, seed * 100 + i);
		assert_int_equal(pthread_create(&streams[i].thread, NULL, stream_thread, &streams[i]), 0);
	}
	for (size_t i = 0; i < STREAMS; i++)
		assert_int_equal(pthread_join(streams[i].thread, NULL), 0);
	engine_drain(w->stage.engine);
	stage_close(&w->stage);
	assert_int_equal(watch.answers, 1);
	for (size_t i = 0; i < STREAMS; i++)
		take_receipts(w, &streams[i]);
}

static void nor_do_threads(void **state)
{
	static const unsigned budgets[] = {1000000, 40, 8, 2}; /* until it is started again */
	(void)state;
	for (uint64_t seed = 1; seed <= CROWDS; seed++) {
		struct sweep w;
		struct rng rng;
		size_t script = (size_t)seed % SCRIPTS;
		rng_seed(&rng, seed);
		begin(&w, script);
		for (uint64_t life = 0; runs(&w); life++) {
			live(&w, seed + life * 1000, budgets[seed / SCRIPTS % 4], NULL);
			stage_open(&w.stage);
			sweep_check(&w, true);
		}
		finish(&w, &rng, script, false);
	}
}

/* Power comes back, and is lost again some time later: perhaps before the start is over. */
static void come_back(struct sweep *w, struct rng *rng, struct crashdisk *disk)
{
	enum err err;
	do {
		stage_close(&w->stage);
		crashdisk_restore(disk);
		crashdisk_arm(disk, 1 + rng_below(rng, 120), (enum crashdisk_mode)rng_below(rng, CRASHDISK_MODES));
		err = stage_try_open(&w->stage);
	} while (crashdisk_dead(disk));
	assert_ok(err);
	sweep_check(w, true);
}

/* Receipts of a group that was written together, while the next was coming in: each of them holds. */
static void power_lost_in_a_crowd_loses_no_receipt(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct sweep w;
		struct rng rng;
		size_t script = (size_t)seed % SCRIPTS;
		rng_seed(&rng, seed);
		begin(&w, script);
		struct crashdisk *disk = crashdisk_new(w.stage.dir, seed);
		come_back(&w, &rng, disk);
		for (uint64_t life = 0; runs(&w); life++) {
			live(&w, seed + life * 1000, 1000000, disk);
			come_back(&w, &rng, disk);
		}
		crashdisk_arm(disk, 0, CRASHDISK_DROP);
		finish(&w, &rng, script, false);
		crashdisk_free(disk);
	}
}

/* ---- the undisturbed ones ---- */

static int setup(void **state)
{
	struct rng rng;
	(void)state;
	stage_model = wide_model;
	sweep_template(&template);
	rng_seed(&rng, 0);
	for (size_t script = 0; script < LATE; script++) {
		struct sweep w;
		begin(&w, script);
		for (uint32_t round = 1; round <= 3; round++) {
			for (const char *who = "abcd"; *who != '\0'; who++)
				stage_report(&w.stage, (const char[]){*who, '\0'}, w.job, round);
			stage_settle(&w.stage);
		}
		finish(&w, &rng, script, true);
	}
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	for (size_t i = 0; i < LATE; i++)
		buf_deinit(&expected[i]);
	sweep_template_drop(&template);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(neither_order_nor_cuts_nor_restarts_show),
		cmocka_unit_test(nor_do_threads),
		cmocka_unit_test(power_lost_in_a_crowd_loses_no_receipt),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
