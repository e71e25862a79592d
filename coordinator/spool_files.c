/*
 * The files' names, what a start finds under them, and removing.
 */
#include "coordinator/spool_parts.h"

#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_BYTES = 192 };

static const char *const suffixes[] = {[SPOOL_PART] = ".part", [SPOOL_UPDATE] = ".update", [SPOOL_BATCH] = ".batch"};
enum { KINDS = sizeof suffixes / sizeof suffixes[0] };

void spool_tag(const struct digest *d, char out[SPOOL_TAG_SIZE])
{
	char text[DIGEST_TEXT_SIZE];
	memcpy(out, digest_format(d, text), SPOOL_TAG_SIZE - 1);
	out[SPOOL_TAG_SIZE - 1] = '\0';
}

bool spool_is_plant(const char *name)
{
	struct identity id;
	return identity_make(ROLE_PLANT, "federation", name, &id) == ERR_OK;
}

/* `tag`: of a part. */
static void write_name(const struct spool_name *n, const char *tag, char out[NAME_BYTES])
{
	int at = snprintf(out, NAME_BYTES, "%" PRIu64 "-%" PRIu32, n->job, n->round);
	if (n->kind != SPOOL_BATCH)
		at += snprintf(out + at, NAME_BYTES - (size_t)at, "-%s", n->plant);
	if (n->kind == SPOOL_PART)
		at += snprintf(out + at, NAME_BYTES - (size_t)at, ".%s", tag);
	at += snprintf(out + at, NAME_BYTES - (size_t)at, "%s", suffixes[n->kind]);
	ENSURE(at < NAME_BYTES);
}

const char *spool_path(const struct spool *s, const struct spool_key *key, char out[PATH_SIZE])
{
	char name[NAME_BYTES];
	ENSURE(spool_is_plant(key->plant));
	write_name(&(struct spool_name){SPOOL_UPDATE, key->job, key->round, key->plant}, NULL, name);
	return path_join(out, s->folder, name);
}

const char *spool_batch_path(const struct spool *s, uint64_t job, uint32_t round, char out[PATH_SIZE])
{
	char name[NAME_BYTES];
	write_name(&(struct spool_name){SPOOL_BATCH, job, round, NULL}, NULL, name);
	return path_join(out, s->folder, name);
}

const char *spool_file_path(const struct spool *s, const struct claim *c, char out[PATH_SIZE])
{
	return spool_path(s, &(struct spool_key){c->job, c->round, c->plant}, out);
}

const char *spool_part_path(const struct spool *s, const struct claim *c, char out[PATH_SIZE])
{
	char name[NAME_BYTES];
	write_name(&(struct spool_name){SPOOL_PART, c->job, c->round, c->plant}, c->tag, name);
	return path_join(out, s->folder, name);
}

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), k = strlen(end);
	return n >= k && strcmp(s + n - k, end) == 0;
}

/* Exactly what write_name() writes. The texts of the result point into `copy`. */
static bool parse_name(const char *name, char *copy, struct spool_name *ret_name, const char **ret_tag)
{
	char again[NAME_BYTES], *end;
	const char *tag = "";
	size_t kind = 0;
	while (kind < KINDS && !ends_with(name, suffixes[kind]))
		kind++;
	if (kind == KINDS || strlen(name) >= sizeof again)
		return false;
	struct spool_name n = {.kind = (enum spool_kind)kind};
	memcpy(copy, name, strlen(name) + 1);
	copy[strlen(copy) - strlen(suffixes[n.kind])] = '\0';
	unsigned long long job = strtoull(copy, &end, 10);
	unsigned long round = *end == '-' ? strtoul(end + 1, &end, 10) : 0;
	n.job = job;
	n.round = (uint32_t)round;
	if (n.kind == SPOOL_PART) {
		char *dot = strchr(end, '.');
		if (dot == NULL || strlen(dot + 1) != SPOOL_TAG_SIZE - 1 ||
		    strspn(dot + 1, "0123456789abcdef") != SPOOL_TAG_SIZE - 1)
			return false;
		*dot = '\0';
		tag = dot + 1;
	}
	if (n.kind != SPOOL_BATCH && (*end != '-' || !spool_is_plant(end + 1)))
		return false;
	n.plant = n.kind != SPOOL_BATCH ? end + 1 : NULL;
	write_name(&n, tag, again);
	*ret_name = n;
	*ret_tag = tag;
	return strcmp(again, name) == 0;
}

/* ---- opening ---- */

