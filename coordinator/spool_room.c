/*
 * Who receives what, and how much room the spool takes.
 *
 * Room is promised when an update begins, for all of it, so that updates that were let in also fit: a full spool refuses at the door and
 * not in the middle. What the figures count is the files' sizes, as they were found at the start and as they have grown since.
 */
#include "coordinator/spool_parts.h"

#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a claim takes, and what of it is still to be written. */
static uint64_t promised_to(const struct claim *c)
{
	return c->active && c->size > c->bytes ? c->size - c->bytes : 0;
}

static uint64_t taken_by(const struct claim *c)
{
	return c->bytes + promised_to(c) + c->file;
}

/* Under the lock, like all that is static here: the one place where a claim changes what it takes. */
static void change(struct spool *s, struct claim *c, bool active, uint64_t size, uint64_t bytes)
{
	s->bytes -= taken_by(c);
	s->promised -= promised_to(c);
	c->active = active;
	c->size = size;
	c->bytes = bytes;
	s->bytes += taken_by(c);
	s->promised += promised_to(c);
}

static struct claim *find(const struct spool *s, uint64_t job, uint32_t round, const char *plant)
{
	struct claim *c = s->claims;
	while (c != NULL && (c->job != job || c->round != round || strcmp(c->plant, plant) != 0))
		c = c->next;
	return c;
}

static struct claim *add(struct spool *s, uint64_t job, uint32_t round, const char *plant)
{
	struct claim *c = mem_new(sizeof *c);
	*c = (struct claim){.next = s->claims, .job = job, .round = round};
	snprintf(c->plant, sizeof c->plant, "%s", plant);
	s->claims = c;
	return c;
}

static void drop(struct spool *s, struct claim *c)
{
	struct claim **at = &s->claims;
	ENSURE(c->file == 0);
	change(s, c, false, 0, 0);
	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	free(c);
}

/* `there`: bytes of it that are on the disk already. */
static enum err check_room(const struct spool *s, uint64_t size, uint64_t there, uint64_t disk_free)
{
	uint64_t others = s->bytes - there, missing = size > there ? size - there : 0;
	const struct spool_config *c = &s->config;
	if (c->bytes_max != 0 && (size > c->bytes_max || others > c->bytes_max - size))
		return err_set(ERR_UNAVAILABLE,
			       SPOOL_FULL ": %" PRIu64 " bytes are in it or on their way, spool_bytes_max is %" PRIu64,
			       others, c->bytes_max);
	if (disk_free < c->free_min || disk_free - c->free_min < s->promised ||
	    disk_free - c->free_min - s->promised < missing)
		return err_set(ERR_UNAVAILABLE,
			       SPOOL_FULL ": its disk has %" PRIu64 " bytes left, %" PRIu64
					  " of them promised, and disk_free_min is %" PRIu64,
			       disk_free, s->promised, c->free_min);
	return ERR_OK;
}

static bool has_file(const struct claim *c, const char *tag, uint64_t size)
{
	return c != NULL && c->file > 0 && c->file == size && strcmp(c->file_tag, tag) == 0;
}

enum err spool_claim(struct spool *s, const struct wanted *w, struct claim **ret_claim, bool *ret_whole)
{
	const struct spool_key *key = w->key;
	uint64_t disk_free = UINT64_MAX;
	if (s->config.free_min > 0)
		TRY(dir_free(s->folder, &disk_free));
	pthread_mutex_lock(&s->lock);
	struct claim *c = find(s, key->job, key->round, key->plant);
	bool busy = c != NULL && c->active;
	bool whole = w->offset == w->size && has_file(c, w->tag, w->size);
	/* An .update that this one takes the place of goes first. */
	uint64_t there = c == NULL ? 0 : c->bytes + (c->doubtful ? 0 : c->file);
	enum err err = ERR_OK;
	if (busy)
		err = err_set(ERR_UNAVAILABLE, "an earlier stream of this update has not ended; try again");
	else if (!whole)
		err = check_room(s, w->size, there, disk_free);
	if (err == ERR_OK) {
		if (c == NULL)
			c = add(s, key->job, key->round, key->plant);
		change(s, c, true, whole ? 0 : w->size, c->bytes);
	}
	pthread_mutex_unlock(&s->lock);
	if (err != ERR_OK && !busy)
		log_warn("spool", "job=%" PRIu64 " round=%" PRIu32 " plant=%s: %s", key->job, key->round, key->plant,
			 err_text());
	TRY(err);
	*ret_claim = c;
	*ret_whole = whole;
	return ERR_OK;
}

void spool_claim_part(struct spool *s, const struct spool_name *name, const char *tag, uint64_t bytes)
{
	pthread_mutex_lock(&s->lock);
	struct claim *c = add(s, name->job, name->round, name->plant);
	snprintf(c->tag, sizeof c->tag, "%s", tag);
	change(s, c, false, 0, bytes);
	pthread_mutex_unlock(&s->lock);
}

