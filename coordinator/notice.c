#include "coordinator/notice.h"

#include "coordinator/trouble.h"
#include "crypto/random.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { KIND_WAIT, KIND_TRAIN, KIND_FINISHED, KIND_MOVED, KIND_ENDED, KIND_REFUSED };

enum { REPLY_MAX = WIRE_CONFIG_MAX + WIRE_MANIFEST_MAX + WIRE_INLINE_MAX + (64 << 10) };

struct notice {
	struct notice *next;
	enum kind kind;
	uint64_t job; /* what it is about, so that a second one can join */
	uint64_t version;
	struct plan *plan;             /* shared: the texts in what follows */
	struct wire_task task;         /* TRAIN */
	struct blob *base_copy;        /* shared; in `task`; NULL */
	struct wire_watch_reply watch; /* MOVED */
	enum err code;                 /* REFUSED */
	char text[256];
	struct waiter *waiters; /* owned, linked by `next` */
};

static struct notice *join(struct notices *list, struct waiter *w, enum kind kind, uint64_t job, uint64_t version,
			   bool *ret_fresh)
{
	struct notice *n = list->first;
	while (n != NULL && (n->kind != kind || n->job != job || n->version != version))
		n = n->next;
	*ret_fresh = n == NULL;
	if (n == NULL) {
		n = mem_new(sizeof *n);
		n->kind = kind;
		n->job = job;
		n->version = version;
		n->next = list->first;
		list->first = n;
	}
	w->next = n->waiters;
	n->waiters = w;
	return n;
}

/* A view of a text that the plan owns, for packing only. */
static struct buf borrow(const struct buf *text)
{
	return (struct buf){.p = text->p, .n = text->n, .cap = text->n, .max = text->n};
}

/* The same of bytes; packing does not write to them. */
static struct buf borrow_bytes(struct bytes b)
{
	union {
		const uint8_t *in;
		uint8_t *out;
	} p = {.in = b.p};
	return (struct buf){.p = p.out, .n = b.n, .cap = b.n, .max = b.n};
}

void notice_wait(struct notices *list, struct waiter *w)
{
	bool fresh;
	join(list, w, KIND_WAIT, 0, 0, &fresh);
}

void notice_train(struct notices *list, struct waiter *w, const struct run *r, int64_t now_ms)
{
	bool fresh;
	struct notice *n = join(list, w, KIND_TRAIN, r->id, r->round.number, &fresh);
	if (!fresh)
		return;
	int64_t left = r->round.deadline_ms - now_ms;
	n->plan = plan_share(r->plan);
	n->task = (struct wire_task){
		.kind = WIRE_TASK_TRAIN,
		.job = r->id,
		.round = r->round.number,
		.rounds = (uint32_t)r->plan->config.rounds,
		.config = borrow(&r->plan->config_text),
		.manifest = borrow(&r->plan->manifest_text),
		.base = r->base,
		.source = r->source,
		.base_size = r->base_size,
		.source_size = r->source_size,
		.deadline_in_ms = left > 0 ? (uint64_t)left : 0,
		.job_ends = r->ends,
	};
	if (r->base_copy != NULL) {
		n->base_copy = blob_share(r->base_copy);
		n->task.base_content = borrow_bytes(blob_bytes(n->base_copy));
	}
	snprintf(n->task.job_name, sizeof n->task.job_name, "%s", r->name);
}

void notice_finished(struct notices *list, struct waiter *w, uint64_t job)
{
	bool fresh;
	join(list, w, KIND_FINISHED, job, 0, &fresh);
}

void notice_moved(struct notices *list, struct waiter *w, const struct run *r)
{
	bool fresh;
	struct notice *n = join(list, w, KIND_MOVED, r->id, r->version, &fresh);
	if (!fresh)
		return;
	n->plan = plan_share(r->plan);
	n->watch = (struct wire_watch_reply){.version = r->version, .has_round = true};
	run_show(r, &n->watch.job, &n->watch.round);
	n->watch.job.config = borrow(&r->plan->config_text);
}

void notice_ended(struct notices *list, struct waiter *w, uint64_t job)
{
	bool fresh;
	join(list, w, KIND_ENDED, job, 0, &fresh);
}

