/*
 * The coordinator's machine.
 *
 * A crash: from one moment on every operation of the disk fails, whatever the code that is still running tries; what it then says reaches
 * nobody; its memory is thrown away, and another process opens the same folder. The moment is between two events, or in the middle of one
 * (DISK_ARMED: after so many operations, those of SQLite among them). What nobody has promised is not left alone by it: updates that were on
 * their way in come back shorter, longer or garbled, and behind the last group of a batch there may be half of another one.
 */
#include "sim/sim.h"

#include "ml/safetensors.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char shape[] = "name: sim\n"
			    "input: [1, 16]\n"
			    "classes: [a, b, c]\n"
			    "layers:\n"
			    "  - {op: conv1d, name: conv1, out: 4, kernel: 5, stride: 2, padding: 2}\n"
			    "  - {op: batchnorm1d, name: bn1}\n"
			    "  - {op: relu}\n"
			    "  - {op: flatten}\n"
			    "  - {op: linear, name: hidden, out: 8}\n"
			    "  - {op: relu}\n"
			    "  - {op: linear, name: head, out: outputs}\n";

int64_t host_wall_now(void);
int64_t host_monotonic_now(void);

/* What must not fail does not: the simulator itself has no business with errors. */
static void must(enum err err)
{
	if (err != ERR_OK) {
		printf("the simulator cannot work: %s (%s)\n", err_text(), err_name(err));
		exit(2);
	}
}

/* ---- the disk ---- */

static bool fails(struct disk *d)
{
	switch (d->state) {
	case DISK_GOOD:
		return false;
	case DISK_FLAKY:
		return rng_below(&d->rng, 3) == 0;
	case DISK_ARMED:
		if (d->left-- > 0)
			return false;
		d->state = DISK_DEAD;
		d->tripped = true;
		return true;
	case DISK_DEAD:
		return true;
	}
	return true;
}

static enum err disk_hook(void *arg, enum file_op op, const char *path, size_t n, size_t *ret_short)
{
	struct sim *s = arg;
	/* A dead one takes nothing at all; of the write that it dies in, a part. */
	bool dead = s->disk.state == DISK_DEAD;
	if (s->host.quiet > 0 || !fails(&s->disk))
		return ERR_OK;
	s->disk.failures++;
	s->disk.commit_failures += strstr(path, "/hansa.db") != NULL;
	s->host.dirty = true;
	s->host.failed_ms = s->now;
	if (op == FILE_OP_WRITE && !dead)
		*ret_short = n / 2;
	return ERR_IO;
}

bool host_disk_failed(const struct sim *s)
{
	return s->disk.failures != s->host.failures_in_step;
}

bool host_commit_failed(const struct sim *s)
{
	return s->disk.commit_failures != s->host.commit_failures_in_step;
}

bool host_failed(const struct sim *s)
{
	return host_disk_failed(s) || s->host.refuses != NULL;
}

void host_quiet(struct sim *s, bool quiet)
{
	ENSURE(quiet || s->host.quiet > 0);
	s->host.quiet += quiet ? 1 : -1u;
}

const char *host_spool(const struct sim *s, char out[PATH_SIZE])
{
	return path_join(out, s->host.dir, "spool");
}

bool host_retries(const struct sim *s)
{
	return s->host.refuses != NULL || (s->host.failed_ms != 0 && s->now - s->host.failed_ms <= 130000);
}

/* ---- the database ---- */

/* From now on it refuses to change one of its tables; NULL: none. Set through the file itself, as trouble of its own would come. */
void host_refuse(struct sim *s, const char *table)
{
	static const char *const triggers[] = {
		"contribution",
		"CREATE TRIGGER bad BEFORE INSERT ON contribution BEGIN SELECT abs(-9223372036854775808); END",
		"round",
		"CREATE TRIGGER bad BEFORE UPDATE ON round BEGIN SELECT abs(-9223372036854775808); END",
		"job",
		"CREATE TRIGGER bad BEFORE UPDATE ON job BEGIN SELECT abs(-9223372036854775808); END",
		"report",
		"CREATE TRIGGER bad BEFORE INSERT ON report BEGIN SELECT abs(-9223372036854775808); END",
	};
	host_quiet(s, true);
	must(sql_run(s->host.eye, "DROP TRIGGER IF EXISTS bad"));
	for (size_t i = 0; table != NULL && i < sizeof triggers / sizeof triggers[0]; i += 2) {
		if (strcmp(table, triggers[i]) == 0)
			must(sql_run(s->host.eye, triggers[i + 1]));
	}
	host_quiet(s, false);
	s->host.refuses = table;
	s->host.dirty = true;
	s->host.failed_ms = s->now;
	sim_say(s, "database: %s%s", table != NULL ? "refuses changes of " : "works", table != NULL ? table : "");
}

/* ---- making ---- */

static void empty(const char *path)
{
	DIR *d = opendir(path);
	if (d == NULL)
		return;
	for (const struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
		char inner[PATH_SIZE];
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		path_join(inner, path, e->d_name);
		if (unlink(inner) != 0) {
			empty(inner);
			rmdir(inner);
		}
	}
	closedir(d);
}

