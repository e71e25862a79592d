/*
 * An engine without a network: a directory, a held clock, plants that are names, and calls that wait in memory. The engine has no thread
 * unless a test starts it: time and steps are the test's.
 */
#ifndef HANSA_TESTS_COORDINATOR_STAGE_H
#define HANSA_TESTS_COORDINATOR_STAGE_H

#include "coordinator/fixture.h"

#include "base/log.h"
#include "coordinator/engine.h"
#include "ml/safetensors.h"
#include "update/job.h"

enum { STAGE_HOLD_MS = 55000 };

static bool stage_is_over;              /* calls that still wait belonged to a test that has returned, with its stack */
static struct spool_config stage_spool; /* for the next engine */
static const char *stage_model = tiny_model; /* for the next stage */
static int64_t stage_wall = 1800000000000, stage_monotonic = 1000;
static inline int64_t stage_wall_now(void)
{
	return stage_wall;
}
static inline int64_t stage_monotonic_now(void)
{
	return stage_monotonic;
}
static inline void stage_pass(int64_t ms)
{
	stage_wall += ms;
	stage_monotonic += ms;
}

struct stage {
	char *dir;
	struct db *db;
	struct store *store;
	struct registry *registry;
	struct engine *engine;
	struct digest source;
	struct model *model;
	struct manifest *manifest;
};

static inline void stage_close(struct stage *s)
{
	engine_close(s->engine);
	registry_close(s->registry);
	store_close(s->store);
	db_close(s->db);
	s->engine = NULL;
	s->registry = NULL;
	s->store = NULL;
	s->db = NULL;
}

static inline enum err stage_open_parts(struct stage *s)
{
	char path[PATH_SIZE];
	TRY(db_open(path_join(path, s->dir, "hansa.db"), &s->db));
	TRY(store_open(s->dir, &s->store));
	TRY(registry_open(s->db, &s->registry));
	struct engine_config config = {
		.dir = s->dir,
		.federation = "test",
		.db = s->db,
		.store = s->store,
		.registry = s->registry,
		.upload_bytes_max = 1 << 20,
		.spool = stage_spool,
		.hold_ms = STAGE_HOLD_MS,
		.wall_ms = stage_wall_now,
		.monotonic_ms = stage_monotonic_now,
	};
	return engine_open(&config, &s->engine);
}

/* A start that may fail; nothing of it is left then. */
static inline enum err stage_try_open(struct stage *s)
{
	enum err err = stage_open_parts(s);
	if (err != ERR_OK) {
		char *text = mem_str(err_text());
		stage_close(s);
		err_set(err, "%s", text);
		free(text);
	}
	return err;
}

static inline void stage_open(struct stage *s)
{
	assert_ok(stage_try_open(s));
}

/* Where the spool keeps an update that has a file of its own. */
static inline const char *stage_path(const struct stage *s, const struct spool_key *key, char out[PATH_SIZE])
{
	char *name = mem_printf("spool/%llu-%lu-%s.update", (unsigned long long)key->job, (unsigned long)key->round,
				key->plant);
	path_join(out, s->dir, name);
	free(name);
	return out;
}

static inline enum err stage_add(struct upload *u, struct bytes piece)
{
	return engine_upload_add(u, &piece, 1);
}

/* As after a crash, except that nothing unsynced is lost (the fault tests of the parts below see to that). */
static inline void stage_restart(struct stage *s)
{
	stage_close(s);
	stage_open(s);
}

static inline void stage_enrol(struct stage *s, const char *plant)
{
	struct member m = {.role = ROLE_PLANT, .expires_ms = stage_wall + 1000000, .enrolled_ms = stage_wall};
	snprintf(m.name, sizeof m.name, "%.60s", plant);
	m.key = digest_of(bytes_str(plant));
	assert_ok(db_member_put(s->db, &m));
	assert_ok(registry_reload(s->registry));
}

