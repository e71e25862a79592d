#include "client/inuse.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "client/report.h"
#include "ml/safetensors.h"

#include <stdlib.h>
#include <string.h>

enum { RECORD_MAX = 64 << 10 };

struct inuse {
	char *dir;
	const struct dataset *heldout;
	bool exists;  /* there is a model that can be compared with */
	bool foreign; /* there is one for other classes or of another shape */
	struct metrics score;
	char *origin;
};

/* A record of another model (this program or the machine died between the two files, or somebody put a model here) says
 * nothing about the one that lies here. */
static void read_origin(struct inuse *u, const struct digest *model)
{
	char path[PATH_SIZE], theirs[DIGEST_TEXT_SIZE];
	struct buf text;
	struct json *v;
	const char *origin, *sha256;
	free(u->origin);
	u->origin = mem_str(INUSE_UNKNOWN);
	digest_format(model, theirs);
	if (file_read(path_join(path, u->dir, "model.json"), RECORD_MAX, &text) != ERR_OK)
		return;
	if (json_parse(buf_bytes(&text), &v) == ERR_OK) {
		if (json_get_str(json_get(v, "sha256"), &sha256) && strcmp(sha256, theirs) == 0 &&
		    json_get_str(json_get(v, "origin"), &origin)) {
			free(u->origin);
			u->origin = mem_str(origin);
		}
		json_free(v);
	}
	buf_deinit(&text);
}

enum err inuse_open(const char *state_dir, const struct model *like, const struct dataset *heldout,
		    struct inuse **ret_inuse)
{
	char path[PATH_SIZE];
	struct inuse *u = mem_new(sizeof *u);
	u->dir = mem_str(state_dir);
	u->heldout = heldout;
	u->origin = mem_str("");
	path_join(path, state_dir, "model.safetensors");
	if (file_exists(path)) {
		struct model *m = NULL;
		struct digest digest;
		enum err err = safetensors_load(path, &m);
		if (err == ERR_OK)
			err = digest_file(path, &digest, NULL);
		if (err == ERR_OK && model_same(m, like)) {
			err = evaluate(m, heldout, &u->score);
			u->exists = true;
			read_origin(u, &digest);
		} else if (err == ERR_OK) {
			u->foreign = true;
		}
		model_free(m);
		if (err != ERR_OK) {
			inuse_close(u);
			return err;
		}
	}
	*ret_inuse = u;
	return ERR_OK;
}

void inuse_close(struct inuse *u)
{
	if (u == NULL)
		return;
	free(u->dir);
	free(u->origin);
	free(u);
}

static enum err write_record(const struct inuse *u, const char *origin, const struct metrics *score,
			     const struct digest *digest)
{
	char path[PATH_SIZE], text[DIGEST_TEXT_SIZE], when[CLOCK_TEXT_SIZE];
	struct json *v = json_map();
	struct buf out;
	json_put(v, "origin", json_str(origin));
	json_put(v, "sha256", json_str(digest_format(digest, text)));
	json_put(v, "heldout", report_metrics(score));
	json_put(v, "since", json_str(clock_format(clock_wall_ms(), when)));
	buf_init(&out, RECORD_MAX);
	enum err err = json_write_pretty(v, &out);
	if (err == ERR_OK)
		err = file_replace(path_join(path, u->dir, "model.json"), buf_bytes(&out), 0600);
	buf_deinit(&out);
	json_free(v);
	return err;
}

static enum err put_in_place(const char *path, const struct model *m, const struct inuse_file *file,
			     struct digest *ret_digest)
{
	if (file == NULL) {
		TRY(safetensors_save(path, m, NULL));
		return digest_file(path, ret_digest, NULL);
	}
	TRY(file_link(file->path, path));
	*ret_digest = file->digest;
	return ERR_OK;
}

enum err inuse_offer(struct inuse *u, struct model *candidate, const struct inuse_file *file, const char *origin,
		     bool *ret_taken, struct metrics *ret_score)
{
	char path[PATH_SIZE], previous[PATH_SIZE];
	struct metrics score;
	TRY(evaluate(candidate, u->heldout, &score));
	if (u->exists && score.n > 0 && !metrics_not_worse(&score, &u->score)) {
		*ret_score = score;
		*ret_taken = false;
		return ERR_OK;
	}
	path_join(path, u->dir, "model.safetensors");
	if (u->foreign) {
		log_warn("model",
			 "the model in use was for other classes or of another shape; it is kept as "
			 "%s/model.previous.safetensors",
			 u->dir);
		/* A copy: at no moment is there no model in use. */
		TRY(file_copy(path, path_join(previous, u->dir, "model.previous.safetensors"), 0600));
	}
	struct digest digest;
	TRY(put_in_place(path, candidate, file, &digest));
	u->foreign = false;
	TRY(write_record(u, origin, &score, &digest));
	free(u->origin);
	u->origin = mem_str(origin);
	u->score = score;
	u->exists = true;
	*ret_score = score;
	*ret_taken = true;
	return ERR_OK;
}

const char *inuse_origin(const struct inuse *u)
{
	return u->origin;
}

const struct metrics *inuse_score(const struct inuse *u)
{
	return &u->score;
}
