/*
 * The store: why a name is a promise.
 *
 * A model is known by the SHA-256 of its file, in the database, in the log and on the wire, and its file is called
 * by it. So there is nothing to keep in step: a name that exists is the model, whoever wrote it and when. What has
 * to be shown is only that no crash leaves such a name on something else.
 *
 *	1  NAME.part is written, by aggregate.c or from     a leftover if we die here: swept by
 *	   an upload                                        store_open()
 *	2  store_adopt() computes its digest from the       not from what the writer thinks it wrote
 *	   file itself
 *	3  fdatasync                                        the bytes are durable, under NAME.part
 *	4  rename to SHA256.safetensors, sync of the        the name is durable
 *	   directory
 *	5  the caller writes the digest to the database     from here on somebody may ask for it
 *
 * store_take() leaves 2 and 3 to a writer that has done both on the very bytes that it wrote (aggregate.c): what 2 would
 * find out about them is whether the page cache holds what was put into it a moment ago.
 *
 * A crash before 4 leaves a .part. A crash between 4 and 5 leaves a model that nobody asks for: it is kept, because
 * the action that made it is done again and gives the same bytes (see round.c), hence the same name. Renaming over
 * an existing model is therefore harmless, and it mends one that a disk has damaged meanwhile; who has the old file
 * mapped keeps the old bytes.
 *
 * Nothing is written to a file under its final name, and nothing is removed: how long models are kept is the
 * engine's decision, not the store's.
 *
 * Mapping. Many plants fetch the same model at the same time, for hours, at their own speed. One mapping for all of
 * them costs one model's worth of page cache, which the kernel may take back at any time; a buffer for each would
 * cost one model per plant. The list holds what is mapped now: two or three models, so a list it is. Files are
 * opened and mapped outside the lock; who comes second with the same model drops his mapping again.
 */
#include "coordinator/store.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char folder[] = "models", model_suffix[] = ".safetensors", part_suffix[] = ".part";

struct store_model {
	struct store_model *next; /* under the store's lock */
	size_t users;             /* under the store's lock */
	struct digest digest;
	struct file_map map; /* owned */
};

struct store {
	char *dir; /* owned: DIR/models */
	pthread_mutex_t lock;
	struct store_model *models; /* under the lock; owned: those mapped now */
};

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), k = strlen(end);
	return n >= k && strcmp(s + n - k, end) == 0;
}

/* Files that are not named like ours are left alone. */
static enum err sweep_one(void *arg, const char *name)
{
	char path[PATH_SIZE];
	return ends_with(name, part_suffix) ? file_remove(path_join(path, arg, name)) : ERR_OK;
}

enum err store_open(const char *dir, struct store **ret_store)
{
	char path[PATH_SIZE];
	path_join(path, dir, folder);
	TRY(dir_make(path, 0700));
	TRY(dir_each(path, sweep_one, path));
	struct store *s = mem_new(sizeof *s);
	s->dir = mem_str(path);
	ENSURE(pthread_mutex_init(&s->lock, NULL) == 0);
	*ret_store = s;
	return ERR_OK;
}

void store_close(struct store *s)
{
	if (s == NULL)
		return;
	ENSURE(s->models == NULL);
	pthread_mutex_destroy(&s->lock);
	free(s->dir);
	free(s);
}

const char *store_path(const struct store *s, const struct digest *d, char out[PATH_SIZE])
{
	char name[DIGEST_TEXT_SIZE + sizeof model_suffix], text[DIGEST_TEXT_SIZE];
	snprintf(name, sizeof name, "%s%s", digest_format(d, text), model_suffix);
	return path_join(out, s->dir, name);
}

bool store_has(const struct store *s, const struct digest *d, uint64_t *ret_size)
{
	char path[PATH_SIZE];
	uint64_t size;
	if (file_size(store_path(s, d, path), &size) != ERR_OK)
		return false;
	if (ret_size != NULL)
		*ret_size = size;
	return true;
}