static void enrol_all(struct sim *s, struct sql *sql)
{
	must(sql_begin(sql));
	for (uint32_t i = 0; i < s->n_plants; i++) {
		if (!s->plants[i].enrolled)
			continue;
		struct digest key = digest_of(bytes_str(s->plants[i].name));
		struct query *q = sql_query(sql, "INSERT INTO member (role, name, state, key, expires_ms, enrolled_ms) "
						 "VALUES ('plant', ?, 'enrolled', ?, ?, ?)");
		sql_bind_text(q, s->plants[i].name);
		sql_bind_bytes(q, bytes_of(key.b, sizeof key.b));
		sql_bind_int(q, sim_wall(s) + 1000000000);
		sql_bind_int(q, sim_wall(s));
		must(sql_end(q));
	}
	must(sql_end_transaction(sql, ERR_OK));
}

static void publish(struct sim *s, struct store *store)
{
	struct yaml *yaml;
	must(yaml_parse("shape", bytes_str(shape), &yaml));
	must(model_from_yaml(yaml_root(yaml), &s->book.source));
	yaml_free(yaml);
	for (size_t i = 0; i < SIM_SOURCES; i++) {
		char temp[PATH_SIZE];
		uint64_t size;
		model_init(s->book.source, i + 1);
		must(safetensors_save(store_temp_path(store, "source", temp), s->book.source, NULL));
		must(store_adopt(store, temp, NULL, &s->book.sources[i], &size));
		book_add_model(s, &s->book.sources[i], s->book.source->theta);
	}
}

/* Small updates share a file, large ones have one each: in some runs all are small, in some none, and in some that changes. */
static void choose_small(struct sim *s)
{
	static const uint64_t kinds[] = {SPOOL_SMALL_MAX, 1, 600};
	uint64_t kind = rng_below(&s->rng, 4);
	s->host.small_changes = kind == 3;
	s->host.small_max = kinds[kind % 3];
}

void host_make(struct sim *s)
{
	char path[PATH_SIZE];
	struct db *db;
	struct sql *sql;
	struct store *store;
	choose_small(s);
	empty(s->host.dir);
	must(db_open(path_join(path, s->host.dir, "hansa.db"), &db));
	must(sql_open(path, &sql));
	must(store_open(s->host.dir, &store));
	enrol_all(s, sql);
	publish(s, store);
	store_close(store);
	sql_close(sql);
	db_close(db);
	file_set_hook(disk_hook, s);
}

void host_drop(struct sim *s)
{
	s->disk.state = DISK_GOOD;
	if (s->host.up)
		host_crash(s, "at the end");
	file_set_hook(NULL, NULL);
	empty(s->host.dir);
}

/* ---- starting and ending ---- */

static void close_all(struct sim *s)
{
	struct host *h = &s->host;
	h->dying = true;
	engine_close(h->engine);
	registry_close(h->registry);
	store_close(h->store);
	sql_close(h->eye);
	db_close(h->db);
	h->engine = NULL;
	h->registry = NULL;
	h->store = NULL;
	h->eye = NULL;
	h->db = NULL;
	h->up = h->dying = false;
}

static enum err open_all(struct sim *s)
{
	struct host *h = &s->host;
	char path[PATH_SIZE];
	TRY(db_open(path_join(path, h->dir, "hansa.db"), &h->db));
	TRY(store_open(h->dir, &h->store));
	TRY(registry_open(h->db, &h->registry));
	TRY(sql_open(path, &h->eye));
	struct engine_config config = {
		.dir = h->dir,
		.federation = "sim",
		.db = h->db,
		.store = h->store,
		.registry = h->registry,
		.upload_bytes_max = 1 << 20,
		.spool = {.small_max = h->small_max},
		.hold_ms = SIM_HOLD_MS,
		.wall_ms = host_wall_now,
		.monotonic_ms = host_monotonic_now,
	};
	return engine_open(&config, &h->engine);
}

void host_start(struct sim *s)
{
	struct host *h = &s->host;
	bool faulty = s->disk.state != DISK_GOOD;
	h->life++;
	h->dirty = h->refuses != NULL;
	h->failed_ms = 0;
	h->busy = 0;
	h->data_version = -1;
	h->opening = true;
	if (h->small_changes)
		h->small_max = rng_below(&s->rng, 2) == 0 ? SPOOL_SMALL_MAX : 1;
	enum err err = open_all(s);
	sim_say(s, "coordinator: start %u: %s", h->life, err_name(err));
	if (err != ERR_OK) {
		if (!faulty)
			sim_violated(s, "the coordinator starts", "%s (%s)", err_text(), err_name(err));
		close_all(s);
		cover("a start that fails");
		s->disk.state = DISK_GOOD;
		s->disk.tripped = false;
		sim_later(s, 1000, EVENT_OPEN, SIM_NOBODY, 0, NULL);
		return;
	}
	h->up = true;
	if (s->healed && h->refuses != NULL)
		host_refuse(s, NULL);
	h->pump_at = INT64_MAX;
	host_touch(s);
	if (!s->disk.tripped)
		look_at_database(s);
	h->opening = false;
	doubt_clear(s);
	/* A stop is a call: who made it has no answer, and this coordinator has not heard of it. */
	for (size_t i = 1; i <= s->book.n_jobs; i++)
		s->book.jobs[i]->stop_asked &= s->book.jobs[i]->state != WIRE_JOB_RUNNING;
	if (!s->disk.tripped)
		check(s, MOMENT_START);
}