/* A federation with a published source and the plants a, b, c. `dir` becomes the stage's. */
static inline void stage_make_in(struct stage *s, char *dir)
{
	char temp[PATH_SIZE];
	uint64_t size;
	*s = (struct stage){.dir = dir, .model = model_make(stage_model, 1)};
	log_set_level(LOG_LEVEL_ERROR);
	stage_open(s);
	for (const char *const *p = (const char *const[]){"a", "b", "c", NULL}; *p != NULL; p++)
		stage_enrol(s, *p);
	assert_ok(safetensors_save(store_temp_path(s->store, "source", temp), s->model, NULL));
	assert_ok(store_adopt(s->store, temp, NULL, &s->source, &size));
	s->manifest = manifest_make(s->model, NULL, NULL);
}

static inline void stage_make(struct stage *s)
{
	stage_make_in(s, scratch_make());
}

static inline void stage_drop(struct stage *s)
{
	bad_disk_remove();
	stage_is_over = true;
	stage_close(s);
	stage_is_over = false;
	model_free(s->model);
	manifest_free(s->manifest);
	scratch_remove(s->dir);
}

/* ---- jobs ---- */

/* `text`: YAML of what differs from a job of 2 rounds, quorum 2, 60 s, 2 failures. */
static inline enum err stage_try_start(struct stage *s, const char *text, uint64_t *ret_job)
{
	static const char *const defaults[] = {"name: test",    "rounds: 2",       "quorum: 2",
					       "deadline: 60s", "failures_max: 2", NULL};
	struct yaml *yaml;
	struct job_config config;
	struct wire_start_job request = {.source = s->source};
	struct buf all;
	buf_init(&all, 4096);
	assert_ok(buf_printf(&all, "%s", text));
	for (size_t i = 0; defaults[i] != NULL; i++) {
		char key[32];
		snprintf(key, sizeof key, "%.*s", (int)(strchr(defaults[i], ':') - defaults[i] + 1), defaults[i]);
		if (strstr(text, key) == NULL)
			assert_ok(buf_printf(&all, "%s\n", defaults[i]));
	}
	assert_ok(yaml_parse("job", buf_bytes(&all), &yaml));
	assert_ok(config_read(job_wire_rows, yaml_root(yaml), &config));
	buf_init(&request.config, WIRE_CONFIG_MAX);
	assert_ok(config_canonical(job_wire_rows, &config, &request.config));
	enum err err = engine_job_start(s->engine, &request, ret_job);
	config_free(job_wire_rows, &config);
	wire_start_job_free(&request);
	yaml_free(yaml);
	buf_deinit(&all);
	return err;
}

static inline uint64_t stage_start(struct stage *s, const char *text)
{
	uint64_t job = 0;
	assert_ok(stage_try_start(s, text, &job));
	return job;
}

static inline void stage_settle(struct stage *s)
{
	while (engine_pump(s->engine) == 0)
		;
}

static inline struct job_row stage_job(struct stage *s, uint64_t job)
{
	struct job_row row;
	assert_ok(db_job_get(s->db, job, &row));
	job_row_deinit(&row);
	return row;
}

static inline struct round_row stage_round(struct stage *s, uint64_t job, uint32_t number)
{
	struct round_row row;
	assert_ok(db_round_get(s->db, job, number, &row));
	round_row_deinit(&row);
	return row;
}

/* ---- updates ---- */

/* What plant `who` learns in this round, always the same; update_free(). */
static inline struct bytes stage_update(struct stage *s, const char *who, uint32_t round)
{
	return update_of(s->manifest, s->model, (uint64_t)who[0] * 1000 + round);
}

static inline struct wire_head stage_head(struct stage *s, uint64_t job, uint32_t round, const char *who,
					  struct bytes update)
{
	struct round_row row = stage_round(s, job, round);
	struct wire_head head = {.size = update.n, .digest = digest_of(update), .has_update = true};
	head.update = (struct wire_update_head){.job = job,
						.round = round,
						.base = row.base,
						.manifest = s->manifest->digest,
						.samples = 10 + (uint64_t)(who[0] - 'a')};
	head.update.metrics.n = 1;
	snprintf(head.update.metrics.v[0].name, sizeof head.update.metrics.v[0].name, "train_loss");
	head.update.metrics.v[0].value = 0.25;
	return head;
}

