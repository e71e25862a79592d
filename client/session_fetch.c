/*
 * A download is kept in PATH.part over cuts and restarts and goes on at its end. What an earlier run left there is read
 * back through the digest, and nothing is believed before the whole has it: a wrong one is thrown away and fetched once
 * more from the beginning.
 */
#include "client/session_parts.h"

#include "base/file.h"
#include "base/log.h"

#include <inttypes.h>
#include <stdlib.h>

enum { READ_SIZE = 1 << 16 };

struct fetch {
	struct session *session;
	const char *part;
	struct digest digest;
	uint64_t size;
	struct file *file;
	struct digester *digester; /* of all that is in the file */
	uint64_t asked;            /* where this try began */
	bool disk_failed;
};

/* This end's own disk: whatever it says, trying again or asking another question does not help. */
static enum err disk(struct fetch *f, enum err err)
{
	if (err == ERR_OK)
		return ERR_OK;
	f->disk_failed = true;
	return err_set(ERR_IO, "%s", err_text());
}

/* ---- the part ---- */

static void part_close(struct fetch *f)
{
	digest_free(f->digester);
	file_close(f->file);
	f->digester = NULL;
	f->file = NULL;
}

static enum err read_back(struct fetch *f)
{
	struct file *file;
	enum err err = file_open_read(f->part, &file);
	if (err != ERR_OK)
		return err;
	uint8_t *piece = mem_array(READ_SIZE, 1);
	uint64_t size = file_offset(f->file);
	for (uint64_t at = 0; err == ERR_OK && at < size;) {
		size_t n = size - at < READ_SIZE ? (size_t)(size - at) : READ_SIZE;
		err = file_read_at(file, at, piece, n);
		if (err == ERR_OK)
			digest_add(f->digester, piece, n);
		at += n;
	}
	free(piece);
	file_close(file);
	return err;
}

/* What an earlier run left, if it can be of use. */
static enum err part_open(struct fetch *f)
{
	TRY(file_append_open(f->part, 0644, &f->file));
	if (file_offset(f->file) > f->size)
		TRY(file_truncate(f->file, 0));
	f->digester = digest_begin();
	enum err err = read_back(f);
	if (err != ERR_OK)
		return err_add(err, "reading back what was received before");
	if (file_offset(f->file) > 0)
		log_info("join", "%" PRIu64 " of %" PRIu64 " bytes of this model are here from before; going on there",
			 file_offset(f->file), f->size);
	return ERR_OK;
}

static enum err part_restart(struct fetch *f)
{
	digest_free(f->digester);
	f->digester = digest_begin();
	return file_truncate(f->file, 0);
}

/* ---- one try ---- */

static enum err take_head(void *arg, const struct wire_head *head)
{
	struct fetch *f = arg;
	if (head->size != f->size || head->offset != f->asked || !digest_equal(&head->digest, &f->digest))
		return err_set(ERR_CORRUPT, "the coordinator sends another model than was asked for");
	return ERR_OK;
}

/* One call for a message: it comes in some dozen stretches. */
static enum err take_data(void *arg, const struct bytes *pieces, size_t n)
{
	struct fetch *f = arg;
	uint64_t at = file_offset(f->file);
	for (size_t i = 0; i < n; at += pieces[i++].n) {
		if (pieces[i].n > f->size - at)
			return err_set(ERR_CORRUPT, "the coordinator sends more than it said");
		digest_add(f->digester, pieces[i].p, pieces[i].n);
	}
	TRY(disk(f, file_writev(f->file, pieces, n)));
	session_show("receiving", file_offset(f->file), f->size);
	return ERR_OK;
}

static enum err receive(struct fetch *f)
{
	struct wire_fetch_request request = {.digest = f->digest, .offset = f->asked};
	struct rpc_sink sink = {.head = take_head, .data = take_data, .arg = f};
	struct buf packed;
	buf_init(&packed, 256);
	enum err err = wire_fetch_request_pack(&request, &packed);
	if (err == ERR_OK)
		err = rpc_client_download(f->session->client, METHOD_FETCH, buf_bytes(&packed), &sink);
	session_show_end(f->size);
	buf_deinit(&packed);
	return err;
}

static enum err try_once(struct fetch *f)
{
	f->asked = file_offset(f->file);
	if (f->asked < f->size)
		TRY(receive(f));
	struct digest got = digest_end(f->digester);
	f->digester = NULL;
	if (file_offset(f->file) != f->size || !digest_equal(&got, &f->digest))
		return err_set(ERR_CORRUPT, "a received model does not have the digest it was announced with");
	return disk(f, file_sync_content(f->file));
}

/* Tries until it is there or the answer is final. */
static enum err get_all(struct fetch *f)
{
	bool again = false;
	for (;;) {
		enum err err = try_once(f);
		if (err == ERR_OK || f->disk_failed)
			return err;
		if (file_offset(f->file) > f->asked)
			backoff_reset(&f->session->backoff);
		if (err == ERR_CORRUPT && !again) {
			log_warn("join", "%s; fetching it once more from the beginning", err_text());
			again = true;
			TRY(disk(f, part_restart(f)));
		} else {
			TRY(session_recover(f->session, err));
		}
	}
}

enum err session_fetch(struct session *s, const struct digest *digest, uint64_t size, const char *path)
{
	char *part = mem_printf("%s" SESSION_PART_SUFFIX, path);
	struct fetch f = {.session = s, .part = part, .digest = *digest, .size = size};
	enum err err = disk(&f, part_open(&f));
	if (err == ERR_OK)
		err = get_all(&f);
	part_close(&f);
	if (err == ERR_OK) {
		backoff_reset(&s->backoff);
		err = disk(&f, file_rename(part, path));
	} else if (err == ERR_CORRUPT) {
		char *text = mem_str(err_text());
		err = file_discard(part) == ERR_OK ? err_set(err, "%s", text) : disk(&f, ERR_IO);
		free(text);
	}
	free(part);
	return err;
}
