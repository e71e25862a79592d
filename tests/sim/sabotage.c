/*
 * Mistakes made on purpose, behind the engine's back: an oracle that never finds anything proves nothing. Each kind is a table row; it strikes
 * as soon as there is something to strike at, and the run must end with a violation.
 */
#include "sim/sim.h"

#include "coordinator/db_schema.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct book_job *open_job(struct sim *s)
{
	for (size_t i = 1; i <= s->book.n_jobs; i++) {
		const struct book_job *j = s->book.jobs[i];
		const struct book_round *r = &j->rounds[j->round];
		if (j->state == WIRE_JOB_RUNNING && r->phase == ROUND_OPEN && r->counted >= r->quorum &&
		    r->counted < r->goal && !j->stop_asked)
			return j;
	}
	return NULL;
}

/* As somebody else with the file open would. */
static bool run_sql(struct sim *s, const char *text)
{
	host_quiet(s, true);
	bool well = sql_run(s->host.eye, text) == ERR_OK && sql_changes(s->host.eye) > 0;
	host_quiet(s, false);
	s->host.data_version = -1;
	return well;
}

static bool change_rows(struct sim *s, const char *format)
{
	const struct book_job *j = open_job(s);
	if (j == NULL)
		return false;
	struct buf text;
	buf_init(&text, 1024);
	for (const char *c = format; *c != '\0'; c++) {
		if (*c == 'J')
			ENSURE(buf_printf(&text, "%" PRIu64, j->id) == ERR_OK);
		else if (*c == 'R')
			ENSURE(buf_printf(&text, "%" PRIu32, j->round) == ERR_OK);
		else
			ENSURE(buf_append(&text, c, 1) == ERR_OK);
	}
	bool well = run_sql(s, buf_str(&text));
	buf_deinit(&text);
	return well;
}

static bool drop_row(struct sim *s)
{
	return change_rows(s, "delete from contribution where job = J and round = R and plant = (select min(plant) "
			      "from contribution where job = J and round = R)");
}

/* Under another name: the database itself takes no second one of the same. */
static bool count_twice(struct sim *s)
{
	return change_rows(s, "insert into contribution (job, round, plant, digest, size, samples, norm, time_ms, "
			      "metrics, base_round, place) select job, round, 'p999', digest, size, samples, norm, "
			      "time_ms, metrics, base_round, place from contribution where job = J and round = R limit "
			      "1");
}

static bool weigh_more(struct sim *s)
{
	return change_rows(s, "update contribution set samples = samples + 1 where job = J and round = R and plant = "
			      "(select min(plant) from contribution where job = J and round = R)");
}

static bool seal_early(struct sim *s)
{
	return change_rows(s, "update round set phase = 'sealed', seal = zeroblob(32) where job = J and number = R");
}

static bool revive_job(struct sim *s)
{
	return run_sql(s, "update job set state = 'running' where state in ('done', 'stopped', 'failed')");
}

/* ---- files ---- */

static void flip_at(const char *path, uint64_t offset)
{
	struct buf content;
	struct file *f;
	ENSURE(file_read(path, 64 << 20, &content) == ERR_OK && offset < content.n);
	content.p[offset] ^= 1;
	/* In place: who has it open sees it. */
	ENSURE(file_append_open(path, 0600, &f) == ERR_OK);
	ENSURE(file_write_at(f, offset, content.p + offset, 1) == ERR_OK);
	file_close(f);
	buf_deinit(&content);
}

static bool flip_update(struct sim *s)
{
	struct update_row *rows;
	size_t n;
	char folder[PATH_SIZE], path[PATH_SIZE];
	const struct book_job *j = open_job(s);
	struct db eye = {.sql = s->host.eye};
	if (j == NULL)
		return false;
	ENSURE(db_update_list(&eye, j->id, j->round, &rows, &n) == ERR_OK && n > 0);
	const struct update_row *row = &rows[n - 1];
	char *name = row->place >= 0
			     ? mem_printf("%" PRIu64 "-%" PRIu32 ".batch", row->job, row->round)
			     : mem_printf("%" PRIu64 "-%" PRIu32 "-%s.update", row->job, row->base_round, row->plant);
	path_join(path, host_spool(s, folder), name);
	host_quiet(s, true);
	flip_at(path, (row->place >= 0 ? (uint64_t)row->place : 0) + 1);
	host_quiet(s, false);
	free(name);
	free(rows);
	return true;
}

static bool flip_and_restart(struct sim *s)
{
	if (!flip_update(s))
		return false;
	host_crash(s, "with a flipped bit");
	return true;
}

/* A restart would clear it away. */
static bool leave_file(struct sim *s)
{
	char folder[PATH_SIZE], path[PATH_SIZE];
	struct file *f;
	if (s->book.n_jobs == 0 || s->host.dirty)
		return false;
	host_quiet(s, true);
	ENSURE(file_create(path_join(path, host_spool(s, folder), "1-77-p000.update"), 0600, &f) == ERR_OK);
	file_close(f);
	host_quiet(s, false);
	return true;
}

static const struct digest *last_model(struct sim *s)
{
	for (size_t i = 1; i <= s->book.n_jobs; i++) {
		const struct book_job *j = s->book.jobs[i];
		for (uint32_t k = j->round; j->state == WIRE_JOB_DONE && k > 0; k--) {
			if (j->rounds[k].phase == ROUND_COMMITTED)
				return &j->rounds[k].model;
		}
	}
	return NULL;
}

static bool lose_model(struct sim *s)
{
	char path[PATH_SIZE];
	const struct digest *d = last_model(s);
	return d != NULL && unlink(store_path(s->host.store, d, path)) == 0;
}

static bool forge_model(struct sim *s)
{
	char path[PATH_SIZE];
	uint64_t size;
	const struct digest *d = last_model(s);
	if (d == NULL || !store_has(s->host.store, d, &size))
		return false;
	host_quiet(s, true);
	flip_at(store_path(s->host.store, d, path), size - 1);
	host_quiet(s, false);
	return true;
}

static const struct {
	const char *name;
	bool (*strike)(struct sim *s);
	bool again; /* with every step */
} kinds[] = {
	{"drop-row", drop_row, false},
	{"count-twice", count_twice, false},
	{"weigh-more", weigh_more, false},
	{"seal-early", seal_early, false},
	{"revive-job", revive_job, false},
	{"flip-update", flip_update, false},
	{"flip-and-restart", flip_and_restart, false},
	{"leave-file", leave_file, true},
	{"lose-model", lose_model, false},
	{"forge-model", forge_model, false},
};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

const char *sabotage_name(size_t i)
{
	return i < KINDS ? kinds[i].name : NULL;
}

void sabotage_strikes(struct sim *s)
{
	size_t i = 0;
	while (strcmp(kinds[i].name, s->sabotage) != 0)
		i++;
	if ((s->sabotaged && !kinds[i].again) || !kinds[i].strike(s))
		return;
	if (!s->sabotaged)
		sim_say(s, "sabotage: %s", s->sabotage);
	s->sabotaged = true;
}
