/*
 * Is the engine well? Its thread leaves a sign of life with every pass and before every step. A pass is short, and comes
 * at least every IDLE_MS of engine.c. A step may take as long as it needs: an aggregation, the only long one, leaves signs
 * as it gets on, so a step without any is stuck, on a disk that does not answer, say. Whatever is stuck holding the
 * engine's lock or the database's makes this question stick, too, which is an answer.
 *
 * And is a job? A full disk ends nothing: its round waits until there is room, and its operators are told so.
 */
#include "coordinator/engine_parts.h"

#include "coordinator/trouble.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PASS_MAX_MS = 3 * 60 * 1000, STEP_MAX_MS = 5 * 60 * 1000 };

void engine_beat(struct engine *e, bool stepping)
{
	atomic_store(&e->stepping, stepping);
	atomic_store(&e->beat_ms, engine_monotonic_ms(e));
}

enum err engine_check(struct engine *e)
{
	struct job_row job;
	pthread_mutex_lock(&e->lock);
	bool closing = e->closing;
	pthread_mutex_unlock(&e->lock);
	bool stepping = atomic_load(&e->stepping);
	int64_t age_ms = engine_monotonic_ms(e) - atomic_load(&e->beat_ms);
	if (!closing && age_ms > (stepping ? STEP_MAX_MS : PASS_MAX_MS))
		return err_set(ERR_DEADLINE, "the engine %s for %" PRId64 " s",
			       stepping ? "has not got on with a step" : "has done nothing", age_ms / 1000);
	enum err err = db_job_get(e->config.db, 0, &job);
	return err == ERR_OK || err == ERR_NOT_FOUND ? ERR_OK : err_add(err, "the database");
}

/* ---- what holds a round up ---- */

const char *engine_without_dir(const struct engine *e, const char *text)
{
	size_t n = strlen(e->config.dir);
	return strncmp(text, e->config.dir, n) == 0 && text[n] == '/' ? text + n + 1 : text;
}

void engine_note_trouble(struct engine *e, struct run *r, const char *text, int64_t wait_ms, struct notices *out)
{
	char again[64] = "";
	if (wait_ms > 0)
		snprintf(again, sizeof again, "; trying again in %" PRId64 " s", wait_ms / 1000);
	char *whole = mem_printf("waiting: %.180s%s", engine_without_dir(e, text), again);
	db_show_reason(whole, r->trouble);
	free(whole);
	r->version++;
	engine_tell_watchers(e, r, out);
}

enum err engine_hide(struct engine *e, uint64_t job, enum err err, const char *what,
		     enum err (*hide)(enum err err, const char *what, const char *told))
{
	if (err == ERR_OK)
		return ERR_OK;
	struct notices notices = {0};
	char *text = mem_str(err_text());
	enum err told = hide(err, what, TROUBLE_STORE);
	char *said = mem_str(err_text());
	bool full = err == ERR_UNAVAILABLE && strncmp(text, SPOOL_FULL, strlen(SPOOL_FULL)) == 0;
	pthread_mutex_lock(&e->lock);
	struct run *r = told != err || full ? engine_find(e, job) : NULL;
	/* The first plant's is as good as those of the others. */
	if (r != NULL && r->trouble[0] == '\0')
		engine_note_trouble(e, r, text, 0, &notices);
	pthread_mutex_unlock(&e->lock);
	notices_send(&notices, e->config.db);
	err_set(told, "%s", said);
	free(said);
	free(text);
	return told;
}

void engine_trouble(struct engine *e, uint64_t job, char out[WIRE_REASON_SIZE])
{
	pthread_mutex_lock(&e->lock);
	const struct run *r = engine_find(e, job);
	snprintf(out, WIRE_REASON_SIZE, "%s", r != NULL ? r->trouble : "");
	pthread_mutex_unlock(&e->lock);
}
