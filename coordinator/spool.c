/*
 * The spool: why an acknowledged update cannot be lost, no update can count twice or by half, and a cut one need not begin again.
 *
 * The row {job, round, plant, base_round, digest, place} is the truth about *whether* an update counts and about where its bytes are. All
 * that follows serves one order: an update's bytes are on disk before its row is written, its row is on disk before the receipt goes out,
 * and bytes that a row may speak of are neither changed nor removed until the round no longer needs them.
 *
 *	large                                             small (at most SPOOL_SMALL_MAX)                      durable
 *	-----------------------------------------------   --------------------------------------------------   ---------------------
 *	1 begin   JOB-ROUND-PLANT.DIGEST16.part           room in memory                                       nothing
 *	2 add     each message is digested, checked and   digested, checked, copied                            nothing promised: what
 *	          written with one call; every 8 MiB                                                           a part holds after a
 *	          their way to the disk begins                                                                 crash is a rumour
 *	3 finish  size, norm and digest compared;         size, norm and digest compared                       large: bytes and name
 *	          fdatasync; rename to .update; sync of                                                        small: nothing
 *	          the directory
 *	4 group   (with others: ledger.c)                 appended to JOB-ROUND.batch; one sync for all        small: bytes and place
 *	5 group   one transaction with all rows of the group (ledger.c, db_update.c)                           the rows
 *	6         the round is told, the receipt goes out
 *
 * A crash before 5 leaves bytes without a row: nobody was promised anything, the plant has no receipt and sends again. An .update of that
 * kind is swept at the next start; bytes in a batch stay as a gap until the batch goes with its round. A crash after 5 leaves bytes and
 * row: the update counts although the receipt may be lost, and the plant that asks again gets it from the row. A row without its bytes
 * would be a sealed update that cannot be aggregated: the order excludes it, and run_load() strikes off what a damaged disk makes of it
 * while the round is open.
 *
 * Not by half. A name ending in .update is only ever given by one rename of a file that is complete and synced, and nothing writes to a
 * file of that name. A place in a batch is written into a row only after the sync that covers it, and batches only grow (spool_batch.c).
 *
 * Not twice. Rows are unique per (job, base round, plant) and per (job, round, plant). Beyond that, an .update's name is a function of
 * the key and is never replaced: finish() refuses when other content has it, so that the bytes a row was written for stay those bytes.
 * The same content is welcome and leaves the file alone: that is a plant which sends again because writing its row has failed. For a
 * commit that fails may have succeeded: the row may be there after the next crash. Therefore neither the .update nor the bytes in the
 * batch are touched when a group's transaction fails; only a refusal of the row itself (the round was not open any more, another update
 * counts) says that there is none, and lets an .update of this reception go. Such a file is doubtful (spool_doubt()) until its round is over:
 * other bytes do not take its place. A small update that is sent again after such a failure is
 * appended once more, behind the first: whichever row there is in the end speaks of whole, synced bytes.
 *
 * Whole, and not counted. An update may be complete at a moment when no round takes it. Its .update stays like a part: the plant that tries
 * again is told that all of it is there, and what is read back from its beginning to its end is all that comes. As long as no transaction has
 * heard of it, it can go like a part, too: for other bytes of its plant, or when it can count nowhere any more.
 *
 * Two receptions of one key, of a plant that reconnects while its dead connection lingers, say: a key is claimed while it is received
 * (spool_room.c), and the second is told to try again. So one part has one writer, "is the name taken? take it" needs no lock, and no
 * stream's digest can vouch for what another has written. A plant that comes with other bytes than those of the part it left behind
 * (it has learned anew) gives that part up, and so does one that begins an update of another round of the job: a plant leaves one part behind
 * in a job, and cannot fill the spool with them.
 *
 * Going on. A part survives its stream and the coordinator, but it is never trusted: when a stream goes on, all that is there is read back
 * through digest and check, as if it came from the plant, and only the digest of the whole makes it an update. After a crash of the machine
 * the part may have lost its end: then the plant is told the smaller offset, or none. It may hold garbage where its end was: then the check
 * refuses what is read back, or the digest at the end is another. Neither is the plant's fault; the part goes, the answer is "try again",
 * and the plant begins at 0. Bytes that came in one stream from 0 are judged as the plant's own. A failed sync spoils a part, too: the
 * kernel may have dropped what it could not write and show it all the same, so finish() removes it. A failed write does not: what has been
 * written is a beginning like any other, and goes on once there is room.
 *
 * The digest's 16 digits in the name are for finding the part again, not for trust.
 *
 * If syncing the directory fails after the rename, the update is refused although the name may be there; finish() takes it away again. If
 * that fails too, the disk is broken: a plant that sends other bytes is refused with ERR_DUPLICATE until a restart sweeps the file; the same
 * bytes are welcome, and leave_name() syncs the directory before they count.
 *
 * Removal needs no promise: a file that comes back after a crash has no row that needs it and is swept.
 *
 * One pass: pieces are cut into blocks that stay in the second-level cache while they are digested and checked; the kernel copies a message
 * once, from where gRPC has put it into the page cache.
 */
