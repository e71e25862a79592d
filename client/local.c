#include "client/local.h"

#include "ml/safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SOURCE_SIZE = 16 + 1, NAME_SIZE = 80 };

struct entry {
	uint64_t job;
	uint32_t round;
	char source[SOURCE_SIZE]; /* the beginning of its digest */
};

static void short_source(const struct digest *d, char out[SOURCE_SIZE])
{
	char text[DIGEST_TEXT_SIZE];
	snprintf(out, SOURCE_SIZE, "%.16s", digest_format(d, text));
}

static const char *entry_format(const struct entry *e, char out[NAME_SIZE])
{
	snprintf(out, NAME_SIZE, "%" PRIu64 "-%s-%" PRIu32 ".safetensors", e->job, e->source, e->round);
	return out;
}

/* false: a file that is not ours. */
static bool entry_parse(const char *name, struct entry *ret_entry)
{
	struct entry e = {0};
	char again[NAME_SIZE], *end;
	e.job = strtoull(name, &end, 10);
	if (end[0] != '-' || strlen(end) < SOURCE_SIZE + 1)
		return false;
	memcpy(e.source, end + 1, SOURCE_SIZE - 1);
	e.round = (uint32_t)strtoul(end + 1 + SOURCE_SIZE, &end, 10);
	if (strcmp(name, entry_format(&e, again)) != 0)
		return false;
	*ret_entry = e;
	return true;
}

void local_init(struct local *l, const char *state_dir, uint64_t job, const struct digest *source,
		const struct manifest *m)
{
	*l = (struct local){.job = job, .source = *source};
	path_join(l->dir, state_dir, "local");
	for (size_t i = 0; i < m->n_tensors; i++)
		l->any = l->any || m->tensors[i].role == TENSOR_LOCAL;
}

static const char *path_of(const struct local *l, uint32_t round, char out[PATH_SIZE])
{
	struct entry e = {.job = l->job, .round = round};
	char name[NAME_SIZE];
	short_source(&l->source, e.source);
	return path_join(out, l->dir, entry_format(&e, name));
}

struct search {
	const struct local *l;
	char source[SOURCE_SIZE];
	uint32_t before, newest;
	bool remove; /* those before `before` */
};

static enum err look_at(void *arg, const char *name)
{
	struct search *s = arg;
	struct entry e;
	char path[PATH_SIZE];
	if (!entry_parse(name, &e) || e.job != s->l->job || strcmp(e.source, s->source) != 0 || e.round >= s->before)
		return ERR_OK;
	if (s->remove)
		return file_remove(path_join(path, s->l->dir, name));
	if (e.round > s->newest)
		s->newest = e.round;
	return ERR_OK;
}

/* *ret_round 0: there is none. */
static enum err newest_before(const struct local *l, uint32_t round, uint32_t *ret_round)
{
	struct search s = {.l = l, .before = round};
	short_source(&l->source, s.source);
	if (file_exists(l->dir))
		TRY(dir_each(l->dir, look_at, &s));
	*ret_round = s.newest;
	return ERR_OK;
}

enum err local_restore(const struct local *l, uint32_t round, const struct manifest *m, struct model *model)
{
	char path[PATH_SIZE];
	uint32_t from;
	struct model *mine;
	if (!l->any)
		return ERR_OK;
	TRY(newest_before(l, round, &from));
	if (from == 0)
		return ERR_OK;
	TRY(safetensors_load(path_of(l, from, path), &mine));
	if (!model_same(mine, model)) {
		model_free(mine);
		return err_set(ERR_CORRUPT, "%s: not a model of this job; remove it", path);
	}
	for (size_t i = 0; i < m->n_tensors; i++) {
		const struct manifest_tensor *t = &m->tensors[i];
		if (t->role == TENSOR_LOCAL)
			memcpy(model->theta + t->offset, mine->theta + t->offset, t->n * sizeof(float));
	}
	model_free(mine);
	return ERR_OK;
}

enum err local_keep(const struct local *l, uint32_t round, const struct model *m)
{
	char path[PATH_SIZE];
	if (!l->any)
		return ERR_OK;
	TRY(dir_make(l->dir, 0700));
	return safetensors_save(path_of(l, round, path), m, NULL);
}

enum err local_trim(const struct local *l, uint32_t round)
{
	struct search s = {.l = l, .remove = true};
	if (!l->any)
		return ERR_OK;
	short_source(&l->source, s.source);
	TRY(newest_before(l, round, &s.before));
	return s.before > 0 ? dir_each(l->dir, look_at, &s) : ERR_OK;
}

/* ---- the end of a job ---- */

/* A job that may be resumed, and when it was last worked for. */
struct other {
	uint64_t job;
	int64_t time_ns;
};

struct end {
	const char *dir;
	uint64_t job;
	bool done;
	struct other others[LOCAL_JOBS_MAX]; /* those that stay, in no order */
	size_t n;
};

static bool is_older(const struct other *a, const struct other *b)
{
	return a->time_ns != b->time_ns ? a->time_ns < b->time_ns : a->job < b->job;
}

static struct other *find_other(struct end *end, uint64_t job)
{
	for (size_t i = 0; i < end->n; i++) {
		if (end->others[i].job == job)
			return &end->others[i];
	}
	return NULL;
}

static struct other *oldest_other(struct end *end)
{
	struct other *oldest = &end->others[0];
	for (size_t i = 1; i < end->n; i++) {
		if (is_older(&end->others[i], oldest))
			oldest = &end->others[i];
	}
	return oldest;
}

/* Files come in any order; a job that has had to go comes back with a newer file of its own. */
static enum err choose_other(void *arg, const char *name)
{
	struct end *end = arg;
	struct entry e;
	char path[PATH_SIZE];
	if (!entry_parse(name, &e) || e.job == end->job)
		return ERR_OK;
	struct other this = {.job = e.job}, *place = find_other(end, e.job);
	TRY(file_time(path_join(path, end->dir, name), &this.time_ns));
	if (place == NULL && end->n < LOCAL_JOBS_MAX)
		end->others[end->n++] = this;
	else {
		place = place == NULL ? oldest_other(end) : place;
		if (is_older(place, &this))
			*place = this;
	}
	return ERR_OK;
}

static enum err remove_ended(void *arg, const char *name)
{
	struct end *end = arg;
	struct entry e;
	char path[PATH_SIZE];
	if (!entry_parse(name, &e))
		return ERR_OK;
	bool stays = e.job == end->job ? !end->done : find_other(end, e.job) != NULL;
	return stays ? ERR_OK : file_remove(path_join(path, end->dir, name));
}

enum err local_end(const char *state_dir, uint64_t job, bool done)
{
	char dir[PATH_SIZE];
	struct end end = {.dir = path_join(dir, state_dir, "local"), .job = job, .done = done};
	if (!file_exists(dir))
		return ERR_OK;
	TRY(dir_each(dir, choose_other, &end));
	return dir_each(dir, remove_ended, &end);
}