enum err spool_open(const char *dir, const struct spool_config *config, struct spool **ret_spool)
{
	char folder[PATH_SIZE];
	TRY(dir_make(path_join(folder, dir, "spool"), 0700));
	struct spool *s = mem_new(sizeof *s);
	s->folder = mem_str(folder);
	s->config = *config;
	if (s->config.small_max == 0)
		s->config.small_max = SPOOL_SMALL_MAX;
	ENSURE(s->config.small_max <= SPOOL_SMALL_MAX);
	pthread_mutex_init(&s->lock, NULL);
	pthread_mutex_init(&s->appending, NULL);
	*ret_spool = s;
	return ERR_OK;
}

void spool_close(struct spool *s)
{
	if (s == NULL)
		return;
	spool_close_batches(s);
	while (s->claims != NULL) {
		ENSURE(!s->claims->active);
		spool_claim_end(s, s->claims, false, true);
	}
	pthread_mutex_destroy(&s->lock);
	pthread_mutex_destroy(&s->appending);
	free(s->folder);
	free(s);
}

struct sweep {
	struct spool *spool;
	bool (*known)(void *arg, const struct spool_name *name);
	void *arg;
};

static enum err sweep_one(void *arg, const char *name)
{
	struct sweep *s = arg;
	struct spool_name n;
	const char *tag;
	char path[PATH_SIZE], copy[NAME_BYTES];
	uint64_t size;
	path_join(path, s->spool->folder, name);
	if (!parse_name(name, copy, &n, &tag))
		/* Parts of earlier releases had other names. */
		return ends_with(name, suffixes[SPOOL_PART]) ? file_discard(path) : ERR_OK;
	/* A plant that began with other bytes has one part more only when the removal of the first did not reach the disk. */
	if (!s->known(s->arg, &n) || (n.kind == SPOOL_PART && spool_has_part(s->spool, &n)))
		return file_discard(path);
	TRY(file_size(path, &size));
	if (n.kind == SPOOL_PART && size == 0)
		return file_discard(path);
	if (n.kind == SPOOL_PART)
		spool_claim_part(s->spool, &n, tag, size);
	else
		spool_count_file(s->spool, size, true);
	return ERR_OK;
}

enum err spool_sweep(struct spool *s, bool (*known)(void *arg, const struct spool_name *name), void *arg)
{
	struct sweep sweep = {.spool = s, .known = known, .arg = arg};
	return dir_each(s->folder, sweep_one, &sweep);
}

/* ---- removing ---- */

void spool_discard(const char *path)
{
	char *text = mem_str(err_text());
	if (file_discard(path) != ERR_OK)
		log_warn("spool", "%s", err_text());
	err_set(ERR_OK, "%s", text);
	free(text);
}

static void remove_counted(struct spool *s, const char *path)
{
	uint64_t size;
	if (!file_exists(path))
		return;
	char *text = mem_str(err_text());
	enum err err = file_size(path, &size);
	if (err == ERR_OK)
		err = file_discard(path);
	if (err == ERR_OK)
		spool_count_file(s, size, false);
	else
		log_warn("spool", "%s", err_text());
	err_set(ERR_OK, "%s", text);
	free(text);
}

void spool_remove(struct spool *s, const struct spool_key *key)
{
	char path[PATH_SIZE];
	remove_counted(s, spool_path(s, key, path));
}

void spool_remove_batch(struct spool *s, uint64_t job, uint32_t round)
{
	char path[PATH_SIZE];
	pthread_mutex_lock(&s->appending);
	for (size_t i = 0; i < SPOOL_BATCHES_MAX; i++) {
		struct batch *b = &s->batches[i];
		if (b->file != NULL && b->job == job && b->round == round) {
			file_close(b->file);
			b->file = NULL;
		}
	}
	remove_counted(s, spool_batch_path(s, job, round, path));
	pthread_mutex_unlock(&s->appending);
}

void spool_remove_idle(struct spool *s, uint64_t job, uint32_t round, const char *plant)
{
	char path[PATH_SIZE];
	for (struct claim *c; (c = spool_claim_idle(s, job, round, plant)) != NULL;) {
		if (c->bytes > 0)
			spool_discard(spool_part_path(s, c, path));
		if (c->file > 0) {
			spool_discard(spool_file_path(s, c, path));
			spool_claim_unfile(s, c);
		}
		spool_claim_end(s, c, false, false);
	}
}

void spool_remove_parts(struct spool *s, uint64_t job, uint32_t round)
{
	spool_remove_idle(s, job, round, NULL);
}