/* ---- what a crash does to files ---- */

static void write_tail(struct sim *s, struct file *f, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint8_t byte = (uint8_t)rng_below(&s->rng, 256);
		must(file_write(f, &byte, 1));
	}
}

static void damage_part(struct sim *s, const char *path, const char *name)
{
	static const char *const kinds[] = {"a part that a crash shortens", "a part that a crash lengthens",
					    "a part that a crash garbles"};
	struct buf content;
	struct file *f;
	must(file_read(path, 1 << 20, &content));
	size_t kind = (size_t)rng_below(&s->rng, 3), n = content.n;
	if (kind == 0 && n > 0)
		n = (size_t)rng_below(&s->rng, n);
	if (kind == 2 && n > 0)
		content.p[rng_below(&s->rng, n)] ^= (uint8_t)(1u << rng_below(&s->rng, 8));
	must(file_create(path, 0600, &f));
	must(file_write(f, content.p, n));
	if (kind == 1)
		write_tail(s, f, 1 + (size_t)rng_below(&s->rng, 900));
	file_close(f);
	buf_deinit(&content);
	sim_say(s, "disk: %s: %s", name, kinds[kind]);
	cover(kinds[kind]);
}

static enum err damage_file(void *arg, const char *name)
{
	struct sim *s = arg;
	char folder[PATH_SIZE], path[PATH_SIZE];
	struct file *f;
	bool part = strstr(name, ".part") != NULL, batch = strstr(name, ".batch") != NULL;
	path_join(path, host_spool(s, folder), name);
	if (part && rng_below(&s->rng, 3) == 0)
		damage_part(s, path, name);
	if (batch && rng_below(&s->rng, 4) == 0) {
		cover("a batch with half a group at its end");
		must(file_append_open(path, 0600, &f));
		write_tail(s, f, 1 + (size_t)rng_below(&s->rng, 900));
		file_close(f);
	}
	return ERR_OK;
}

static void damage(struct sim *s)
{
	char folder[PATH_SIZE];
	cover_expect("a part that a crash shortens");
	cover_expect("a part that a crash lengthens");
	cover_expect("a part that a crash garbles");
	cover_expect("a batch with half a group at its end");
	host_quiet(s, true);
	if (file_exists(host_spool(s, folder)))
		must(dir_each(folder, damage_file, s));
	host_quiet(s, false);
}

void host_crash(struct sim *s, const char *how)
{
	sim_say(s, "coordinator: crash %s", how);
	s->disk.state = DISK_DEAD;
	s->host.dying = true;
	net_break(s, false);
	close_all(s);
	s->disk.state = DISK_GOOD;
	s->disk.tripped = false;
	damage(s);
	sim_later(s, (int64_t)rng_below(&s->rng, 20000), EVENT_OPEN, SIM_NOBODY, 0, NULL);
}

void host_stop(struct sim *s)
{
	sim_say(s, "coordinator: stop");
	engine_drain(s->host.engine);
	net_break(s, true);
	close_all(s);
	sim_later(s, 500 + (int64_t)rng_below(&s->rng, 5000), EVENT_OPEN, SIM_NOBODY, 0, NULL);
}

/* ---- the engine's thread ---- */

static void pump_in(struct sim *s, int64_t in_ms)
{
	struct host *h = &s->host;
	if (s->now + in_ms >= h->pump_at)
		return;
	h->pump_at = s->now + in_ms;
	sim_later(s, in_ms, EVENT_PUMP, SIM_NOBODY, ++h->pump_serial, NULL);
}

/* The thread is awake soon; now and then the machine is busy. */
void host_touch(struct sim *s)
{
	if (s->host.up)
		pump_in(s, (int64_t)rng_below(&s->rng, rng_below(&s->rng, 20) == 0 ? 500 : 3));
}

void host_pump(struct sim *s, const struct event *e)
{
	struct host *h = &s->host;
	if (!h->up || e->ref != h->pump_serial)
		return;
	h->pump_at = INT64_MAX;
	int64_t wait_ms = engine_pump(h->engine);
	if (s->disk.tripped)
		return;
	h->wait_ms = wait_ms;
	h->busy = wait_ms > 0 ? 0 : h->busy + 1;
	if (wait_ms > 0)
		check(s, MOMENT_IDLE);
	pump_in(s, wait_ms > 0 ? wait_ms : (int64_t)rng_below(&s->rng, 2));
}