bool spool_has_part(struct spool *s, const struct spool_name *name)
{
	pthread_mutex_lock(&s->lock);
	bool has = find(s, name->job, name->round, name->plant) != NULL;
	pthread_mutex_unlock(&s->lock);
	return has;
}

void spool_claim_grow(struct spool *s, struct claim *c, uint64_t bytes)
{
	pthread_mutex_lock(&s->lock);
	change(s, c, true, c->size, bytes);
	pthread_mutex_unlock(&s->lock);
}

void spool_claim_retag(struct spool *s, struct claim *c, const char *tag, uint64_t bytes)
{
	pthread_mutex_lock(&s->lock);
	snprintf(c->tag, sizeof c->tag, "%s", tag);
	change(s, c, true, c->size, bytes);
	pthread_mutex_unlock(&s->lock);
}

void spool_claim_settle(struct spool *s, struct claim *c)
{
	pthread_mutex_lock(&s->lock);
	change(s, c, true, 0, 0);
	pthread_mutex_unlock(&s->lock);
}

void spool_claim_file(struct spool *s, struct claim *c)
{
	pthread_mutex_lock(&s->lock);
	memcpy(c->file_tag, c->tag, sizeof c->file_tag);
	c->tag[0] = '\0';
	c->doubtful = false;
	s->bytes += c->bytes;
	c->file = c->bytes;
	change(s, c, true, 0, 0);
	pthread_mutex_unlock(&s->lock);
}

void spool_claim_unfile(struct spool *s, struct claim *c)
{
	pthread_mutex_lock(&s->lock);
	s->bytes -= c->file;
	c->file = 0;
	c->doubtful = false;
	pthread_mutex_unlock(&s->lock);
}

void spool_claim_doubt(struct spool *s, struct claim *c)
{
	pthread_mutex_lock(&s->lock);
	c->doubtful = c->file > 0;
	pthread_mutex_unlock(&s->lock);
}

void spool_claim_end(struct spool *s, struct claim *c, bool part_stays, bool counted)
{
	pthread_mutex_lock(&s->lock);
	/* Its bytes stay where they were counted. */
	c->file = counted ? 0 : c->file;
	if (part_stays || c->file > 0)
		change(s, c, false, 0, part_stays ? c->bytes : 0);
	else
		drop(s, c);
	pthread_mutex_unlock(&s->lock);
}

static bool is_idle(const struct claim *c, uint64_t job, uint32_t round, const char *plant)
{
	return !c->active && c->job == job && c->round <= round &&
	       (plant == NULL || (strcmp(c->plant, plant) == 0 && !c->doubtful));
}

struct claim *spool_claim_idle(struct spool *s, uint64_t job, uint32_t round, const char *plant)
{
	pthread_mutex_lock(&s->lock);
	struct claim *c = s->claims;
	while (c != NULL && !is_idle(c, job, round, plant))
		c = c->next;
	if (c != NULL)
		change(s, c, true, 0, c->bytes);
	pthread_mutex_unlock(&s->lock);
	return c;
}

void spool_count_file(struct spool *s, uint64_t bytes, bool there)
{
	pthread_mutex_lock(&s->lock);
	s->bytes = there ? s->bytes + bytes : s->bytes - (bytes < s->bytes ? bytes : s->bytes);
	pthread_mutex_unlock(&s->lock);
}

uint64_t spool_bytes(struct spool *s)
{
	pthread_mutex_lock(&s->lock);
	uint64_t bytes = s->bytes;
	pthread_mutex_unlock(&s->lock);
	return bytes;
}

enum err spool_check_room(const struct spool *s, uint64_t n, uint64_t bytes)
{
	if (s->config.bytes_max != 0 && bytes != 0 && n > s->config.bytes_max / bytes)
		return err_set(ERR_LIMIT,
			       "%" PRIu64 " updates of %" PRIu64
			       " bytes do not fit into the spool; spool_bytes_max of this coordinator is %" PRIu64,
			       n, bytes, s->config.bytes_max);
	return ERR_OK;
}

uint64_t spool_received(struct spool *s, const struct spool_key *key, const struct digest *digest, uint64_t size)
{
	char tag[SPOOL_TAG_SIZE];
	/* A part of it would be that of a release with another idea of small: open_memory() takes none. */
	if (size <= s->config.small_max)
		return 0;
	spool_tag(digest, tag);
	pthread_mutex_lock(&s->lock);
	const struct claim *c = find(s, key->job, key->round, key->plant);
	bool same = c != NULL && strcmp(c->tag, tag) == 0;
	uint64_t bytes = has_file(c, tag, size) ? size : same && c->bytes <= size ? c->bytes : 0;
	pthread_mutex_unlock(&s->lock);
	return bytes;
}