void notice_refuse(struct notices *list, struct waiter *w, enum err code, const char *text)
{
	bool fresh;
	struct notice *n = join(list, w, KIND_REFUSED, w->job, (uint64_t)code, &fresh);
	n->code = code;
	snprintf(n->text, sizeof n->text, "%s", text);
}

/* ---- packing ---- */

static enum err pack_finished(const struct notice *n, struct db *db, struct buf *out)
{
	struct job_row j;
	TRY(db_job_get(db, n->job, &j));
	bool has_model = !digest_is_zero(&j.model);
	struct wire_task task = {
		.kind = WIRE_TASK_FINISHED,
		.job = j.id,
		.round = j.model_round,
		.rounds = j.rounds,
		.config = j.config,
		.manifest = j.manifest,
		.base = has_model ? j.model : j.source,
		.source = j.source,
		.base_size = has_model ? j.model_size : j.source_size,
		.source_size = j.source_size,
		.job_state = j.state,
		.job_ends = j.ends,
	};
	snprintf(task.job_name, sizeof task.job_name, "%s", j.name);
	enum err err = wire_task_pack(&task, out);
	job_row_deinit(&j);
	return err;
}

static enum err pack_ended(const struct notice *n, struct db *db, struct buf *out)
{
	struct job_row j;
	struct round_row r;
	TRY(db_job_get(db, n->job, &j));
	enum err err = db_round_get(db, n->job, j.round, &r);
	if (err == ERR_OK) {
		struct wire_watch_reply watch = {.version = (uint64_t)j.ended_ms, .has_round = true};
		db_show_job(&j, &watch.job);
		db_show_round(&r, &watch.round);
		watch.job.config = borrow(&j.config);
		err = wire_watch_reply_pack(&watch, out);
		round_row_deinit(&r);
	}
	job_row_deinit(&j);
	return err;
}

static enum err pack_wait(const struct notice *n, struct db *db, struct buf *out)
{
	(void)n, (void)db;
	struct wire_task wait = {.kind = WIRE_TASK_WAIT, .wait_ms = (uint32_t)(random_u64() % NOTICE_WAIT_MS)};
	return wire_task_pack(&wait, out);
}

static enum err pack_train(const struct notice *n, struct db *db, struct buf *out)
{
	(void)db;
	return wire_task_pack(&n->task, out);
}

static enum err pack_moved(const struct notice *n, struct db *db, struct buf *out)
{
	(void)db;
	return wire_watch_reply_pack(&n->watch, out);
}

static enum err refuse(const struct notice *n, struct db *db, struct buf *out)
{
	(void)db, (void)out;
	return err_set(n->code, "%s", n->text);
}

static enum err (*const packers[])(const struct notice *n, struct db *db, struct buf *out) = {
	[KIND_WAIT] = pack_wait,   [KIND_TRAIN] = pack_train, [KIND_FINISHED] = pack_finished,
	[KIND_MOVED] = pack_moved, [KIND_ENDED] = pack_ended, [KIND_REFUSED] = refuse,
};

/* NULL with an error. */
static enum err pack(const struct notice *n, struct db *db, struct rpc_reply **ret_reply)
{
	struct buf content;
	buf_init(&content, REPLY_MAX);
	enum err err = packers[n->kind](n, db, &content);
	*ret_reply = err == ERR_OK ? rpc_reply_new(&content) : NULL;
	buf_deinit(&content);
	return n->kind == KIND_REFUSED ? err : trouble_hide(err, "packing an answer", TROUBLE_READ);
}

static void send_one(const struct notice *n, struct db *db)
{
	struct rpc_reply *reply;
	enum err err = pack(n, db, &reply);
	char *text = mem_str(err_text());
	for (struct waiter *w = n->waiters, *next; w != NULL; w = next) {
		next = w->next;
		if (n->kind == KIND_WAIT && w != n->waiters) {
			rpc_reply_release(reply);
			err = pack(n, db, &reply); /* each its own random time */
		}
		if (err != ERR_OK)
			err_set(err, "%s", text);
		w->answer(w->call, err, reply);
		free(w);
	}
	free(text);
	rpc_reply_release(reply);
}

void notices_send(struct notices *list, struct db *db)
{
	for (struct notice *n = list->first, *next; n != NULL; n = next) {
		next = n->next;
		send_one(n, db);
		plan_release(n->plan);
		blob_release(n->base_copy);
		free(n);
	}
	list->first = NULL;
}