#include "coordinator/spool_parts.h"

#include "base/log.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 128 << 10, FLUSH = 8 << 20 };

static void entry_free(struct spool_entry *e)
{
	file_close(e->file);
	digest_free(e->digester);
	free(e->part_path);
	free(e->memory);
	free(e);
}

/* ---- the content ---- */

static enum err take(struct spool_entry *e, struct bytes piece)
{
	while (piece.n > 0) {
		size_t n = piece.n < BLOCK ? piece.n : BLOCK;
		digest_add(e->digester, piece.p, n);
		TRY(update_check_feed(&e->check, bytes_of(piece.p, n)));
		piece = bytes_of(piece.p + n, piece.n - n);
	}
	return ERR_OK;
}

/* What is there was not as it was sent, or cannot be told from that: it goes, and the plant begins again. */
static enum err disown(struct spool_entry *e)
{
	log_warn("spool", "job=%" PRIu64 " round=%" PRIu32 " plant=%s: what was there of a cut update is damaged: %s",
		 e->claim->job, e->claim->round, e->claim->plant, err_text());
	e->spoilt = true;
	return err_set(ERR_UNAVAILABLE, "what was here of this update is damaged; send it again from its beginning");
}

static enum err refuse(struct spool_entry *e, enum err err)
{
	e->failed = e->spoilt = true;
	return e->resumed ? disown(e) : err;
}

/* What an earlier stream has brought, once more through digest and check. */
static enum err read_back(struct spool_entry *e, uint64_t offset)
{
	uint8_t *block = mem_new(BLOCK);
	enum err err = ERR_OK;
	for (uint64_t at = 0; err == ERR_OK && at < offset;) {
		size_t n = offset - at < BLOCK ? (size_t)(offset - at) : BLOCK;
		err = file_read_at(e->file, at, block, n);
		if (err == ERR_OK)
			err = take(e, bytes_of(block, n));
		at += n;
	}
	free(block);
	return err == ERR_OK ? ERR_OK : disown(e);
}

/* ---- beginning ---- */

static void remove_file(struct spool *s, struct claim *c)
{
	char path[PATH_SIZE];
	if (c->file == 0)
		return;
	spool_discard(spool_file_path(s, c, path));
	spool_claim_unfile(s, c);
}

/* The .update that no row can speak of. */
static void discard_file(struct spool *s, struct claim *c)
{
	if (!c->doubtful)
		remove_file(s, c);
}

/* The part of this digest, with `offset` bytes in it. */
static enum err open_part(struct spool_entry *e, uint64_t offset)
{
	char tag[SPOOL_TAG_SIZE], path[PATH_SIZE];
	struct claim *c = e->claim;
	spool_tag(&e->digest, tag);
	bool same = strcmp(c->tag, tag) == 0;
	uint64_t there = same ? c->bytes : 0;
	if (offset > there)
		return err_set(ERR_UNAVAILABLE,
			       "%" PRIu64 " bytes of this update are here, not %" PRIu64 "; ask again where to go on",
			       there, offset);
	if (!same && c->tag[0] != '\0')
		TRY(file_discard(spool_part_path(e->spool, c, path)));
	if (!same)
		spool_claim_retag(e->spool, c, tag, 0);
	e->part_path = mem_str(spool_part_path(e->spool, c, path));
	if (offset == 0) {
		TRY(file_create(e->part_path, 0600, &e->file));
	} else {
		TRY(file_append_open(e->part_path, 0600, &e->file));
		e->part_exists = true;
		if (file_offset(e->file) < offset) {
			err_set(ERR_CORRUPT, "%s: is shorter than it was", e->part_path);
			return disown(e);
		}
		TRY(file_truncate(e->file, offset));
	}
	e->part_exists = true;
	spool_claim_grow(e->spool, c, offset);
	e->flushed = offset;
	e->resumed = offset > 0;
	return read_back(e, offset);
}

