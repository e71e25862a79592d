/*
 * The spool: why an acknowledged update cannot be lost, and no update can count twice or by half.
 *
 * The life of one update:
 *
 *	1 begin    JOB-ROUND-PLANT.N.part is created, empty                               nothing durable
 *	2 add      each piece is digested, checked and written, in this order             nothing promised
 *	3 finish   size, norm and digest are compared; then fdatasync: the bytes are
 *	           on disk; then rename to JOB-ROUND-PLANT.update and sync of the
 *	           directory: the name is on disk
 *	4 (engine) the row {job, round, plant, digest, weight} is committed
 *	5 (engine) the receipt goes out
 *
 * A crash after 1, 2 or in 3 leaves a .part, or an .update without a row. Neither was acknowledged; spool_sweep()
 * removes both at the next start, the plant has no receipt and sends again. A crash after 4 leaves file and row:
 * the update counts although the receipt may be lost; the plant asks again and gets the same receipt from the row.
 * So the row is the truth about *whether* an update counts, and because the file's name is durable before the row
 * is written, a row always has its file. The order must not be turned round: a row without a file would be a sealed
 * update that cannot be aggregated.
 *
 * Not by half: a name ending in .update is only ever given by one rename of a file that is complete and synced.
 * Nothing writes to a file under that name.
 *
 * Not twice: the name is a function of the key, so a plant has at most one .update per round; and it is never
 * replaced: finish() refuses when other content has the name, so that the bytes a row was written for stay the
 * bytes it was written for. The same content is welcome and leaves the file alone: that is a plant which sends
 * again because writing its row has failed, in a way that may have succeeded. Two receptions of the same key (a
 * plant that reconnected while its dead connection still lingers) write to different .part files because of the
 * serial number N; with one name for both, the digest of one stream would vouch for a file that another stream
 * writes into. The serial is per process: whatever an earlier process left is swept before the first begin.
 * `naming` makes "is the name taken? take it" one step.
 *
 * If syncing the directory fails after the rename, the update is refused although the name may be there; finish()
 * takes it away again. If that fails too, the disk is broken: a plant that sends other bytes is refused with
 * ERR_DUPLICATE until a restart sweeps the file.
 *
 * Removal needs no promise: a file that comes back after a crash has no row of an open round and is swept.
 *
 * One pass: pieces are cut into blocks that stay in the second-level cache while they are digested, checked and
 * written.
 */
#include "coordinator/spool.h"

#include "crypto/identity.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 128 << 10, NAME_BYTES = 160 };

static const char folder[] = "spool", update_suffix[] = ".update", part_suffix[] = ".part";

static atomic_ulong serial;
static pthread_mutex_t naming = PTHREAD_MUTEX_INITIALIZER;

struct spool_entry {
	struct file *file;      /* owned; NULL once it is closed */
	char *part_path, *path; /* owned */
	bool part_exists;       /* to be removed by abort */
	struct update_check check;
	struct digester *digester; /* owned; NULL once it has ended */
	struct digest digest;      /* announced */
	bool failed;               /* an add was refused: the file may lack what the check has seen */
};

static const char *folder_path(const char *dir, char out[PATH_SIZE])
{
	return path_join(out, dir, folder);
}

static bool is_plant_name(const char *name)
{
	struct identity id;
	return identity_make(ROLE_PLANT, "federation", name, &id) == ERR_OK;
}

const char *spool_path(const char *dir, const struct spool_key *key, char out[PATH_SIZE])
{
	char name[NAME_BYTES], parent[PATH_SIZE];
	ENSURE(is_plant_name(key->plant));
	snprintf(name, sizeof name, "%llu-%lu-%s%s", (unsigned long long)key->job, (unsigned long)key->round,
		 key->plant, update_suffix);
	return path_join(out, folder_path(dir, parent), name);
}

static void entry_free(struct spool_entry *e)
{
	file_close(e->file);
	digest_free(e->digester);
	free(e->part_path);
	free(e->path);
	free(e);
}

enum err spool_begin(const char *dir, const struct spool_key *key, const struct manifest *m, double norm_max,
		     uint64_t size, const struct digest *digest, struct spool_entry **ret_entry)
{
	char path[PATH_SIZE];
	if (!is_plant_name(key->plant))
		return err_set(ERR_LIMIT, "'%.100s' is not the name of a plant", key->plant);
	if (size != manifest_update_bytes(m))
		return err_set(ERR_SHAPE, "the update has %llu bytes, its manifest %zu", (unsigned long long)size,
			       manifest_update_bytes(m));
	/* spool_sweep() has made it. dir_make() alone would sync its parent each time. */
	if (!file_exists(folder_path(dir, path)))
		TRY(dir_make(path, 0700));
	struct spool_entry *e = mem_new(sizeof *e);
	e->path = mem_str(spool_path(dir, key, path));
	e->part_path = mem_printf("%.*s.%lu%s", (int)(strlen(path) - strlen(update_suffix)), path,
				  atomic_fetch_add(&serial, 1), part_suffix);
	enum err err = file_create(e->part_path, 0600, &e->file);
	if (err != ERR_OK) {
		entry_free(e);
		return err;
	}
	e->part_exists = true;
	update_check_init(&e->check, m, norm_max);
	e->digester = digest_begin();
	e->digest = *digest;
	*ret_entry = e;
	return ERR_OK;
}

static enum err add_block(struct spool_entry *e, struct bytes block)
{
	digest_add(e->digester, block.p, block.n);
	TRY(update_check_feed(&e->check, block));
	return file_write(e->file, block.p, block.n);
}