const char *store_temp_path(const struct store *s, const char *name, char out[PATH_SIZE])
{
	ENSURE(name[0] != '\0' && strchr(name, '/') == NULL && name[0] != '.');
	char *file = mem_printf("%s%s", name, part_suffix);
	path_join(out, s->dir, file);
	free(file);
	return out;
}

/* Whoever wrote it may have synced it already; that makes this one cheap. */
static enum err sync_content(const char *path)
{
	struct file *f;
	TRY(file_append_open(path, 0600, &f));
	enum err e = file_sync(f);
	file_close(f);
	return e;
}

/* A leftover, should this fail, too; the first error is the one to tell. */
static void remove_quietly(const char *path)
{
	char *text = mem_str(err_text());
	enum err unused = file_remove(path);
	err_set(unused, "%s", text);
	free(text);
}

static enum err adopt(struct store *s, const char *temp_path, const struct digest *expected, struct digest *ret_digest,
		      uint64_t *ret_size)
{
	struct digest got;
	uint64_t size;
	char path[PATH_SIZE], text[DIGEST_TEXT_SIZE], want[DIGEST_TEXT_SIZE];
	TRY(digest_file(temp_path, &got, &size));
	if (expected != NULL && !digest_equal(&got, expected))
		return err_set(ERR_CORRUPT, "%s: has SHA-256 %s instead of %s", temp_path, digest_format(&got, text),
			       digest_format(expected, want));
	TRY(sync_content(temp_path));
	TRY(file_rename(temp_path, store_path(s, &got, path)));
	*ret_digest = got;
	*ret_size = size;
	return ERR_OK;
}

enum err store_adopt(struct store *s, const char *temp_path, const struct digest *expected, struct digest *ret_digest,
		     uint64_t *ret_size)
{
	enum err e = adopt(s, temp_path, expected, ret_digest, ret_size);
	if (e != ERR_OK)
		remove_quietly(temp_path);
	return e;
}

enum err store_take(struct store *s, const char *temp_path, const struct digest *d)
{
	char path[PATH_SIZE];
	enum err e = file_rename(temp_path, store_path(s, d, path));
	if (e != ERR_OK)
		remove_quietly(temp_path);
	return e;
}

/* Under the lock. */
static struct store_model *find(struct store *s, const struct digest *d)
{
	for (struct store_model *m = s->models; m != NULL; m = m->next) {
		if (digest_equal(&m->digest, d))
			return m;
	}
	return NULL;
}

static struct store_model *use(struct store *s, const struct digest *d)
{
	pthread_mutex_lock(&s->lock);
	struct store_model *m = find(s, d);
	if (m != NULL)
		m->users++;
	pthread_mutex_unlock(&s->lock);
	return m;
}

static void model_free(struct store_model *m)
{
	file_unmap(&m->map);
	free(m);
}

/* `mine` joins the list, unless somebody else has been faster. */
static struct store_model *join(struct store *s, struct store_model *mine)
{
	pthread_mutex_lock(&s->lock);
	struct store_model *m = find(s, &mine->digest);
	if (m == NULL) {
		mine->next = s->models;
		s->models = m = mine;
	}
	m->users++;
	pthread_mutex_unlock(&s->lock);
	if (m != mine)
		model_free(mine);
	return m;
}

enum err store_acquire(struct store *s, const struct digest *d, struct store_model **ret_model)
{
	struct store_model *m = use(s, d);
	if (m == NULL) {
		char path[PATH_SIZE];
		struct file_map map;
		TRY(file_map(store_path(s, d, path), &map));
		m = mem_new(sizeof *m);
		*m = (struct store_model){.digest = *d, .map = map};
		m = join(s, m);
	}
	*ret_model = m;
	return ERR_OK;
}

struct bytes store_content(const struct store_model *m)
{
	return m->map.content;
}

void store_release(struct store *s, struct store_model *m)
{
	if (m == NULL)
		return;
	pthread_mutex_lock(&s->lock);
	ENSURE(m->users > 0);
	bool last = --m->users == 0;
	if (last) {
		struct store_model **link = &s->models;
		while (*link != m)
			link = &(*link)->next;
		*link = m->next;
	}
	pthread_mutex_unlock(&s->lock);
	if (last)
		model_free(m);
}