/* All of it is there: what is missing is that it counts. */
static enum err open_whole(struct spool_entry *e)
{
	char path[PATH_SIZE];
	struct claim *c = e->claim;
	e->whole = e->resumed = true;
	if (c->bytes > 0) {
		spool_discard(spool_part_path(e->spool, c, path));
		spool_claim_retag(e->spool, c, "", 0);
	}
	enum err err = file_open_read(spool_file_path(e->spool, c, path), &e->file);
	if (err == ERR_OK && file_offset(e->file) != e->size)
		err = err_set(ERR_NOT_FOUND, "%s: has another size than it had", path);
	if (err == ERR_NOT_FOUND)
		return disown(e);
	TRY(err);
	return read_back(e, e->size);
}

static enum err open_memory(struct spool_entry *e, uint64_t offset)
{
	char path[PATH_SIZE];
	if (offset > 0)
		return err_set(ERR_UNAVAILABLE, "nothing of this update is here; send it from its beginning");
	/* Left by a release that had another idea of small. */
	if (e->claim->bytes > 0) {
		spool_discard(spool_part_path(e->spool, e->claim, path));
		spool_claim_retag(e->spool, e->claim, "", 0);
	}
	e->memory = mem_new((size_t)e->size);
	return ERR_OK;
}

enum err spool_begin(struct spool *s, const struct spool_key *key, const struct manifest *m, double norm_max,
		     uint64_t size, const struct digest *digest, uint64_t offset, struct spool_entry **ret_entry)
{
	struct claim *c;
	if (!spool_is_plant(key->plant))
		return err_set(ERR_LIMIT, "'%.100s' is not the name of a plant", key->plant);
	if (size != manifest_update_bytes(m))
		return err_set(ERR_SHAPE, "the update has %" PRIu64 " bytes, its manifest %zu", size,
			       manifest_update_bytes(m));
	bool whole;
	char tag[SPOOL_TAG_SIZE];
	spool_tag(digest, tag);
	TRY(spool_claim(s, &(struct wanted){.key = key, .tag = tag, .size = size, .offset = offset}, &c, &whole));
	/* A plant sends one update at a time: what it left behind before, of this round or another, it has given up. */
	spool_remove_idle(s, key->job, UINT32_MAX, key->plant);
	if (!whole)
		discard_file(s, c);
	struct spool_entry *e = mem_new(sizeof *e);
	*e = (struct spool_entry){.spool = s, .claim = c, .digest = *digest, .size = size, .digester = digest_begin()};
	update_check_init(&e->check, m, norm_max);
	enum err err = whole                         ? open_whole(e)
		       : size <= s->config.small_max ? open_memory(e, offset)
						     : open_part(e, offset);
	if (err != ERR_OK) {
		e->failed = true;
		/* What an earlier stream has brought stays for the next, unless it is what was wrong. */
		e->part_exists |= c->bytes > 0;
		spool_suspend(e);
		return err;
	}
	*ret_entry = e;
	return ERR_OK;
}

/* ---- the pieces ---- */

static void keep(struct spool_entry *e, const struct bytes *pieces, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (pieces[i].n == 0)
			continue;
		ENSURE(pieces[i].n <= e->size - e->n_memory);
		memcpy(e->memory + e->n_memory, pieces[i].p, pieces[i].n);
		e->n_memory += pieces[i].n;
	}
}

static enum err write_out(struct spool_entry *e, const struct bytes *pieces, size_t n)
{
	enum err err = file_writev(e->file, pieces, n);
	spool_claim_grow(e->spool, e->claim, file_offset(e->file));
	e->failed = err != ERR_OK;
	if (err == ERR_OK && file_offset(e->file) - e->flushed >= FLUSH) {
		file_flush(e->file);
		e->flushed = file_offset(e->file);
	}
	return err;
}