enum err spool_add(struct spool_entry *e, struct bytes piece)
{
	ENSURE(e->file != NULL && !e->failed);
	while (piece.n > 0) {
		size_t n = piece.n < BLOCK ? piece.n : BLOCK;
		enum err err = add_block(e, bytes_of(piece.p, n));
		e->failed = err != ERR_OK;
		TRY(err);
		piece = bytes_of(piece.p + n, piece.n - n);
	}
	return ERR_OK;
}

uint64_t spool_received(const struct spool_entry *e)
{
	return e->file != NULL ? file_offset(e->file) : 0;
}

/* Best effort, after a failure: its text stays. */
static void remove_quietly(const char *path)
{
	char *text = mem_str(err_text());
	enum err unused = file_remove(path);
	err_set(unused, "%s", text);
	free(text);
}

/* The name is taken. By this very content: then it stays, and this copy goes (which syncs the directory for both). */
static enum err leave_name(struct spool_entry *e)
{
	struct digest there;
	TRY(digest_file(e->path, &there, NULL));
	if (!digest_equal(&there, &e->digest))
		return err_set(ERR_DUPLICATE, "there is another update of this plant for this round already");
	return file_remove(e->part_path);
}

static enum err take_name(struct spool_entry *e)
{
	enum err err = file_rename(e->part_path, e->path);
	/* The rename may have happened, and only its sync failed. */
	if (err != ERR_OK && !file_exists(e->part_path))
		remove_quietly(e->path);
	return err;
}

static enum err give_name(struct spool_entry *e)
{
	pthread_mutex_lock(&naming);
	enum err err = file_exists(e->path) ? leave_name(e) : take_name(e);
	pthread_mutex_unlock(&naming);
	return err;
}

static enum err finish(struct spool_entry *e, double *ret_norm)
{
	double norm;
	TRY(update_check_end(&e->check, &norm));
	struct digest got = digest_end(e->digester);
	e->digester = NULL;
	if (!digest_equal(&got, &e->digest))
		return err_set(ERR_MALFORMED, "the update's SHA-256 is not the one that was announced");
	TRY(file_sync(e->file));
	TRY(give_name(e));
	*ret_norm = norm;
	return ERR_OK;
}

enum err spool_finish(struct spool_entry *e, double *ret_norm)
{
	ENSURE(e->digester != NULL && !e->failed);
	enum err err = finish(e, ret_norm);
	file_close(e->file);
	e->file = NULL;
	if (err != ERR_OK)
		remove_quietly(e->part_path);
	e->part_exists = false;
	return err;
}

void spool_abort(struct spool_entry *e)
{
	if (e == NULL)
		return;
	if (e->part_exists)
		remove_quietly(e->part_path);
	entry_free(e);
}

void spool_free(struct spool_entry *e)
{
	ENSURE(!e->part_exists);
	entry_free(e);
}

enum err spool_remove(const char *dir, const struct spool_key *key)
{
	char path[PATH_SIZE];
	return file_remove(spool_path(dir, key, path));
}

/* "JOB-ROUND-PLANT" and the suffix, exactly as spool_path() writes them. The plant points into `name_copy`. */
static bool parse_update_name(char *name_copy, struct spool_key *ret_key)
{
	char *suffix = strrchr(name_copy, '.'), again[NAME_BYTES], *end;
	if (suffix == NULL || strcmp(suffix, update_suffix) != 0)
		return false;
	*suffix = '\0';
	unsigned long long job = strtoull(name_copy, &end, 10);
	unsigned long round = *end == '-' ? strtoul(end + 1, &end, 10) : 0;
	if (*end != '-' || round > UINT32_MAX || !is_plant_name(end + 1))
		return false;
	snprintf(again, sizeof again, "%llu-%lu-%s", job, round, end + 1);
	*ret_key = (struct spool_key){.job = job, .round = (uint32_t)round, .plant = end + 1};
	return strcmp(again, name_copy) == 0;
}

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), k = strlen(end);
	return n >= k && strcmp(s + n - k, end) == 0;
}

struct sweep {
	char dir[PATH_SIZE]; /* DIR/spool */
	bool parts;          /* remove what is being received, too */
	bool (*known)(void *arg, const struct spool_key *key);
	void *arg;
};

static enum err sweep_one(void *arg, const char *name)
{
	struct sweep *s = arg;
	struct spool_key key;
	char path[PATH_SIZE];
	char *copy = mem_str(name);
	bool leftover =
		parse_update_name(copy, &key) ? !s->known(s->arg, &key) : s->parts && ends_with(name, part_suffix);
	free(copy);
	return leftover ? file_remove(path_join(path, s->dir, name)) : ERR_OK;
}

struct round_id {
	uint64_t job;
	uint32_t round;
};

static bool of_other_round(void *arg, const struct spool_key *key)
{
	const struct round_id *id = arg;
	return key->job != id->job || key->round != id->round;
}

enum err spool_remove_round(const char *dir, uint64_t job, uint32_t round)
{
	struct round_id id = {job, round};
	struct sweep s = {.known = of_other_round, .arg = &id};
	folder_path(dir, s.dir);
	return file_exists(s.dir) ? dir_each(s.dir, sweep_one, &s) : ERR_OK;
}

enum err spool_sweep(const char *dir, bool (*known)(void *arg, const struct spool_key *key), void *arg)
{
	struct sweep s = {.parts = true, .known = known, .arg = arg};
	TRY(dir_make(folder_path(dir, s.dir), 0700));
	return dir_each(s.dir, sweep_one, &s);
}
