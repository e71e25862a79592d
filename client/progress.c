#include "client/progress.h"

#include "base/file.h"
#include "base/log.h"

enum { RECORD_MAX = 64 << 10 };

static void take(const struct json *v, const char *key, uint64_t *value)
{
	int64_t n;
	if (json_get_int(json_get(v, key), &n) && n > 0)
		*value = (uint64_t)n;
}

void progress_read(struct progress *p, const char *state_dir)
{
	char path[PATH_SIZE];
	struct buf text = {0};
	struct json *v = NULL;
	*p = (struct progress){.state_dir = state_dir};
	if (!file_exists(path_join(path, state_dir, "progress.json")))
		return;
	enum err err = file_read(path, RECORD_MAX, &text);
	if (err == ERR_OK)
		err = json_parse(buf_bytes(&text), &v);
	if (err == ERR_OK) {
		take(v, "finished_job", &p->finished_job);
		take(v, "finished_ends", &p->finished_ends);
		take(v, "bytes_up", &p->sent_before);
		take(v, "bytes_down", &p->received_before);
		p->finished_ends = p->finished_ends <= UINT32_MAX ? p->finished_ends : 0;
	} else {
		log_warn("join", "%s: not readable (%s); starting a new one", path, err_text());
	}
	json_free(v);
	buf_deinit(&text);
}

enum err progress_write(const struct progress *p, const char *plant, const struct session *session, struct json *last)
{
	char path[PATH_SIZE];
	uint64_t sent, received;
	struct buf out;
	session_get_bytes(session, &sent, &received);
	struct json *v = json_map();
	json_put(v, "plant", json_str(plant));
	json_put(v, "finished_job", json_int((int64_t)p->finished_job));
	json_put(v, "finished_ends", json_int((int64_t)p->finished_ends));
	json_put(v, "bytes_up", json_int((int64_t)(p->sent_before + sent)));
	json_put(v, "bytes_down", json_int((int64_t)(p->received_before + received)));
	if (last != NULL)
		json_put(v, "last", last);
	buf_init(&out, RECORD_MAX);
	enum err err = json_write_pretty(v, &out);
	if (err == ERR_OK)
		err = file_replace(path_join(path, p->state_dir, "progress.json"), buf_bytes(&out), 0600);
	buf_deinit(&out);
	json_free(v);
	/* Whatever it was, a plant that cannot remember cannot go on. */
	return err == ERR_OK ? ERR_OK : err_set(ERR_IO, "%s", err_text());
}