enum err spool_add(struct spool_entry *e, const struct bytes *pieces, size_t n)
{
	ENSURE(!e->finished && !e->failed);
	for (size_t i = 0; i < n; i++) {
		enum err err = take(e, pieces[i]);
		if (err != ERR_OK)
			return refuse(e, err);
	}
	if (e->memory != NULL)
		keep(e, pieces, n);
	/* Of a whole one these are messages without content: more has just been refused. */
	return e->memory == NULL && !e->whole ? write_out(e, pieces, n) : ERR_OK;
}

/* ---- the end ---- */

/* The name is taken. By this very content: then it stays, and this copy goes (which syncs the directory for both). */
static enum err leave_name(struct spool_entry *e, const char *path)
{
	struct digest there;
	TRY(digest_file(path, &there, NULL));
	if (!digest_equal(&there, &e->digest))
		return err_set(ERR_DUPLICATE, "there is another update of this plant for this round already");
	return file_remove(e->part_path);
}

static enum err take_name(struct spool_entry *e, const char *path)
{
	enum err err = file_rename(e->part_path, path);
	if (err == ERR_OK)
		spool_claim_file(e->spool, e->claim);
	/* The rename may have happened, and only its sync failed. */
	if (err != ERR_OK && !file_exists(e->part_path)) {
		e->part_exists = false;
		spool_discard(path);
	}
	return err;
}

static enum err check_content(struct spool_entry *e, double *ret_norm)
{
	double norm = 0;
	struct digest got = digest_end(e->digester);
	e->digester = NULL;
	enum err err = update_check_end(&e->check, &norm);
	bool same = digest_equal(&got, &e->digest);
	if (err == ERR_OK && !same)
		err = err_set(ERR_MALFORMED, "the update's SHA-256 is not the one that was announced");
	/* The announced bytes are the plant's own, however they came here. */
	e->resumed &= !same;
	if (err != ERR_OK)
		return refuse(e, err);
	*ret_norm = norm;
	return ERR_OK;
}

static enum err store(struct spool_entry *e)
{
	char path[PATH_SIZE];
	struct spool_key key = {e->claim->job, e->claim->round, e->claim->plant};
	TRY(file_sync_content(e->file));
	file_close(e->file);
	e->file = NULL;
	spool_path(e->spool, &key, path);
	return file_exists(path) ? leave_name(e, path) : take_name(e, path);
}

enum err spool_finish(struct spool_entry *e, double *ret_norm)
{
	double norm = 0;
	ENSURE(!e->finished && !e->failed);
	enum err err = check_content(e, &norm);
	if (err == ERR_OK && e->memory == NULL && !e->whole)
		err = store(e);
	e->failed = e->spoilt = err != ERR_OK;
	TRY(err);
	e->part_exists = false;
	e->finished = true;
	*ret_norm = norm;
	return ERR_OK;
}

bool spool_is_small(const struct spool_entry *e)
{
	return e->memory != NULL;
}

enum ending { END_SUSPENDED, END_ABORTED, END_COUNTED };

static void end(struct spool_entry *e, enum ending how)
{
	char path[PATH_SIZE];
	bool stays = how == END_SUSPENDED && e->part_exists && !e->spoilt && e->claim->bytes > 0;
	if (e->part_exists && !stays)
		spool_discard(spool_part_path(e->spool, e->claim, path));
	/* A damaged one is of no use to any row. */
	if (e->whole && e->spoilt)
		remove_file(e->spool, e->claim);
	if (how == END_ABORTED && (e->finished || e->whole))
		discard_file(e->spool, e->claim);
	spool_claim_end(e->spool, e->claim, stays, how == END_COUNTED);
	entry_free(e);
}

void spool_suspend(struct spool_entry *e)
{
	if (e != NULL)
		end(e, END_SUSPENDED);
}

void spool_abort(struct spool_entry *e)
{
	if (e != NULL)
		end(e, END_ABORTED);
}

void spool_doubt(struct spool_entry *e)
{
	ENSURE(e->finished);
	spool_claim_doubt(e->spool, e->claim);
	end(e, END_SUSPENDED);
}

void spool_free(struct spool_entry *e)
{
	ENSURE(e->finished);
	end(e, END_COUNTED);
}