/* In pieces of 100 bytes. */
static inline enum err stage_send(struct stage *s, const char *who, const struct wire_head *head, struct bytes update,
				  struct wire_receipt *ret_receipt)
{
	struct upload *u;
	TRY(engine_upload_begin(s->engine, who, head, &u, ret_receipt));
	if (u == NULL)
		return ERR_OK;
	for (size_t at = 0; at < update.n; at += 100) {
		size_t n = update.n - at < 100 ? update.n - at : 100;
		const struct bytes piece = bytes_of(update.p + at, n);
		enum err err = engine_upload_add(u, &piece, 1);
		if (err != ERR_OK) {
			engine_upload_abort(u);
			return err;
		}
	}
	return engine_upload_commit(u, ret_receipt);
}

static inline enum err stage_try_report(struct stage *s, const char *who, uint64_t job, uint32_t round,
					struct wire_receipt *ret_receipt)
{
	struct bytes update = stage_update(s, who, round);
	struct wire_head head = stage_head(s, job, round, who, update);
	enum err err = stage_send(s, who, &head, update, ret_receipt);
	update_free(&update);
	return err;
}

static inline struct wire_receipt stage_report(struct stage *s, const char *who, uint64_t job, uint32_t round)
{
	struct wire_receipt receipt = {0};
	assert_ok(stage_try_report(s, who, job, round, &receipt));
	assert_int_equal(receipt.job, job);
	assert_int_equal(receipt.round, round);
	return receipt;
}

/* ---- calls that wait ---- */

struct stage_call {
	unsigned answers;
	enum err code;
	char text[256];
	struct wire_task task;          /* without its texts */
	struct digest config, manifest; /* of the task's texts */
	struct digest base;             /* of the base that it carries; zero: none */
	struct wire_watch_reply watch;
	bool watches;
	const uint8_t *packed; /* where the reply lay, for comparing only */
};

static inline void stage_answer(void *arg, enum err code, struct rpc_reply *reply)
{
	struct stage_call *c = arg;
	if (stage_is_over)
		return;
	c->answers++;
	c->code = code;
	c->packed = rpc_reply_bytes(reply).p;
	ENSURE((code == ERR_OK) == (reply != NULL));
	if (code != ERR_OK) {
		snprintf(c->text, sizeof c->text, "%s", err_text());
	} else if (c->watches) {
		assert_ok(wire_watch_reply_unpack(rpc_reply_bytes(reply), &c->watch));
		wire_watch_reply_free(&(struct wire_watch_reply){.job.config = c->watch.job.config});
		c->watch.job.config = (struct buf){0};
	} else {
		assert_ok(wire_task_unpack(rpc_reply_bytes(reply), &c->task));
		c->config = digest_of(buf_bytes(&c->task.config));
		c->manifest = digest_of(buf_bytes(&c->task.manifest));
		if (c->task.base_content.n > 0)
			c->base = digest_of(buf_bytes(&c->task.base_content));
		buf_deinit(&c->task.base_content);
		buf_deinit(&c->task.config);
		buf_deinit(&c->task.manifest);
		buf_deinit(&c->task.base_content);
	}
}

static inline void stage_ask(struct stage *s, const char *who, uint64_t finished, struct stage_call *c)
{
	struct wire_task_request request = {.finished_job = finished, .software = "test 1"};
	*c = (struct stage_call){.answers = 0};
	engine_task(s->engine, who, &request, stage_answer, c);
}

static inline void stage_watch(struct stage *s, uint64_t job, uint64_t seen, struct stage_call *c)
{
	struct wire_watch_request request = {.job = job, .seen = seen};
	*c = (struct stage_call){.watches = true};
	engine_watch(s->engine, "admin", &request, stage_answer, c);
}

#endif
